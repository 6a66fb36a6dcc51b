//! Where log lines go. What they say is left to those who write them; source text is never among it.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::config::LogFormat;

/// Sends log lines to standard error from here on.
///
/// # Errors
/// Where the filter can't be read.
pub fn start(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    // A bare level is about this program; its libraries tell of trouble alone.
    let directives = match filter.parse::<LevelFilter>() {
        Ok(level) => format!("warn,pyrightd={level}"),
        Err(_) => filter.to_owned(),
    };
    let filter = EnvFilter::builder().parse(directives)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "a log was started before");
    }
    Ok(())
}
