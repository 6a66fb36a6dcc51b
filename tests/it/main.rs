//! Tests through the real port, with the real Pyright, on real packages.
#![allow(clippy::disallowed_methods, clippy::pedantic, reason = "tests start servers and clients themselves")]
#![allow(unreachable_pub, reason = "nothing of a test program is reached from outside")]

mod answers;
mod deadlines;
mod faults;
mod freshness;
mod harness;
mod lifecycle;
mod sharing;
