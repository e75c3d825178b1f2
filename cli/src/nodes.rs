//! `still nodes`: the list.

use api::fleet::{NodeState, NodeView, PendingNode};
use clap::Args;

use crate::context::Chosen;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::{ago, bytes, now_ms};

/// List the nodes: what they are, whether they take work, and what runs there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still nodes
  still nodes --pending      machines that wait to be let in; then: still node approve FINGERPRINT
  still nodes --json")]
pub(crate) struct NodesArguments {
    /// List the machines that wait for approval instead.
    #[arg(long)]
    pending: bool,
}

pub(crate) async fn run(arguments: NodesArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    if arguments.pending {
        pending(&client.pending_nodes().await?, output)?;
    } else {
        nodes(&client.all_nodes().await?, output)?;
    }
    Ok(Outcome::Done)
}

fn nodes(nodes: &[NodeView], output: Output) -> anyhow::Result<()> {
    let now = now_ms();
    let headings = [
        "NODE", "STATE", "CPUS", "MEMORY", "CLASS", "JOBS", "SEEN", "LABELS",
    ];
    output.list(nodes, &headings, |node| {
        let domains = node.facts.iter().flat_map(|facts| &facts.domains);
        let (mut cpus, mut memory) = (0, 0);
        for domain in domains {
            cpus += domain.cpus.len();
            memory += domain.memory_bytes;
        }
        let known = node.facts.is_some();
        let class = node.facts.as_ref().map(|facts| facts.class.clone());
        vec![
            node.name.clone(),
            state(&node.state),
            if known { cpus.to_string() } else { "?".into() },
            if known { bytes(memory) } else { "?".into() },
            class.unwrap_or_default(),
            join(&node.jobs),
            node.seen_ms.map_or("never".into(), |seen| ago(seen, now)),
            labels(node),
        ]
    })
}

/// In one word, and why.
pub(crate) fn state(state: &NodeState) -> String {
    match state {
        NodeState::Ready => "ready".into(),
        NodeState::Draining => "draining".into(),
        NodeState::Offline => "offline".into(),
        NodeState::Quarantined { cause } => format!("quarantined: {cause}"),
        NodeState::Unfit { reason } => format!("unfit: {reason}"),
    }
}

pub(crate) fn join<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(" ")
}

/// Its own and the operator's.
pub(crate) fn labels(node: &NodeView) -> String {
    let own = node.facts.iter().flat_map(|facts| &facts.labels);
    let mut all: std::collections::BTreeMap<_, _> = own.collect();
    all.extend(&node.labels);
    let all: Vec<_> = all
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    all.join(" ")
}

fn pending(pending: &[PendingNode], output: Output) -> anyhow::Result<()> {
    let now = now_ms();
    let headings = [
        "FINGERPRINT",
        "HOSTNAME",
        "ADDRESS",
        "MACHINE",
        "FIRST",
        "LAST",
    ];
    output.list(pending, &headings, |node| {
        let macs: Vec<_> = node.machine.macs.iter().cloned().collect();
        let machine = node.machine.uuid.clone();
        vec![
            node.fingerprint.clone(),
            node.machine.hostname.clone(),
            node.address.clone(),
            machine.unwrap_or_else(|| macs.join(" ")),
            ago(node.first_ms, now),
            ago(node.last_ms, now),
        ]
    })
}
