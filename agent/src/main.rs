//! `stillmetal-agent`: one static binary with every duty of a node, chosen by name or subcommand.
//!
//! As `/init` and `/sbin/init` it is PID 1 of the appliance; as `runc` it stands before BuildKit's
//! build steps; `serve` is the node's API; `daemon` is the same beside other work on an ordinary host,
//! and `tune` and `restore` quiet that and put it back; `enter` and `burn` are small helpers.

mod burn;
mod certificate;
mod controller;
mod credentials;
mod daemon;
mod disturb;
mod enter;
mod kmsg;
mod runc;
mod say;
mod selftest;
mod serve;
mod snapshots;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Exit code for wrong use, as clap's own.
const USAGE: u8 = 2;
/// Exit code when the system could not do it.
const FAILED: u8 = 3;

/// Turns a Linux machine into a quiet, remotely driven benchmark node.
#[derive(Debug, Parser)]
#[command(name = "stillmetal-agent", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 the system could not do it."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be PID 1 of the appliance (the kernel starts this; it refuses to run otherwise).
    Init,
    /// Serve the node: quiet the CPUs, run the engine, answer the API over mutual TLS.
    Serve(serve::ServeArguments),
    /// Be a node on an ordinary host, with the host's own engine, for a controller.
    Daemon(Box<daemon::DaemonArguments>),
    /// Remove the containers that an agent of an ordinary host left in its engine.
    Sweep(daemon::SweepArguments),
    /// Quiet the CPUs of this host; `restore` undoes it.
    Tune(stillmetal_tune::cli::TuneArgs),
    /// Put back what `tune` changed.
    Restore(stillmetal_tune::cli::RestoreArgs),
    /// Enter a cgroup, then become another program.
    #[command(hide = true)]
    Enter(enter::EnterArguments),
    /// Keep CPUs busy for a while and print the CPU time that each thread got.
    Burn(burn::BurnArguments),
    /// Disturb a CPU when told to; the self-test's foreign thread.
    #[command(hide = true)]
    Disturb(disturb::DisturbArguments),
    /// Disturb an isolated CPU of this host in known ways, and say whether each is seen.
    Selftest(selftest::SelftestArguments),
    /// Watch a process as a certified run is watched, and say what that costs.
    Snapshots(snapshots::SnapshotsArguments),
    /// Make an authority with certificates for one node and its clients.
    Credentials(credentials::CredentialsArguments),
    /// Print a noise certificate on one screen.
    Certificate(certificate::ShowArguments),
    /// Check that a noise certificate is as a node signed it, and names what was changed if not.
    Verify(certificate::VerifyArguments),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    match called() {
        Some(name) if name == "init" && std::process::id() == 1 => stillmetal_init::run(),
        Some(name) if name == "runc" => return failed_or(runc::run()),
        _ => {}
    }
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
        Command::Init => stillmetal_init::run(),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Daemon(arguments) => daemon::run(&arguments),
        Command::Sweep(arguments) => daemon::sweep(&arguments),
        Command::Tune(arguments) => {
            stillmetal_tune::cli::run_tune(&arguments, &mut std::io::stdout()).map_err(Into::into)
        }
        Command::Restore(arguments) => {
            stillmetal_tune::cli::run_restore(&arguments, &mut std::io::stdout())
                .map_err(Into::into)
        }
        Command::Enter(arguments) => enter::run(&arguments),
        Command::Burn(arguments) => burn::run(&arguments),
        Command::Disturb(arguments) => disturb::run(&arguments),
        Command::Selftest(arguments) => selftest::run(&arguments),
        Command::Snapshots(arguments) => snapshots::run(&arguments),
        Command::Credentials(arguments) => credentials::run(&arguments),
        Command::Certificate(arguments) => certificate::show(&arguments),
        Command::Verify(arguments) => certificate::verify(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "stillmetal-agent",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    };
    failed_or(result)
}

fn failed_or(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("stillmetal-agent: {error:#}");
        ExitCode::from(FAILED)
    })
}

/// The name this program was called by: the kernel starts `/init` (in the initramfs), stage one
/// then `/sbin/init`, and the engine's BuildKit `runc`.
fn called() -> Option<OsString> {
    let name = std::env::args_os().next().map(PathBuf::from)?;
    name.file_name().map(OsString::from)
}
