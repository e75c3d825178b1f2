//! The node's status as text, for the console and `?format=text`.

use std::fmt::Write;

use api::node::{HostStatus, NodeStatus};
use api::report::NodeState;

/// A few lines of facts, then tuning's own table.
#[must_use]
pub fn render(status: &NodeStatus) -> String {
    let mut out = String::new();
    let mib = |bytes: Option<u64>| bytes.map_or("?".into(), |b| format!("{} MiB", b >> 20));
    let state = match &status.state {
        NodeState::Fit => "fit".to_owned(),
        NodeState::Unfit { reason } => format!("unfit: {reason}"),
    };
    let lines = [
        ("node", status.hostname.clone()),
        ("state", state),
        (
            "kernel",
            status.kernel.clone().unwrap_or_else(|| "?".into()),
        ),
        ("uptime", format!("{} s", status.uptime_seconds)),
        (
            "memory",
            format!(
                "{} of {} available",
                mib(status.memory.available_bytes),
                mib(status.memory.total_bytes)
            ),
        ),
        ("engine", status.engine.detail.clone()),
    ];
    for (name, value) in lines {
        push(&mut out, format_args!("{name:<8} {value}"));
    }
    if status.virtual_machine {
        push(
            &mut out,
            format_args!("{:<8} virtual machine: timings mean nothing here", "note"),
        );
    }
    for (name, text) in status.host.iter().flat_map(host) {
        push(&mut out, format_args!("{name:<8} {text}"));
    }
    for claim in &status.claims {
        push(
            &mut out,
            format_args!(
                "{:<8} CPUs {} {} by {}",
                "claim", claim.cpus, claim.state, claim.holder
            ),
        );
    }
    if let Some(report) = &status.tuning {
        out.push('\n');
        out.push_str(&stillmetal_tune::text::report(report));
    }
    out
}

/// What an ordinary host cannot do.
fn host(host: &HostStatus) -> Vec<(&'static str, String)> {
    let unproven = host.unproven.iter().map(|why| {
        let cpus = &host.cpus;
        let text = format!("{why}; takes jobs that accept that, on CPUs {cpus}");
        ("unproven", text)
    });
    let lacks = host.lacks.iter().map(|lack| ("lacks", lack.clone()));
    unproven.chain(lacks).collect()
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String does not fail");
}
