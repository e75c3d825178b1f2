//! `make bench`: Stillmetal and what a user would build instead (Debian trixie, systemd, docker.io,
//! Debian's cloud kernel), side by side in the same QEMU and one run. Prints a table and writes
//! `build/bench.json`. Figures of the controller need neither image nor emulator.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use stillmetal_tests::bench::figure::{Figure, table};
use stillmetal_tests::bench::{boot, certificate, controller, image, proxy, quiet, sides::Sides};
use testkit::{Credentials, places};

#[derive(Debug, Parser)]
struct Arguments {
    /// Only figures whose id starts with one of these, such as `quiet,boot.api`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Pairs of boots for `boot.*`; medians are reported.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Take one group of the controller's figures in this process, for the bench itself.
    #[arg(long, hide = true, requires = "out")]
    alone: Option<controller::Group>,
    /// Be a process of pretended agents, for the bench itself.
    #[arg(long, hide = true)]
    flock: Option<String>,
    /// Where to write them.
    #[arg(long, hide = true)]
    out: Option<PathBuf>,
}

/// Takes the figures of one group.
type Measure<'a> = dyn Fn() -> anyhow::Result<Vec<Figure>> + 'a;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(orders) = &arguments.flock {
        return controller::flock(orders);
    }
    if let (Some(group), Some(out)) = (arguments.alone, &arguments.out) {
        return controller::alone(group, out);
    }
    let wanted = |id: &str| {
        let only = &arguments.only;
        only.is_empty() || only.iter().any(|prefix| id.starts_with(prefix.trim()))
    };
    // only for what needs it: it takes minutes
    let prepared = OnceCell::new();
    let sides = || -> anyhow::Result<&Sides> {
        if prepared.get().is_none() {
            let credentials = Arc::new(Credentials::generate()?);
            let sides = Sides::prepare(&credentials)?;
            drop(prepared.set(sides));
        }
        prepared.get().context("it was set a moment ago")
    };
    let mut figures: Vec<Figure> = Vec::new();
    let certificates = certificate::ids();
    let of_the_controller = controller::ids();
    let groups: [(&[&str], &Measure<'_>); 7] = [
        (&["image.bytes"], &|| image::bytes(sides()?)),
        (&["boot.api", "boot.engine"], &|| {
            boot::pairs(sides()?, arguments.pairs)
        }),
        (
            &[
                "image.memory",
                "image.processes",
                "image.sockets",
                "quiet.loc",
                "quiet.other",
                "quiet.softirq",
                "quiet.foreign",
                "quiet.threads",
            ],
            &|| quiet::all(sides()?),
        ),
        (&certificates, &|| certificate::all(sides()?, &wanted)),
        (&["proxy.run", "proxy.bulk"], &|| proxy::all(sides()?)),
        (&["image.floor"], &|| image::floor(sides()?)),
        (&of_the_controller, &|| controller::all(&wanted)),
    ];
    for (ids, measure) in groups {
        if ids.iter().any(|id| wanted(id)) {
            eprintln!("bench: {}", ids.join(" "));
            let measured = measure().with_context(|| format!("measure {}", ids.join(", ")))?;
            figures.extend(measured.into_iter().filter(|figure| wanted(&figure.id)));
        }
    }
    certificate::add_baseline(&mut figures);
    print!("{}", table(&figures));
    let path = places::build_dir().join("bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&figures)?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("\n{}", path.display());
    Ok(())
}
