//! `proxy.*`: through our TLS against the engine's own TLS on the same node.

use std::time::Duration;

use anyhow::Context;
use testkit::{ConfigOptions, Docker};

use super::figure::{Figure, median};
use super::sides::{Booted, Sides, background_busy};

/// Moves the bulk once; MiB/s.
type Transfer<'a> = dyn Fn(&Docker) -> anyhow::Result<f64> + 'a;

const PAIRS: usize = 15;
const BULK_PAIRS: usize = 5;
const BULK_MIB: usize = 64;

/// # Errors
/// When the node does not come up or a command fails.
pub fn all(sides: &Sides) -> anyhow::Result<Vec<Figure>> {
    let busy = background_busy()?;
    let options = ConfigOptions {
        engine_tls: true,
        ..ConfigOptions::default()
    };
    let side = sides.boot_ours(2, &options)?;
    let Booted::Ours(node) = &side.booted else {
        anyhow::bail!("the proxy is ours");
    };
    let bare = node.bare_engine()?;
    let run = |docker: &Docker| -> anyhow::Result<f64> {
        let output = docker.run_ok(["run", "--rm", "busybox", "true"])?;
        Ok(output.duration.as_secs_f64())
    };
    let (mut ours, mut theirs) = by_turns(PAIRS, || run(&side.docker), || run(&bare))?;
    let ours = median(&mut ours).context("no runs")?;
    let theirs = median(&mut theirs);
    let figure = Figure::new(
        "proxy.run",
        "docker run --rm busybox true through our TLS against the engine's own TLS, same node",
        "s",
        "ours/theirs ≤ 1.05",
        busy,
    )
    .values(ours, theirs)
    .note(format!("{PAIRS} pairs by turns, medians"));
    let met = figure.ratio.is_some_and(|ratio| ratio <= 1.05);
    let mut figures = vec![figure.met(met)];

    let bytes = vec![b'x'; BULK_MIB << 20];
    side.docker
        .run_ok(["create", "--name", "store", "busybox", "true"])?;
    let scratch = testkit::scratch_folder("bulk")?;
    let file = scratch.path().join("bulk");
    std::fs::write(&file, &bytes).context("write the file to copy")?;
    let copy = |docker: &Docker| -> anyhow::Result<f64> {
        let source = file.display().to_string();
        let output = docker.run_ok(["cp", "-q", &source, "store:/bulk"])?;
        Ok(rate(output.duration))
    };
    let attach = |docker: &Docker| -> anyhow::Result<f64> {
        let command = [
            "run",
            "--rm",
            "-i",
            "busybox",
            "sh",
            "-c",
            "cat > /dev/null",
        ];
        let output = docker
            .command(command)
            .stdin(bytes.clone())
            .within(Duration::from_secs(300))
            .run_ok()?;
        Ok(rate(output.duration))
    };
    let mut note = Vec::new();
    let mut worst: Option<(f64, f64)> = None;
    let kinds: [(&str, &Transfer<'_>); 2] = [("docker cp", &copy), ("attach", &attach)];
    for (name, transfer) in kinds {
        let (mut ours, mut theirs) =
            by_turns(BULK_PAIRS, || transfer(&side.docker), || transfer(&bare))?;
        let pair = (
            median(&mut ours).context("no transfers")?,
            median(&mut theirs).context("no transfers")?,
        );
        note.push(format!(
            "{name}: ours {:.1}, theirs {:.1} MiB/s",
            pair.0, pair.1
        ));
        if worst.is_none_or(|worst| pair.0 / pair.1 < worst.0 / worst.1) {
            worst = Some(pair);
        }
    }
    let (ours, theirs) = worst.context("no transfers")?;
    figures.push(
        Figure::new(
            "proxy.bulk",
            "throughput of docker cp and attach, the worse of both",
            "MiB/s",
            "ours/theirs ≥ 0.80",
            busy,
        )
        .values(ours, Some(theirs))
        .met(ours / theirs >= 0.8)
        .note(note.join("; ")),
    );
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "64")]
fn rate(duration: Duration) -> f64 {
    BULK_MIB as f64 / duration.as_secs_f64()
}

fn by_turns(
    pairs: usize,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
    mut theirs: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        a.push(ours()?);
        b.push(theirs()?);
    }
    Ok((a, b))
}
