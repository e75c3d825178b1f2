//! `still events`: the controller's history.

use api::event::Event;
use api::job::JobId;
use clap::Args;
use client::EventFilter;

use crate::context::Chosen;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::moment;

/// Print what happened, oldest first: one event a line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  still events --follow
  still events --job 7 --json        one JSON object a line
  still events --after 120           from number 121 on")]
pub(crate) struct EventsArguments {
    /// Go on with what happens from now on, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Only what concerns this job.
    #[arg(long, value_name = "ID")]
    job: Option<JobId>,
    /// Only what concerns this node (its id).
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Only events after this number.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// At most so many.
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    limit: Option<usize>,
}

/// Events of one page.
const PAGE: u32 = 500;

pub(crate) async fn run(arguments: EventsArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    let mut filter = EventFilter {
        after: Some(arguments.after.unwrap_or(0)),
        job: arguments.job,
        node: arguments.node,
    };
    if arguments.follow {
        let mut stream = client.follow_events(filter);
        loop {
            print(&stream.next().await?, output)?;
        }
    }
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    loop {
        let page = client.events(&filter, Some(PAGE)).await?;
        for event in page.items.iter().take(left) {
            print(event, output)?;
            filter.after = Some(event.seq);
        }
        left = left.saturating_sub(page.items.len());
        if left == 0 || page.next.is_none() || page.items.is_empty() {
            return Ok(Outcome::Done);
        }
    }
}

fn print(event: &Event, output: Output) -> anyhow::Result<()> {
    output.each(event, || line(event))
}

fn line(event: &Event) -> String {
    let mut text = format!("{} {:>6} {}", moment(event.at_ms), event.seq, event.kind);
    if let Some(job) = event.job {
        text.push_str(&format!(" job {job}"));
    }
    if let Some(node) = &event.node {
        text.push_str(&format!(" node {node}"));
    }
    if let Some(user) = &event.user {
        text.push_str(&format!(" by {user}"));
    }
    match &event.data {
        serde_json::Value::Null => {}
        serde_json::Value::String(words) => text.push_str(&format!(": {words}")),
        data => text.push_str(&format!(" {data}")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event: Event = serde_json::from_value(serde_json::json!({
            "seq": 12, "at_ms": 1000, "kind": "job.queued", "job": 7, "user": "anna",
            "data": { "queue": "default" },
        }))
        .unwrap();
        let text = "1970-01-01T00:00:01Z     12 job.queued job 7 by anna {\"queue\":\"default\"}";
        assert_eq!(line(&event), text);
    }
}
