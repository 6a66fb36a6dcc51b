//! Tests through the real port, with the real Pyright, on real packages.
#![allow(
    clippy::disallowed_methods,
    clippy::pedantic,
    unreachable_pub,
    reason = "tests start servers and clients themselves"
)]

mod answers;
mod clients;
mod environments;
mod harness;
mod inputs;
mod projects;
mod texts;
