//! Tests through the real port, with the real Pyright, on real packages.
#![allow(
    clippy::disallowed_methods,
    clippy::pedantic,
    unreachable_pub,
    reason = "tests start servers and clients themselves"
)]

mod answers;
mod changes;
mod clients;
mod command;
mod deadlines;
mod edits;
mod environments;
mod faults;
mod fidelity;
mod freshness;
mod harness;
mod inputs;
mod kept;
mod layers;
mod lifecycle;
mod modes;
mod projects;
mod sameness;
mod sharing;
mod snapshots;
mod store;
mod texts;
