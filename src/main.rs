//! The program: reads the command line, and hands over to the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pyrightd::config::Said;
use pyrightd::pyright::interpreter;

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
        /// A TOML file with settings; its keys are the flags' names
        #[arg(long, env = "PYRIGHTD_CONFIG", value_name = "FILE")]
        config: Option<std::path::PathBuf>,
        #[command(flatten)]
        said: Box<Said>,
    },
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pyrightd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Serve { config, said } => {
            let file = config.map(|path| Said::read(&path)).transpose()?.unwrap_or_default();
            let config = said.or(file).resolve()?;
            pyrightd::telemetry::start(config.log_format, &config.log)?;
            runtime.block_on(async {
                let stop = pyrightd::app::stop_signal()?;
                pyrightd::app::App::build(config).await?.run(stop).await
            })
        }
    }
}
