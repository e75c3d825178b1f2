//! Lists, page by page.

use std::collections::BTreeSet;

use api::job::JobState;

use super::*;

/// All items of a list, following `next`; and how many pages it had.
async fn all(bench: &Bench, uri: &str) -> (Vec<Value>, usize) {
    let mut items = Vec::new();
    let mut after = None;
    for pages in 1..100 {
        let uri = match &after {
            Some(after) => format!("{uri}&after={after}"),
            None => uri.to_owned(),
        };
        let page = bench.get(&uri).await.json(200);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return (items, pages),
        }
    }
    panic!("it does not end");
}

fn ids(items: &[Value]) -> Vec<u64> {
    items
        .iter()
        .map(|item| item["id"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn jobs_in_both_orders() {
    let bench = Bench::new();
    for _ in 0..7 {
        bench.job().await;
    }
    for (limit, pages) in [(1, 7), (2, 4), (3, 3), (7, 1), (1000, 1)] {
        let (items, count) = all(&bench, &format!("/v1/jobs?limit={limit}")).await;
        assert_eq!((ids(&items), count), (vec![1, 2, 3, 4, 5, 6, 7], pages));
        let (items, count) = all(&bench, &format!("/v1/jobs?order=desc&limit={limit}")).await;
        assert_eq!((ids(&items), count), (vec![7, 6, 5, 4, 3, 2, 1], pages));
    }
    let (items, _) = all(&bench, "/v1/jobs?after=jffffffffffffffff&limit=2").await;
    assert_eq!(ids(&items), Vec::<u64>::new());
}

#[tokio::test]
async fn a_page_is_not_moved_by_what_comes_meanwhile() {
    let bench = Bench::new();
    for _ in 0..4 {
        bench.job().await;
    }
    let first = bench.get("/v1/jobs?order=desc&limit=2").await.json(200);
    bench.job().await;
    let next = first["next"].as_str().unwrap();
    let second = bench
        .get(&format!("/v1/jobs?order=desc&limit=2&after={next}"))
        .await;
    assert_eq!(ids(second.json(200)["items"].as_array().unwrap()), [2, 1]);
}

#[tokio::test]
async fn jobs_are_filtered() {
    let bench = Bench::new();
    let (placed, nodes) = bench.placed(&["Bench One"]).await;
    bench.fake.advance(placed, JobState::Measuring);
    let waiting = bench.job().await;
    bench
        .ask(root(), "PUT", "/v1/queues/fast")
        .json(&json!({}))
        .send()
        .await
        .json(200);
    let body = json!({ "image": "a", "queue": "fast" });
    bench
        .ask(root(), "POST", "/v1/jobs")
        .json(&body)
        .send()
        .await
        .job(201);
    let id = nodes[0].as_str();
    for (query, expected) in [
        ("state=queued".to_owned(), vec![waiting.0, 3]),
        ("state=measuring,queued".to_owned(), vec![1, 2, 3]),
        ("state=done".to_owned(), vec![]),
        ("user=alice".to_owned(), vec![1, 2]),
        ("user=%61lice&state=queued".to_owned(), vec![2]),
        ("queue=fast".to_owned(), vec![3]),
        ("node=Bench+One".to_owned(), vec![1]),
        (format!("node={id}"), vec![1]),
        // a node that is gone, perhaps
        ("node=bench9".to_owned(), vec![]),
    ] {
        let page = bench.get(&format!("/v1/jobs?{query}")).await.json(200);
        assert_eq!(ids(page["items"].as_array().unwrap()), expected, "{query}");
    }
    let got = bench.get("/v1/jobs?node=No+Such").await;
    got.problem(404, "no-such-node");
}

#[tokio::test]
async fn nodes_are_listed_each_once() {
    let bench = Bench::new();
    let mut expected = BTreeSet::new();
    for number in [3, 10, 1, 2, 22, 5] {
        expected.insert(bench.fake.add_node(&format!("n{number}")).to_string());
    }
    let expected: Vec<_> = expected.into_iter().collect();
    for (limit, pages) in [(1, 6), (4, 2), (6, 1)] {
        let (items, count) = all(&bench, &format!("/v1/nodes?limit={limit}")).await;
        let ids: Vec<_> = items
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        assert_eq!(
            (ids, count),
            (expected.iter().map(String::as_str).collect(), pages)
        );
    }
}

#[tokio::test]
async fn events_are_listed_and_filtered() {
    let bench = Bench::new();
    let (job, nodes) = bench.placed(&["n1", "n2"]).await;
    bench.fake.advance(job, JobState::Done);
    let (items, pages) = all(&bench, "/v1/events?limit=2").await;
    let kinds: Vec<_> = items
        .iter()
        .map(|item| item["kind"].as_str().unwrap())
        .collect();
    let expected = ["node.connected", "node.connected", "job.queued", "job.done"];
    assert_eq!((kinds.as_slice(), pages), (expected.as_slice(), 2));
    let page = bench
        .get(&format!("/v1/events?job={job}&after=3"))
        .await
        .json(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["seq"], 4);
    let page = bench
        .get(&format!("/v1/events?node={}", nodes[1]))
        .await
        .json(200);
    assert_eq!(page["items"][0]["seq"], 2);
    assert_eq!(page["next"], Value::Null);
}

#[tokio::test]
async fn queries_are_read_strictly() {
    let bench = Bench::new();
    let max = u64::MAX;
    for (uri, at) in [
        ("/v1/jobs?limt=1", "query parameter limt"),
        ("/v1/jobs?limit=0", "query parameter limit"),
        ("/v1/jobs?limit=1001", "query parameter limit"),
        ("/v1/jobs?limit=+1", "query parameter limit"),
        ("/v1/jobs?limit=", "query parameter limit"),
        ("/v1/jobs?limit", "query parameter limit"),
        ("/v1/jobs?limit=1&limit=1", "query parameter limit"),
        ("/v1/jobs?%6cimit=x", "query parameter limit"),
        ("/v1/jobs?state=", "query parameter state"),
        ("/v1/jobs?state=queued,", "query parameter state"),
        ("/v1/jobs?state=running", "query parameter state"),
        ("/v1/jobs?order=up", "query parameter order"),
        ("/v1/jobs?after=7", "query parameter after"),
        ("/v1/jobs?after=n01", "query parameter after"),
        ("/v1/jobs?after=j", "query parameter after"),
        ("/v1/jobs?user=", "query parameter user"),
        ("/v1/jobs?user=%00", "query parameter user"),
        ("/v1/jobs?user=%0a", "query parameter user"),
        ("/v1/jobs?user=%ff", "query parameter user"),
        ("/v1/jobs?user=%4", "query parameter user"),
        ("/v1/jobs?user=%zz", "query parameter user"),
        ("/v1/jobs?a%0ab=1", "query parameter a\\u{a}b"),
        ("/v1/jobs/1?wait=61", "query parameter wait"),
        ("/v1/jobs/1?wait=-1", "query parameter wait"),
        ("/v1/jobs/1?seen=gone", "query parameter seen"),
        ("/v1/jobs/1/logs?stream=both", "query parameter stream"),
        ("/v1/jobs/1/logs?follow=1", "query parameter follow"),
        ("/v1/events?after=-1", "query parameter after"),
        (&format!("/v1/events?after={max}"), "query parameter after"),
        ("/v1/nodes?after=zz", "query parameter after"),
        ("/v1/queues?x", "query parameter x"),
        ("/v1/version?verbose=1", "query parameter verbose"),
        ("/healthz?x=1", "query parameter x"),
    ] {
        assert_eq!(bench.get(uri).await.at(400, "invalid"), at, "{uri}");
    }
    let got = bench.get("/v1/jobs?limt=1").await.problem(400, "invalid");
    let next = got.next.unwrap();
    assert!(next.contains("limit") && next.contains("order"), "{next}");
    // empty pairs are nothing
    bench.get("/v1/jobs?&limit=1&&").await.json(200);
}
