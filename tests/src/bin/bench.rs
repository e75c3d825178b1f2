//! `make bench`: Stillmetal and what a user would build instead (Debian trixie, systemd, docker.io,
//! Debian's cloud kernel), side by side in the same QEMU and one run. Prints a table and writes
//! `build/bench.json`.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use stillmetal_tests::bench::figure::{Figure, table};
use stillmetal_tests::bench::{boot, certificate, image, proxy, quiet, sides::Sides};
use testkit::{Credentials, places};

#[derive(Debug, Parser)]
struct Arguments {
    /// Only figures whose id starts with one of these, such as `quiet,boot.api`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Pairs of boots for `boot.*`; medians are reported.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
}

/// Takes the figures of one group.
type Measure<'a> = dyn Fn() -> anyhow::Result<Vec<Figure>> + 'a;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wanted = |id: &str| {
        let only = &arguments.only;
        only.is_empty() || only.iter().any(|prefix| id.starts_with(prefix.trim()))
    };
    let credentials = Arc::new(Credentials::generate()?);
    let sides = Sides::prepare(&credentials)?;
    let mut figures: Vec<Figure> = Vec::new();
    let certificates = certificate::ids();
    let groups: [(&[&str], &Measure<'_>); 6] = [
        (&["image.bytes"], &|| image::bytes(&sides)),
        (&["boot.api", "boot.engine"], &|| {
            boot::pairs(&sides, arguments.pairs)
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
            &|| quiet::all(&sides),
        ),
        (&certificates, &|| certificate::all(&sides, &wanted)),
        (&["proxy.run", "proxy.bulk"], &|| proxy::all(&sides)),
        (&["image.floor"], &|| image::floor(&sides)),
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
