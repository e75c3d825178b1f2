//! `stillmetal-agent tune` and `stillmetal-agent restore`, for an ordinary host.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use host::{RealTree, Tree};
use serde::Serialize;

use api::report::{Need, Status};

use crate::kept::{self, Undone};
use crate::plan::{Latency, Options, Smt, plan};
use crate::{state, text, topology};

/// Quiets this machine's CPUs and prints what became of every knob.
///
/// Exit status 1: a knob that the quiet depends on was refused.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave SMT siblings online
    #[arg(long)]
    pub keep_smt: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Puts back what `tune` changed, in reverse order, and verifies it.
///
/// Exit status 1: something could not be put back; the state file then keeps the rest.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct PlaceArgs {
    /// Work on a copy of /sys, /proc and /dev below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Where the values before tuning are kept
    #[arg(long, value_name = "FILE", default_value = state::DEFAULT_PATH)]
    pub state: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error("write the report")]
    Output { source: io::Error },
    #[error("serialise the report")]
    Serialise { source: serde_json::Error },
}

/// Runs `tune` on the files below `args.place.root`.
///
/// # Errors
/// When the state cannot be kept (then nothing was changed) or the output not written.
pub fn run_tune(args: &TuneArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    tune(args, &RealTree::new(&args.place.root), out)
}

/// [`run_tune`] on any tree.
///
/// # Errors
/// As [`run_tune`].
pub fn tune(args: &TuneArgs, tree: &dyn Tree, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let smt = if args.keep_smt { Smt::Keep } else { Smt::Off };
    let options = Options {
        smt,
        latency: Latency::Skip,
    };
    if args.dry_run {
        let plan = plan(&topology::read(tree), &options);
        if args.json {
            let steps: Vec<PlannedStep> = plan.steps.iter().map(PlannedStep::of).collect();
            json(out, &steps)?;
        } else {
            print(out, &text::plan(&plan))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (_plan, applied) = kept::tune(&args.place.state, &options, tree)?;
    let report = applied.report;
    if args.json {
        json(out, &report)?;
    } else {
        print(out, &text::report(&report))?;
    }
    let broken = report
        .knobs
        .iter()
        .any(|knob| knob.need == Need::Required && knob.status == Status::Refused);
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A step of the plan in `tune --dry-run --json`.
#[derive(Serialize)]
struct PlannedStep {
    knob: String,
    path: String,
    wanted: String,
    need: Need,
    why: &'static str,
}

impl PlannedStep {
    fn of(step: &crate::plan::Step) -> Self {
        Self {
            knob: step.knob.clone(),
            path: step.cell.label(),
            wanted: step.want.to_string(),
            need: step.need,
            why: step.why,
        }
    }
}

/// Runs `restore` on the files below `args.place.root`.
///
/// # Errors
/// When the state cannot be read or replaced, or the output not written.
pub fn run_restore(args: &RestoreArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    undo(args, &RealTree::new(&args.place.root), out)
}

/// [`run_restore`] on any tree.
///
/// # Errors
/// As [`run_restore`].
pub fn undo(args: &RestoreArgs, tree: &dyn Tree, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let result = match kept::undo(&args.place.state, tree)? {
        Undone::Restored(result) => result,
        nothing => {
            if args.json {
                json(out, &crate::restore::Restored::default())?;
            } else if nothing == Undone::Stale {
                print(
                    out,
                    "nothing to restore: the machine was rebooted since it was tuned\n",
                )?;
            } else {
                print(out, "nothing to restore: this machine is not tuned\n")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    if args.json {
        json(out, &result)?;
    } else {
        print(out, &text::restored(&result))?;
    }
    Ok(if result.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes())
        .map_err(|source| Error::Output { source })
}

fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Error> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|source| Error::Serialise { source })?;
    text.push('\n');
    print(out, &text)
}
