//! `still node`: one node.

use std::collections::BTreeMap;

use api::fleet::{NodeChange, NodeView};
use clap::{Args, Subcommand};
use client::Client;

use crate::context::Chosen;
use crate::docker::{self, DockerContext};
use crate::nodes::{join, labels, state};
use crate::outcome::{Ended, Misuse, Outcome};
use crate::output::{Output, fields};
use crate::quantity::{ago, bytes, moment, now_ms, parse_pair};

/// Look at a node, and say whether it takes work.
#[derive(Debug, Args)]
#[command(after_help = "NODE is a node's name or id.

Examples:
  still node show node1
  still node set node1 --label rack=7 --label ssd=      give it a label, take one away
  still node drain node1                                what runs may end, nothing new starts
  still node docker-context node1                       use it with your own docker client")]
pub(crate) struct NodeArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show all that is known of a node.
    Show { node: String },
    /// Change a node's labels.
    Set {
        node: String,
        /// A label; an empty value takes it away. Repeatable.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
    },
    /// Let the machine with this fingerprint in. Compare it with the one on the machine's console.
    Approve { fingerprint: String },
    /// Let what runs there end, and start nothing new.
    Drain { node: String },
    /// Take work again, after a drain or a quarantine.
    Resume { node: String },
    /// Boot it anew. What it has not handed over yet is lost with its memory.
    Reboot {
        node: String,
        /// Also while jobs run there.
        #[arg(long)]
        force: bool,
    },
    /// Take its right to connect away, for good. It is out within seconds.
    Revoke { node: String },
    /// Make a docker context for the node's container API.
    DockerContext(DockerContext),
}

pub(crate) async fn run(arguments: NodeArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::Show { node } => {
            let node = client.node(&node).await?;
            output.value(&node, || show(&node))?;
        }
        Task::Set { node, labels } => {
            if labels.is_empty() {
                return Err(Misuse::NothingToChange("node set").into());
            }
            let labels = labels.into_iter().collect();
            let change = NodeChange {
                labels,
                ..NodeChange::default()
            };
            changed(&client, &node, &change, output).await?;
        }
        Task::Approve { fingerprint } => {
            client.approve_node(&fingerprint).await?;
            let text = || format!("{fingerprint} may join; see it come: still nodes");
            let value = serde_json::json!({ "approved": fingerprint });
            output.value(&value, text)?;
        }
        Task::Drain { node } => {
            let change = NodeChange {
                draining: Some(true),
                ..NodeChange::default()
            };
            changed(&client, &node, &change, output).await?;
        }
        Task::Resume { node } => {
            let change = NodeChange {
                draining: Some(false),
                healthy: Some(true),
                labels: BTreeMap::new(),
            };
            changed(&client, &node, &change, output).await?;
        }
        Task::Reboot { node, force } => {
            let view = client.node(&node).await?;
            if !force && !view.jobs.is_empty() {
                return Err(Misuse::Busy {
                    node: view.name,
                    jobs: join(&view.jobs),
                }
                .into());
            }
            client.reboot_node(&view.name).await?;
            let text = || format!("{node} goes down, and comes back by itself: still nodes");
            output.value(&serde_json::json!({ "rebooting": node }), text)?;
        }
        Task::Revoke { node } => {
            client.revoke_node(&node).await?;
            let text = || format!("{node} is revoked");
            output.value(&serde_json::json!({ "revoked": node }), text)?;
        }
        Task::DockerContext(arguments) => {
            docker::make_context(&arguments, &client, chosen, output).await?;
        }
    }
    Ok(Outcome::Done)
}

async fn changed(
    client: &Client,
    node: &str,
    change: &NodeChange,
    output: Output,
) -> anyhow::Result<()> {
    let node = client.change_node(node, change).await?;
    output.value(&node, || {
        let labels = labels(&node);
        let labels = match &*labels {
            "" => String::new(),
            labels => format!(" ({labels})"),
        };
        format!("{}: {}{labels}", node.name, state(&node.state))
    })
}

fn show(node: &NodeView) -> String {
    let now = now_ms();
    let facts = node.facts.as_ref();
    let domains = facts.map(|facts| {
        let domains = facts.domains.iter().map(|domain| {
            let memory = bytes(domain.memory_bytes);
            format!("CPUs {} with {memory}", domain.cpus)
        });
        domains.collect::<Vec<_>>().join("\n")
    });
    let of = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let jobs: Vec<_> = node.jobs.iter().map(ToString::to_string).collect();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    fields(&[
        ("name", Some(node.name.clone())),
        ("id", Some(node.id.to_string())),
        ("state", Some(state(&node.state))),
        ("unfit", facts.and_then(|it| it.unfit.clone())),
        ("jobs", Some(jobs.join(" ")).filter(|jobs| !jobs.is_empty())),
        ("for jobs", domains.filter(|text| !text.is_empty())),
        ("isolated", facts.map(|it| yes_no(it.isolated))),
        ("unproven", facts.and_then(|it| it.unproven.clone())),
        (
            "lacks",
            facts
                .map(|it| it.lacks.join("\n"))
                .filter(|text| !text.is_empty()),
        ),
        (
            "tick",
            facts.and_then(|it| it.tick).map(|tick| tick.to_string()),
        ),
        ("shares", facts.map(|it| yes_no(it.share))),
        ("class", of(facts.map(|it| &it.class))),
        ("virtual", facts.map(|it| yes_no(it.virtual_machine))),
        ("labels", Some(labels(node)).filter(|text| !text.is_empty())),
        (
            "devices",
            facts
                .map(|it| {
                    let devices: Vec<_> = it.devices.iter().cloned().collect();
                    devices.join("\n")
                })
                .filter(|text| !text.is_empty()),
        ),
        ("kernel", of(facts.and_then(|it| it.kernel.as_ref()))),
        ("cmdline", of(facts.and_then(|it| it.cmdline.as_ref()))),
        ("agent", of(facts.map(|it| &it.agent_version))),
        ("enrolled", Some(moment(node.enrolled_ms))),
        ("connected", node.connected_ms.map(|then| ago(then, now))),
        ("seen", node.seen_ms.map(|then| ago(then, now))),
        (
            "messages",
            Some(format!("{} received, {} sent", node.received, node.sent)),
        ),
    ])
}
