//! `disturb`: the foreign thread of a self-test. Runs for a while, now and then, when it is told to.
//!
//! It says `ready` and sleeps until a byte comes on its standard input; runs, says `done`, and sleeps
//! until the next. It ends when its standard input does: with who started it, whatever ends that.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

/// Longer than any probe.
const MAX_US: u64 = 60_000_000;

#[derive(Debug, Args)]
pub(crate) struct DisturbArguments {
    /// For how long each time, µs.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MAX_US))]
    run_us: u64,
}

pub(crate) fn run(arguments: &DisturbArguments) -> anyhow::Result<ExitCode> {
    let mut orders = std::io::stdin().lock();
    let mut word = [0];
    say("ready")?;
    while orders.read(&mut word).context("wait for the word")? > 0 {
        let end = Instant::now() + Duration::from_micros(arguments.run_us);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        say("done")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(word: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}")
        .and_then(|()| out.flush())
        .with_context(|| format!("say `{word}`"))
}
