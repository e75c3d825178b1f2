//! `boot.*`: from power-on to an answer, both sides by turns.

use std::time::Duration;

use super::figure::{Figure, median};
use super::sides::{Sides, background_busy};
use testkit::{Client, ConfigOptions, Node};

/// # Errors
/// When a machine does not come up.
pub fn pairs(sides: &Sides, pairs: usize) -> anyhow::Result<Vec<Figure>> {
    let busy = background_busy()?;
    let (mut api, mut engine, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 1..=pairs {
        let (api_at, engine_at) = ours(sides)?;
        let their_engine_at = baseline(sides)?;
        eprintln!(
            "bench: boot pair {pair}/{pairs}: api {api_at:.2} s, engine {engine_at:.2} s, theirs {their_engine_at:.2} s"
        );
        api.push(api_at);
        engine.push(engine_at);
        theirs.push(their_engine_at);
    }
    let range = |values: &[f64]| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        format!("{low:.2} to {high:.2} s")
    };
    let note = |ours: &[f64]| {
        format!(
            "{pairs} pairs by turns, medians; ours {}, theirs {}",
            range(ours),
            range(&theirs)
        )
    };
    let (api_note, engine_note) = (note(&api), note(&engine));
    let their_median = median(&mut theirs);
    let figure = |id, what, limit: f64, values: &mut Vec<f64>, note| {
        let ours = median(values).unwrap_or(f64::NAN);
        let target = format!("ours/theirs ≤ {limit:.2}");
        let figure = Figure::new(id, what, "s", &target, busy).values(ours, their_median);
        let met = figure.ratio.is_some_and(|ratio| ratio <= limit);
        figure.met(met).note(note)
    };
    Ok(vec![
        figure(
            "boot.api",
            "power-on to our API answering over mutual TLS; theirs: to the engine answering",
            0.20,
            &mut api,
            api_note,
        ),
        figure(
            "boot.engine",
            "power-on to the engine answering over mutual TLS",
            0.30,
            &mut engine,
            engine_note,
        ),
    ])
}

fn ours(sides: &Sides) -> anyhow::Result<(f64, f64)> {
    let node = Node::boot(
        &sides.ours(2, &ConfigOptions::default())?,
        &sides.credentials,
    )?;
    let api = node.api(Client::Admin)?;
    let limit = Duration::from_secs(300);
    api.wait_for("our API", "/stillmetal/v1/health", limit, |answer| {
        answer.status == 200
    })?;
    let api_at = node.vm.age().as_secs_f64();
    api.wait_for("the engine", "/_ping", limit, |answer| answer.status == 200)?;
    Ok((api_at, node.vm.age().as_secs_f64()))
}

fn baseline(sides: &Sides) -> anyhow::Result<f64> {
    let limit = Duration::from_secs(600);
    let vm = sides.theirs(2, "").boot(limit)?;
    sides
        .their_api(&vm)?
        .wait_for("the engine", "/_ping", limit, |answer| answer.status == 200)?;
    Ok(vm.age().as_secs_f64())
}
