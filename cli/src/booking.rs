//! `still booking`.

use api::booking::{BookingRequest, BookingView};
use clap::{Args, Subcommand};

use crate::context::Chosen;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::{moment, parse_limit, parse_seconds};

/// Keep whole nodes for yourself, or for others, for a time.
#[derive(Debug, Args)]
#[command(
    after_help = "Jobs of others start on booked nodes only if they are over before the booking begins. A booking is
refused where what runs, or another booking, might be in its way.
With a certificate of role user: for 6 hours at most, 7 days ahead, and yourself among the users.

Examples:
  still booking create node1 --for 2h
  still booking create node1 node2 --in 12h --for 6h --user anna --user ben
  still booking cancel 3"
)]
pub(crate) struct BookingArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// List the bookings that are not over.
    List,
    /// Book nodes.
    Create(Create),
    /// End a booking before its time.
    Cancel { id: u64 },
}

#[derive(Debug, Args)]
struct Create {
    /// Names or ids.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// For how long.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_limit)]
    length: u32,
    /// From when on [default: now].
    #[arg(long = "in", value_name = "DURATION", value_parser = parse_seconds)]
    ahead: Option<u32>,
    /// Whose jobs may run there meanwhile; repeatable [default: yours].
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<String>,
}

pub(crate) async fn run(arguments: BookingArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::List => list(&client.bookings().await?, output)?,
        Task::Create(create) => {
            let request = BookingRequest {
                nodes: create.nodes.into_iter().collect(),
                users: create.users.into_iter().collect(),
                in_seconds: create.ahead.unwrap_or(0).into(),
                for_seconds: create.length.into(),
            };
            let booking = client.book(&request).await?;
            output.value(&booking, || {
                format!(
                    "booking {}: {} for {}, {} to {}",
                    booking.id,
                    booking.node_names.join(" "),
                    users(&booking),
                    moment(booking.from_ms),
                    moment(booking.until_ms),
                )
            })?;
        }
        Task::Cancel { id } => {
            client.unbook(id).await?;
            let text = || format!("booking {id} is over");
            output.value(&serde_json::json!({ "cancelled": id }), text)?;
        }
    }
    Ok(Outcome::Done)
}

fn users(booking: &BookingView) -> String {
    let users: Vec<_> = booking.users.iter().map(String::as_str).collect();
    users.join(" ")
}

fn list(bookings: &[BookingView], output: Output) -> anyhow::Result<()> {
    let headings = ["BOOKING", "NODES", "USERS", "FROM", "UNTIL", "MADE BY"];
    output.list(bookings, &headings, |booking| {
        vec![
            booking.id.to_string(),
            booking.node_names.join(" "),
            users(booking),
            moment(booking.from_ms),
            moment(booking.until_ms),
            booking.made_by.clone(),
        ]
    })
}
