//! The command line's own work: what `export`, `snapshot`, `bench` and `doctor` do once they have a server or an engine.
//!
//! Reading flags and starting servers is left to `main`.

pub mod bench;
pub mod chart;
pub mod doctor;
pub mod export;
pub mod plain;
pub mod snapshot;
