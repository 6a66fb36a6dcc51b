//! Driving Pyright: installing it, running one process per project root, asking it, and reading what it says.

pub mod batch;
pub mod bridge;
pub mod host;
pub mod infer;
pub mod install;
pub mod interpreter;
pub mod process;
pub mod protocol;
pub mod registry;
pub mod session;
pub mod supervisor;
