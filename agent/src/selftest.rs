//! `selftest`: whether this host can prove quiet, without a serving agent.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use host::RealTree;
use quiet::selftest::{Answer, render};
use stillmetal_node::certify::GATE;
use stillmetal_node::selftest::Host;

/// Exit code of the answer "no".
const CANNOT: u8 = 1;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 this host can prove quiet, 1 it cannot, 2 wrong use, 3 it could not be tried."
)]
pub(crate) struct SelftestArguments {
    /// The isolated CPU to disturb; the first that is free if not given.
    #[arg(long)]
    cpu: Option<u32>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// The program that spins as canary.
    #[arg(long, default_value = GATE)]
    gate: PathBuf,
    /// For pages shared with the canary, and a note of what is to be put back.
    #[arg(long, default_value = "/run/stillmetal")]
    run_dir: PathBuf,
}

pub(crate) fn run(arguments: &SelftestArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    // a signal ends it early, and all is put back
    let stop = {
        let _inside = runtime.enter();
        crate::serve::stop_on_sigterm()?
    };
    let host = Host {
        tree: Arc::new(RealTree::live()),
        run_dir: arguments.run_dir.clone(),
        agent: std::env::current_exe().context("find this program")?,
        gate: arguments.gate.clone(),
        uid: nix::unistd::geteuid().as_raw(),
        stop: stop.clone(),
    };
    let test = host.test(arguments.cpu)?;
    anyhow::ensure!(!stop.is_cancelled(), "stopped by a signal; all is put back");
    if arguments.json {
        let text = serde_json::to_string_pretty(&test).context("serialise the result")?;
        println!("{text}");
    } else {
        print!("{}", render(&test));
    }
    Ok(match test.can_prove_quiet {
        Answer::Yes => ExitCode::SUCCESS,
        Answer::No => CANNOT.into(),
    })
}
