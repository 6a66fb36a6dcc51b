//! The program: reads the command line, and hands over to the library.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum as _};
use pyrightd::app::{self, App};
use pyrightd::cli;
use pyrightd::cli::bench::BenchArguments;
use pyrightd::cli::doctor::Report;
use pyrightd::cli::export::ExportArguments;
use pyrightd::cli::snapshot::{SnapshotArguments, SnapshotCommand};
use pyrightd::config::{Config, ConfigError, Said};
use pyrightd::pyright::interpreter;
use pyrightd::telemetry;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Keeps Pyright warm and exports the types it infers, over gRPC.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gRPC until SIGTERM or SIGINT
    Serve {
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the types in a project, a folder or a file
    Export {
        #[command(flatten)]
        arguments: ExportArguments,
        #[command(flatten)]
        settings: Settings,
    },
    /// Save a project's types, list, print and compare what was saved, and look types up in it
    // Settings may follow what to do.
    #[command(mut_args(|argument| argument.global(true)))]
    Snapshot {
        #[command(flatten)]
        arguments: SnapshotArguments,
        #[command(flatten)]
        settings: Settings,
    },
    /// Check the engine, the allowed roots and the settings, and say what is wrong
    Doctor {
        #[command(flatten)]
        settings: Settings,
    },
    /// Measure this service against plain hovers and Pyright's own check, on projects of yours
    Bench {
        #[command(flatten)]
        arguments: BenchArguments,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// A TOML file with settings; its keys are the flags' names
    #[arg(long, env = "PYRIGHTD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    said: Box<Said>,
}

impl Settings {
    fn resolve(self) -> Result<Config, ConfigError> {
        let file = self.config.map(|path| Said::read(&path)).transpose()?.unwrap_or_default();
        self.said.or(file).resolve()
    }

    /// The same for commands whose output is not their log: that tells of trouble alone, unless more is asked for.
    fn resolve_quietly(mut self) -> Result<Config, ConfigError> {
        self.said.log.get_or_insert_with(|| "warn".into());
        self.resolve()
    }
}

fn main() -> ExitCode {
    // Pyright runs this program as its Python interpreter.
    #[expect(clippy::disallowed_methods, reason = "this is no setting: it makes the program another one")]
    if let Ok(answers) = std::env::var(interpreter::VARIABLE) {
        let arguments: Vec<String> = std::env::args().collect();
        return match interpreter::answer(&answers, &arguments) {
            Some(answer) => {
                print!("{answer}");
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        };
    }
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pyrightd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Serve { settings } => {
            let config = settings.resolve()?;
            telemetry::start(config.log_format, &config.log)?;
            runtime.block_on(async {
                let stop = app::stop_signal()?;
                App::build(config).await?.run(stop).await
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Export { arguments, settings } => runtime.block_on(export(arguments, settings)),
        Command::Snapshot { arguments, settings } => runtime.block_on(snapshot(arguments, settings)),
        Command::Doctor { settings } => runtime.block_on(doctor(settings)),
        Command::Bench { arguments, settings } => runtime.block_on(bench(arguments, settings)),
    }
}

async fn export(arguments: ExportArguments, settings: Settings) -> anyhow::Result<ExitCode> {
    let mut output = std::io::BufWriter::new(std::io::stdout());
    let complete = if let Some(address) = &arguments.server {
        // The paths are the server's: they need not exist here.
        let root = arguments.root.clone().unwrap_or_else(|| arguments.path.clone());
        cli::export::run(connect(address).await?, &arguments, &root, &mut output).await?
    } else {
        let path = existing(&arguments.path)?;
        let root = arguments.root.as_deref().map(existing).transpose()?.unwrap_or_else(|| app::project_root_of(&path));
        let venv = arguments.venv.as_deref().map(existing).transpose()?;
        let roots: Vec<&Path> = std::iter::once(root.as_path()).chain(venv.as_deref()).collect();
        with_server(settings.resolve_quietly()?, &roots, async |channel| {
            cli::export::run(channel, &arguments, &root, &mut output).await
        })
        .await?
    };
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn snapshot(mut arguments: SnapshotArguments, settings: Settings) -> anyhow::Result<ExitCode> {
    let mut output = std::io::BufWriter::new(std::io::stdout());
    let complete = if let Some(address) = &arguments.server {
        cli::snapshot::run(connect(address).await?, &arguments, &mut output).await?
    } else {
        let root = match &mut arguments.command {
            SnapshotCommand::Update { path, .. } => {
                *path = existing(path)?;
                path.clone()
            }
            // What is kept is of no root; allowing one spares a warning that none is.
            _ => existing(Path::new("."))?,
        };
        with_server(settings.resolve_quietly()?, &[&root], async |channel| {
            cli::snapshot::run(channel, &arguments, &mut output).await
        })
        .await?
    };
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A connection to a server that runs already.
async fn connect(address: &str) -> anyhow::Result<Channel> {
    let address = address.strip_prefix("http://").unwrap_or(address);
    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await;
    channel.with_context(|| format!("no server answers at {address}"))
}

async fn doctor(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(std::io::stdout().lock());
    let config = report.check("settings", settings.resolve(), |config| format!("listen on {}", config.listen))?;
    if let Some(config) = config {
        telemetry::start(config.log_format, "error")?;
        let engine = report.check("engine", app::engine(&config), |engine| {
            format!("{}, run by {}", engine.version, engine.node.display())
        })?;
        if let Some(engine) = engine {
            cli::doctor::engine(&mut report, &engine, app::limits(&config)).await?;
        }
        if config.allow_root.is_empty() {
            report.note("roots", "none is allowed: a server with these settings refuses every export")?;
        }
        for root in &config.allow_root {
            cli::doctor::root(&mut report, root)?;
        }
    }
    Ok(if report.faults() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn bench(arguments: BenchArguments, settings: Settings) -> anyhow::Result<ExitCode> {
    let config = settings.resolve_quietly()?;
    telemetry::start(config.log_format, &config.log)?;
    let engine = app::engine(&config)?;
    let roots = arguments.paths.iter().map(|path| existing(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut output = std::io::stdout().lock();
    tokio::select! {
        measured = cli::bench::run(&engine, engine_flags(&config), &arguments, &roots, &mut output) => measured?,
        () = app::stop_signal()? => anyhow::bail!("interrupted"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The flags by which another process finds and runs engines as these settings say.
fn engine_flags(config: &Config) -> Vec<OsString> {
    let mode = config.engine_mode.to_possible_value().map(|mode| mode.get_name().into());
    let flags: [(&str, Option<OsString>); 8] = [
        ("--engine-dir", config.engine_dir.as_ref().map(Into::into)),
        ("--cache-dir", config.cache_dir.as_ref().map(Into::into)),
        ("--engine-heap-mib", config.engine_heap_mib.map(|heap| heap.to_string().into())),
        ("--engine-mode", mode),
        ("--max-kept", Some(config.max_kept.to_string().into())),
        ("--max-in-flight", Some(config.max_in_flight.to_string().into())),
        ("--start-timeout", Some(format!("{}ms", config.start_timeout.as_millis()).into())),
        ("--stall-timeout", Some(format!("{}ms", config.stall_timeout.as_millis()).into())),
    ];
    flags.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?])).flatten().collect()
}

/// Runs some work against a server in this process, which allows these roots, and ends both.
async fn with_server<T>(
    mut config: Config,
    roots: &[&Path],
    work: impl AsyncFnOnce(Channel) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    telemetry::start(config.log_format, &config.log)?;
    config.allow_root = roots.iter().map(|root| (*root).to_owned()).collect();
    config.listen = ([127, 0, 0, 1], 0).into();
    // What this program asks of itself may be of any size.
    (config.max_message_in, config.max_message_out) = (usize::MAX, usize::MAX);
    let app = App::build(config).await?;
    let address = app.address()?;
    let done = CancellationToken::new();
    let interrupted = app::stop_signal()?;
    let stop = {
        let done = done.clone();
        async move {
            tokio::select! {
                () = done.cancelled() => {}
                () = interrupted => {}
            }
        }
    };
    let client = async {
        let _done = done.drop_guard();
        work(Channel::from_shared(format!("http://{address}"))?.connect().await?).await
    };
    let (served, result) = tokio::join!(app.run(stop), client);
    served?;
    result
}

fn existing(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("{} can't be read", path.display()))
}
