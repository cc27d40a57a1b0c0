//! Files and names that cannot be what they should: CSV lines, tokens, and ids with control characters.
