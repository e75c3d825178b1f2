//! `still`: runs benchmarks on quiet nodes, and looks after nodes, queues and jobs. It talks to the
//! controller's API and to nothing else, but for `up` and `down`, which start one on this machine.
//!
//! Standard output is for results, for people or (`--json`) for programs; standard error for what is
//! going on. Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 the system could not do it.

mod artifacts;
mod booking;
mod bundle;
mod certificates;
mod context;
mod docker;
mod events;
mod health;
mod image;
mod interrupts;
mod job;
mod jobs;
mod lab;
mod node;
mod nodes;
mod outcome;
mod output;
mod places;
mod progress;
mod quantity;
mod queue;
mod registry;
mod result;
mod results;
mod run;
mod text;
mod token;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};

use context::Chosen;
use outcome::{Ended, Outcome, USAGE, exit_code};
use output::Output;

/// Runs benchmarks on quiet nodes, with proof.
#[derive(Debug, Parser)]
#[command(name = "still", version, propagate_version = true)]
#[command(after_help = "Begin with a lab on this machine:
  still up                             a controller and a node, in virtual machines
  still image push docker:IMAGE        give it an image of your docker client
  still run --cpus 1 IMAGE CMD…        run it on an isolated CPU; its result comes with a verdict
  still down                           nothing stays

Exit codes: 0 done, 1 the job failed, 2 wrong use, 3 the system could not do it.")]
struct Arguments {
    #[command(flatten)]
    everywhere: Everywhere,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Everywhere {
    #[command(flatten)]
    chosen: Chosen,
    /// Print JSON instead of text.
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(lab::UpArguments),
    Down(lab::DownArguments),
    Run(Box<run::RunArguments>),
    Jobs(jobs::JobsArguments),
    Job(job::JobArguments),
    Results(results::ResultsArguments),
    Nodes(nodes::NodesArguments),
    Node(node::NodeArguments),
    Queue(queue::QueueArguments),
    Booking(booking::BookingArguments),
    Health(health::HealthArguments),
    Image(image::ImageArguments),
    Token(token::TokenArguments),
    Events(events::EventsArguments),
    Verify(certificates::VerifyArguments),
    #[command(visible_alias = "contexts")]
    Context(context::ContextArguments),
    /// Print a completion script for a shell.
    Completions {
        shell: clap_complete::Shell,
    },
    #[command(hide = true)]
    Supervise(lab::SuperviseArguments),
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
    exit_code(run_command(arguments))
}

fn run_command(arguments: Arguments) -> Ended {
    let Everywhere { chosen, json } = arguments.everywhere;
    let output = if json { Output::Json } else { Output::Text };
    match arguments.command {
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "still", &mut std::io::stdout());
            Ok(Outcome::Done)
        }
        Command::Verify(arguments) => certificates::verify(&arguments, output),
        Command::Context(arguments) => context::run(arguments, &chosen, output),
        Command::Supervise(arguments) => lab::supervise(&arguments),
        Command::Up(arguments) => wait(lab::up(arguments, output)),
        Command::Down(arguments) => wait(lab::down(arguments, output)),
        Command::Run(arguments) => wait(run::run(*arguments, &chosen, output)),
        Command::Jobs(arguments) => wait(jobs::run(arguments, &chosen, output)),
        Command::Job(arguments) => wait(job::run(arguments, &chosen, output)),
        Command::Results(arguments) => wait(results::run(arguments, &chosen, output)),
        Command::Nodes(arguments) => wait(nodes::run(arguments, &chosen, output)),
        Command::Node(arguments) => wait(node::run(arguments, &chosen, output)),
        Command::Queue(arguments) => wait(queue::run(arguments, &chosen, output)),
        Command::Booking(arguments) => wait(booking::run(arguments, &chosen, output)),
        Command::Health(arguments) => wait(health::run(arguments, &chosen, output)),
        Command::Image(arguments) => wait(image::run(arguments, &chosen, output)),
        Command::Token(arguments) => wait(token::run(arguments, &chosen, output)),
        Command::Events(arguments) => wait(events::run(arguments, &chosen, output)),
    }
}

/// Runs what talks to the controller.
fn wait(work: impl Future<Output = Ended>) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(work);
    // a read of standard input may never end
    runtime.shutdown_background();
    ended
}
