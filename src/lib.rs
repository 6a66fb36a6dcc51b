//! pyrightd keeps one warm Pyright per project root, shares it among many callers, and exports the types it infers.
//!
//! The program is `main.rs`; the layers, and who may import whom, are in the README under "How it is built".

pub mod admin;
pub mod app;
pub mod blocking;
pub mod cli;
pub mod config;
pub mod export;
pub mod grpc;
pub mod lsp;
pub mod model;
pub mod position;
pub mod pyright;
pub mod results;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod update;
pub mod workspace;

/// The wire contract, as compiled from `proto/`.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated; the contract's comments come along"
)]
pub mod proto {
    tonic::include_proto!("pyrightd.v1");
}
