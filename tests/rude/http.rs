//! Questions over HTTP that cannot be answered.
