//! Flags, variables and configuration files that are wrong.
