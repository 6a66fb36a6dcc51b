//! A project's files: where they are, which there are, what changed, and the names in them.

pub mod changes;
pub mod code;
pub mod configuration;
pub mod environment;
pub mod git;
pub mod names;
pub mod parallel;
pub mod paths;
pub mod scope;
pub mod shape;
pub mod tree;
pub mod watch;
