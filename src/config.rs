//! The settings of the server: flags, else environment variables, else a TOML file, else defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::Deserialize;

/// A time such as `30s` or `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

impl TryFrom<String> for Period {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How an engine is asked; see [`crate::model::EngineMode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineMode {
    /// A whole file in one call where that works with Pyright's release, else by hovers
    #[default]
    Auto,
    /// A whole file in one call; where that does not work, projects are not served
    Batch,
    /// One hover for each location
    Hover,
}

impl From<EngineMode> for crate::model::EngineMode {
    fn from(mode: EngineMode) -> Self {
        match mode {
            EngineMode::Auto => Self::Auto,
            EngineMode::Batch => Self::Batch,
            EngineMode::Hover => Self::Hover,
        }
    }
}

/// What may show in answers; see [`crate::model::Evaluation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluation {
    /// Each file for itself: the same answer whatever was asked before
    #[default]
    Isolated,
    /// As in an editor: faster, and what was asked before can show
    Shared,
}

impl From<Evaluation> for crate::model::Evaluation {
    fn from(evaluation: Evaluation) -> Self {
        match evaluation {
            Evaluation::Isolated => Self::Isolated,
            Evaluation::Shared => Self::Shared,
        }
    }
}

/// Where results and snapshots are kept, if not in a folder.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StoreUrl {
    /// Nowhere.
    None,
    /// In a PostgreSQL database; the URL may hold a password.
    Postgres(String),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            None if text == "none" => Ok(Self::None),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(text.to_owned())),
            _ => Err("it is neither postgres://… nor none".into()),
        }
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Postgres(_) => "Postgres(..)",
        })
    }
}

/// Each setting once, as a flag, an environment variable and a key.
macro_rules! settings {
    ($($(#[$attribute:meta])* $name:ident: $type:ty,)*) => {
        /// What was said on one level; what was not is `None`.
        #[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Said {
            $($(#[$attribute])* pub $name: Option<$type>,)*
        }

        impl Said {
            /// What was said here, else there.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

settings! {
    /// Address and port to listen on [default: 127.0.0.1:50051]
    #[arg(long, env = "PYRIGHTD_LISTEN", value_name = "ADDR")]
    listen: SocketAddr,
    /// Address and port to serve metrics on, for Prometheus, at /metrics; none are served unless named
    #[arg(long, env = "PYRIGHTD_METRICS_LISTEN", value_name = "ADDR")]
    metrics_listen: SocketAddr,
    /// Folders below which projects may lie; none is allowed unless named. In the environment, separated by ':'
    #[arg(long, env = "PYRIGHTD_ALLOW_ROOT", value_name = "DIR", num_args = 1.., value_delimiter = ':')]
    allow_root: Vec<PathBuf>,
    /// Folder that holds Pyright and Node (what `npm ci` makes); without it they are installed once into the cache
    #[arg(long, env = "PYRIGHTD_ENGINE_DIR", value_name = "DIR")]
    engine_dir: PathBuf,
    /// Folder for what can be made anew, such as the installed engine [default: the user's cache folder]
    #[arg(long, env = "PYRIGHTD_CACHE_DIR", value_name = "DIR")]
    cache_dir: PathBuf,
    /// Heap limit of each Pyright process, in MiB [default: Node's own, which follows the machine's memory]
    #[arg(long, env = "PYRIGHTD_ENGINE_HEAP_MIB", value_name = "MIB")]
    engine_heap_mib: u32,
    /// How Pyright is asked [default: auto]
    #[arg(long, env = "PYRIGHTD_ENGINE_MODE", value_name = "MODE")]
    engine_mode: EngineMode,
    /// Whether files are evaluated each for itself, where a whole file is asked about in one call [default: isolated]
    #[arg(long, env = "PYRIGHTD_EVALUATION", value_name = "WAY")]
    evaluation: Evaluation,
    /// What is kept in memory of each project's evaluated files [default: 24MiB]
    #[arg(long, env = "PYRIGHTD_MAX_KEPT", value_name = "SIZE")]
    max_kept: ByteSize,
    /// Folder for what is kept: results and snapshots [default: the user's state folder]
    #[arg(long, env = "PYRIGHTD_STATE_DIR", value_name = "DIR")]
    state_dir: PathBuf,
    /// A PostgreSQL database to keep them in instead, as postgres://…, or none to keep nothing
    #[arg(long, env = "PYRIGHTD_STORE", value_name = "URL", hide_env_values = true)]
    store: StoreUrl,
    /// How large what is kept may get; what was not used for the longest is removed then [default: 4GiB]
    #[arg(long, env = "PYRIGHTD_STORE_MAX_BYTES", value_name = "SIZE")]
    store_max_bytes: ByteSize,
    /// How long a Pyright process may take to be ready [default: 60s]
    #[arg(long, env = "PYRIGHTD_START_TIMEOUT", value_name = "TIME")]
    start_timeout: Period,
    /// How long a Pyright process that owes an answer may be silent before it is replaced [default: 2m]
    #[arg(long, env = "PYRIGHTD_STALL_TIMEOUT", value_name = "TIME")]
    stall_timeout: Period,
    /// How long a project may go unused before its Pyright is stopped [default: 30m]
    #[arg(long, env = "PYRIGHTD_IDLE_TIMEOUT", value_name = "TIME")]
    idle_timeout: Period,
    /// Requests under way at once to each Pyright [default: 10]
    #[arg(long, env = "PYRIGHTD_MAX_IN_FLIGHT", value_name = "N")]
    max_in_flight: usize,
    /// Calls that one project takes at once; more are turned away [default: 100]
    #[arg(long, env = "PYRIGHTD_MAX_CALLS", value_name = "N")]
    max_calls: usize,
    /// Largest message taken [default: 64MiB]
    #[arg(long, env = "PYRIGHTD_MAX_MESSAGE_IN", value_name = "SIZE")]
    max_message_in: ByteSize,
    /// Largest message sent [default: 64MiB]
    #[arg(long, env = "PYRIGHTD_MAX_MESSAGE_OUT", value_name = "SIZE")]
    max_message_out: ByteSize,
    /// How often a quiet HTTP/2 connection is pinged [default: 30s]
    #[arg(long, env = "PYRIGHTD_KEEP_ALIVE_INTERVAL", value_name = "TIME")]
    keep_alive_interval: Period,
    /// How long a ping may go unanswered before the connection is closed [default: 20s]
    #[arg(long, env = "PYRIGHTD_KEEP_ALIVE_TIMEOUT", value_name = "TIME")]
    keep_alive_timeout: Period,
    /// How long calls under way may take to end after SIGTERM or SIGINT [default: 20s]
    #[arg(long, env = "PYRIGHTD_GRACE_PERIOD", value_name = "TIME")]
    grace_period: Period,
    /// How the log is written [default: text]
    #[arg(long, env = "PYRIGHTD_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, or tracing's filter directives [default: info]
    #[arg(long, env = "PYRIGHTD_LOG", value_name = "FILTER")]
    log: String,
}

/// The settings in force.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is described once, by its flag in `Said`")]
pub struct Config {
    pub listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    pub allow_root: Vec<PathBuf>,
    pub engine_dir: Option<PathBuf>,
    pub cache_dir: Option<PathBuf>,
    pub engine_heap_mib: Option<u32>,
    pub engine_mode: EngineMode,
    pub evaluation: Evaluation,
    pub max_kept: u64,
    pub state_dir: Option<PathBuf>,
    pub store: Option<StoreUrl>,
    pub store_max_bytes: u64,
    pub start_timeout: Duration,
    pub stall_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_in_flight: usize,
    pub max_calls: usize,
    pub max_message_in: usize,
    pub max_message_out: usize,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    pub grace_period: Duration,
    pub log_format: LogFormat,
    pub log: String,
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {} can't be read: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no such TOML.
    #[error("the configuration file {} is not right: {error}", .path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A setting is out of bounds.
    #[error("--{flag} must be at least 1")]
    Zero {
        /// The setting's flag.
        flag: &'static str,
    },
}

impl Said {
    /// What a TOML file says.
    ///
    /// # Errors
    /// Where it can't be read, or has a key that is no setting.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        toml::from_str(&text).map_err(|error| ConfigError::Toml { path: path.to_owned(), error: Box::new(error) })
    }

    /// The settings in force, with defaults for what nobody said.
    ///
    /// # Errors
    /// Where a limit is zero.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let seconds = |period: Option<Period>, default| period.map_or(Duration::from_secs(default), |period| period.0);
        let bytes =
            |size: Option<ByteSize>| size.map_or(64 << 20, |size| usize::try_from(size.as_u64()).unwrap_or(usize::MAX));
        let config = Config {
            listen: self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50051))),
            metrics_listen: self.metrics_listen,
            allow_root: self.allow_root.unwrap_or_default(),
            engine_dir: self.engine_dir,
            cache_dir: self.cache_dir,
            engine_heap_mib: self.engine_heap_mib,
            engine_mode: self.engine_mode.unwrap_or_default(),
            evaluation: self.evaluation.unwrap_or_default(),
            max_kept: self.max_kept.map_or(24 << 20, |size| size.as_u64()),
            state_dir: self.state_dir,
            store: self.store,
            store_max_bytes: self.store_max_bytes.map_or(4 << 30, |size| size.as_u64()),
            start_timeout: seconds(self.start_timeout, 60),
            stall_timeout: seconds(self.stall_timeout, 120),
            idle_timeout: seconds(self.idle_timeout, 30 * 60),
            max_in_flight: self.max_in_flight.unwrap_or(10),
            max_calls: self.max_calls.unwrap_or(100),
            max_message_in: bytes(self.max_message_in),
            max_message_out: bytes(self.max_message_out),
            keep_alive_interval: seconds(self.keep_alive_interval, 30),
            keep_alive_timeout: seconds(self.keep_alive_timeout, 20),
            grace_period: seconds(self.grace_period, 20),
            log_format: self.log_format.unwrap_or_default(),
            log: self.log.unwrap_or_else(|| "info".into()),
        };
        for (flag, value) in [("max-in-flight", config.max_in_flight), ("max-calls", config.max_calls)] {
            if value == 0 {
                return Err(ConfigError::Zero { flag });
            }
        }
        Ok(config)
    }
}

/// The folder for what can be made anew: `$XDG_CACHE_HOME/pyrightd`, else `~/.cache/pyrightd`.
#[must_use]
pub fn user_cache() -> Option<PathBuf> {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// The folder for what is kept: `$XDG_STATE_HOME/pyrightd`, else `~/.local/state/pyrightd`.
#[must_use]
pub fn user_state() -> Option<PathBuf> {
    user_folder("XDG_STATE_HOME", ".local/state")
}

#[expect(clippy::disallowed_methods, reason = "these are no settings of this program")]
fn user_folder(name: &str, below_home: &str) -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder(name).or_else(|| Some(folder("HOME")?.join(below_home)))?;
    Some(folder.join("pyrightd"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        said: Said,
    }

    #[test]
    fn every_flag_is_a_variable_and_a_key() {
        let command = Flags::command();
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long().filter(|flag| *flag != "help") else { continue };
            let variable = argument.get_env().unwrap().to_str().unwrap().to_owned();
            assert_eq!(variable, format!("PYRIGHTD_{}", flag.replace('-', "_").to_uppercase()));
            assert!(argument.get_help().is_some(), "--{flag} is not explained");
            let value = match flag {
                "listen" | "metrics-listen" => "\"[::1]:1\"",
                "allow-root" => "[\"/a\"]",
                "max-in-flight" | "max-calls" | "engine-heap-mib" => "3",
                "store" => "\"postgres://x/y\"",
                "max-message-in" | "max-message-out" | "max-kept" | "store-max-bytes" => "\"1 MiB\"",
                "log-format" => "\"json\"",
                "engine-mode" => "\"hover\"",
                "evaluation" => "\"shared\"",
                _ if flag.ends_with("dir") || flag == "log" => "\"/a\"",
                _ => "\"5m\"",
            };
            let said: Said =
                toml::from_str(&format!("{flag} = {value}")).unwrap_or_else(|error| panic!("{flag}: {error}"));
            assert_ne!(said, Said::default(), "{flag}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags =
            Flags::parse_from(["x", "--max-in-flight", "3", "--allow-root", "/a", "/b", "--idle-timeout", "5s"]);
        let file: Said = toml::from_str("max-in-flight = 4\nmax-calls = 5\nmax-message-in = '1MiB'").unwrap();
        let config = flags.said.or(file).resolve().unwrap();
        assert_eq!((config.max_in_flight, config.max_calls, config.max_message_in), (3, 5, 1 << 20));
        assert_eq!(config.allow_root, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(config.idle_timeout, Duration::from_secs(5));
        assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
        assert!(toml::from_str::<Said>("max-in-fligth = 4").is_err());
        assert!(Said { max_calls: Some(0), ..Said::default() }.resolve().is_err());
    }
}
