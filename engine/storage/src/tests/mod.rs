//! Tests of the rules across modules: logs, cut files, the whole directory under crashes.

mod archive;
mod check;
mod cuts;
mod history;
mod history_model;
mod logs;
mod power;
mod rollups;
mod support;
