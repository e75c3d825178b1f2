//! `disturb`: the foreign thread of a self-test. Runs for a while, now and then, when it is told to.
//!
//! It says `ready` and sleeps until a byte comes on its standard input; acts, says `done`, and ends
//! when its standard input does: with who started it, whatever ends that.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

/// Longer than any probe.
const MAX_US: u64 = 60_000_000;

#[derive(Debug, Args)]
pub(crate) struct DisturbArguments {
    /// How often it runs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    times: u64,
    /// For how long each time, µs.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MAX_US))]
    run_us: u64,
    /// And how long it sleeps in between, µs.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(0..=MAX_US))]
    sleep_us: u64,
}

pub(crate) fn run(arguments: &DisturbArguments) -> anyhow::Result<ExitCode> {
    let mut orders = std::io::stdin().lock();
    let mut word = [0];
    say("ready")?;
    if orders.read(&mut word).context("wait for the word")? == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for round in 0..arguments.times {
        // to run is what it was woken for: no sleep before the first
        if round > 0 {
            std::thread::sleep(Duration::from_micros(arguments.sleep_us));
        }
        let end = Instant::now() + Duration::from_micros(arguments.run_us);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }
    say("done")?;
    while orders.read(&mut word).context("wait for the end")? > 0 {}
    Ok(ExitCode::SUCCESS)
}

fn say(word: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}")
        .and_then(|()| out.flush())
        .with_context(|| format!("say `{word}`"))
}
