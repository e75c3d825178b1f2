//! `stillmetal-controller`: the registry of nodes, the queues, the results.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use stillmetal_controller::credentials;
use stillmetal_controller::serve::{self, Options};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Exit code for wrong use, as clap's own.
const USAGE: u8 = 2;
/// Exit code when the system could not do it.
const FAILED: u8 = 3;

/// Registers nodes, queues jobs, runs them where it is quiet, and keeps their results.
#[derive(Debug, Parser)]
#[command(name = "stillmetal-controller", version, propagate_version = true)]
#[command(after_help = "Exit codes: 0 done, 2 wrong use, 3 the system could not do it.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve nodes and people until SIGTERM.
    #[command(
        after_help = "Example: stillmetal-controller serve --state /var/lib/stillmetal --name lab.example"
    )]
    Serve(Options),
    /// Make a certificate for a person.
    #[command(
        after_help = "Example: stillmetal-controller credentials --state /var/lib/stillmetal --name ada --out ada
Then, on Ada's machine: still context add lab --controller lab.example --ca ada/ca.pem --cert ada/cert.pem --key ada/key.pem"
    )]
    Credentials(credentials::Options),
    /// Print the OpenAPI document of its HTTP API.
    Openapi,
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version come this way too; a closed pipe is nobody's error
            drop(error.print());
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = match arguments.command {
        Command::Serve(options) => run(options),
        Command::Credentials(options) => credentials::write(&options),
        Command::Openapi => {
            print!("{}", stillmetal_controller::http::openapi());
            Ok(())
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(
                shell,
                &mut command,
                "stillmetal-controller",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stillmetal-controller: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

#[tokio::main]
async fn run(options: Options) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    pki::install();
    let stop = CancellationToken::new();
    let token = stop.clone();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        token.cancel();
    });
    serve::run(options, stop).await
}
