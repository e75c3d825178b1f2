//! The node's events in the engine's stream, over the wire.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};
use stillmetal_proxy::{ContainerEvent, Limits};

use crate::client::request;
use crate::rig::{Rig, soon};

fn verdict(container: &str, time_ns: i64) -> ContainerEvent {
    let attributes = [
        ("name", container),
        ("image", "busybox"),
        ("verdict", "quiet"),
    ];
    ContainerEvent {
        action: "stillmetal.verdict: quiet".into(),
        container_id: container.into(),
        attributes: attributes.map(|(n, v)| (n.into(), v.into())).into(),
        time_ns,
    }
}

/// The engine's line.
fn die(container: &str, time_ns: i64) -> String {
    format!(
        "{}\n",
        json!({ "Type": "container", "Action": "die", "Actor": { "ID": container }, "timeNano": time_ns })
    )
}

/// Action and container of the next `count` events.
async fn next(response: &mut Response<Incoming>, count: usize) -> Vec<String> {
    let mut text = String::new();
    while text.matches('\n').count() < count {
        let frame = soon("an event", response.frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        format!("{} {}", word(&event["Action"]), word(&event["Actor"]["ID"]))
    };
    text.lines().map(event).collect()
}

#[tokio::test]
async fn a_verdict_comes_between_the_engines_events_while_both_happen() {
    let rig = Rig::new().await;
    rig.node.told.tell(verdict("before", 1));
    let mut client = rig.user().await;
    let mut response = client.send(request("GET", "/events", "")).await.unwrap();
    rig.engine.tell.send(die("a", 2).into()).await.unwrap();
    assert_eq!(next(&mut response, 1).await, ["die a"]);
    rig.node.told.tell(verdict("a", 3));
    assert_eq!(
        next(&mut response, 1).await,
        ["stillmetal.verdict: quiet a"]
    );
    // the engine is in the middle of a line
    let line = die("b", 4);
    let (begin, rest) = line.split_at(10);
    rig.engine.tell.send(begin.into()).await.unwrap();
    let frame = soon("half a line", response.frame())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame.into_data().unwrap(), begin);
    rig.node.told.tell(verdict("b", 5));
    rig.engine.tell.send(rest.into()).await.unwrap();
    let mut text = Vec::new();
    let whole = format!("{rest}{{\"status\":\"stillmetal.verdict: quiet\",\"id\":\"b\"");
    while text.len() < whole.len() {
        let frame = soon("the rest", response.frame()).await.unwrap().unwrap();
        text.extend_from_slice(&frame.into_data().unwrap());
    }
    assert!(text.starts_with(whole.as_bytes()));
}

#[tokio::test]
async fn the_past_is_in_order_and_what_was_not_asked_for_is_not_told() {
    let limits = Limits {
        event_silence: Duration::from_secs(3600),
        ..Limits::default()
    };
    let rig = Rig::with(limits).await;
    for (container, time) in [("old", 1), ("a", 12_000_000_000), ("b", 14_000_000_000)] {
        rig.node.told.tell(verdict(container, time));
    }
    // one stream at a time: the fake engine has one list of what to tell
    let ask = async |query: &str| {
        let ended = rig.engine.until("no stream", |state| state.open == 0);
        ended.await;
        let mut client = rig.user().await;
        let target = format!("/v1.45/events?{query}");
        client.send(request("GET", &target, "")).await.unwrap()
    };
    let mut response = ask("since=10&until=1000").await;
    for time in [11, 13, 15] {
        let line = die("x", time * 1_000_000_000);
        rig.engine.tell.send(line.into()).await.unwrap();
    }
    assert_eq!(
        next(&mut response, 5).await,
        [
            "die x",
            "stillmetal.verdict: quiet a",
            "die x",
            "stillmetal.verdict: quiet b",
            "die x"
        ]
    );
    let seen = rig.engine.seen().pop().unwrap();
    assert_eq!(seen.target, "/v1.45/events?since=10&until=1000");
    drop(response);
    // each of these would hold a verdict back for an hour, if it took one
    for unwanted in [
        "",
        "since=15",
        "since=10&filters=%7B%22event%22%3A%5B%22die%22%5D%7D",
        "since=10&filters=%7B%22network%22%3A%5B%22a%22%5D%7D",
        "since=10m",
    ] {
        let mut response = ask(unwanted).await;
        let line = die("y", 20_000_000_000);
        rig.engine.tell.send(line.into()).await.unwrap();
        assert_eq!(next(&mut response, 1).await, ["die y"], "{unwanted}");
    }
}

#[tokio::test]
async fn a_silent_engine_does_not_hold_the_past_back() {
    let limits = Limits {
        event_silence: Duration::from_millis(10),
        ..Limits::default()
    };
    let rig = Rig::with(limits).await;
    rig.node.told.tell(verdict("a", 12_000_000_000));
    let mut client = rig.user().await;
    let filters = "%7B%22event%22%3A%7B%22stillmetal.verdict%22%3Atrue%7D%7D";
    let target = format!("/events?since=10&filters={filters}");
    let mut response = client.send(request("GET", &target, "")).await.unwrap();
    assert_eq!(
        next(&mut response, 1).await,
        ["stillmetal.verdict: quiet a"]
    );
    rig.node.told.tell(verdict("b", 1));
    assert_eq!(
        next(&mut response, 1).await,
        ["stillmetal.verdict: quiet b"]
    );
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_stream_and_a_dead_engine_ends_the_clients() {
    let rig = Rig::new().await;
    let mut client = rig.user().await;
    let response = client.send(request("GET", "/events", "")).await.unwrap();
    rig.engine
        .until("the stream", |state| state.open == 1)
        .await;
    drop((response, client));
    rig.engine.until("its end", |state| state.open == 0).await;

    let mut client = rig.user().await;
    let mut response = client.send(request("GET", "/events", "")).await.unwrap();
    rig.engine.tell.send("{".into()).await.unwrap();
    soon("a piece", response.frame()).await.unwrap().unwrap();
    rig.engine.die().await;
    assert!(soon("end", response.collect()).await.is_err());
}
