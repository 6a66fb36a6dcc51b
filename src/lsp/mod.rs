//! JSON-RPC with a language server over a pair of byte streams; knows nothing of Pyright.

pub mod codec;
pub mod multiplexer;
pub mod pending;
