//! Tests through the real port, with the real Pyright, on real packages.
#![allow(
    clippy::disallowed_methods,
    clippy::pedantic,
    unreachable_pub,
    reason = "tests start servers and clients themselves"
)]

mod answers;
mod command;
mod deadlines;
mod faults;
mod fidelity;
mod freshness;
mod harness;
mod layers;
mod lifecycle;
mod sharing;
