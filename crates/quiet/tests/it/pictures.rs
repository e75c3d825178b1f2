//! The timeline of a traced run, read back by an XML parser.

use quiet::{
    Certificate, Dropped, Interruption, InterruptionKind, Interruptions, JobClass, NotTraced,
    Value, render, timeline,
};

use crate::node::{JOB_CPU, evidence};

/// A run with these interruptions; its windows lie between the seconds 1 and 10.
fn traced(events: Vec<Interruption>, dropped: u64) -> Certificate {
    let mut evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    evidence.interruptions = Some(Interruptions::Recorded {
        dropped: vec![Dropped {
            cpu: JOB_CPU,
            count: Value::Measured(dropped),
        }],
        events,
    });
    Certificate::new(evidence)
}

fn event(at_ns: u64, kind: InterruptionKind, name: &str) -> Interruption {
    Interruption {
        at_ns,
        cpu: JOB_CPU,
        duration_ns: 1_500_000,
        kind,
        name: name.to_owned(),
    }
}

/// The picture, after a parser has found it sound; and the tooltips in it.
fn drawn(certificate: &Certificate) -> (String, Vec<String>) {
    let text = timeline(certificate).expect("a traced run");
    let document = roxmltree::Document::parse(&text).expect("well-formed XML");
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    assert_eq!(
        root.tag_name().namespace(),
        Some("http://www.w3.org/2000/svg")
    );
    let foreign = ["script", "image", "use", "a", "foreignObject"];
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        assert!(!foreign.contains(&node.tag_name().name()));
        for side in ["x", "y", "width", "height"] {
            let number = node
                .attribute(side)
                .map_or("0", |value| value.trim_end_matches('%'));
            let number: f64 = number.parse().expect("a number");
            assert!((0.0..=1200.0).contains(&number), "{side} {number} {node:?}");
        }
    }
    let titles = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "title")));
    let titles = titles
        .filter_map(|node| Some(node.text()?.to_owned()))
        .collect();
    (text, titles)
}

#[test]
fn every_interruption_is_a_mark_that_says_what_it_was() {
    let events = vec![
        event(4_250_000_000, InterruptionKind::Irq, "local_timer:236"),
        event(4_260_000_000, InterruptionKind::Thread, "sh:4711"),
    ];
    let certificate = traced(events, 0);
    let (text, titles) = drawn(&certificate);
    let has = |words: &str| titles.iter().any(|title| title == words);
    assert!(
        has("irq local_timer:236 on CPU 1: 1.5 ms at 3.250000 s"),
        "{titles:?}"
    );
    assert!(
        has("thread sh:4711 on CPU 1: 1.5 ms at 3.260000 s"),
        "{titles:?}"
    );
    for (window, length) in [
        ("canary_pre", "2.0 s"),
        ("job", "3.0 s"),
        ("exit", "200.0 ms"),
        ("canary_post", "2.0 s"),
    ] {
        assert!(has(&format!("{window}: {length}")), "{titles:?}");
        assert!(text.contains(&format!(">{window}</text>")));
    }
    assert!(text.contains(">CPU 1</text>") && text.contains(">seconds</text>"));
    assert!(!text.contains("not kept") && !text.contains("bins"));
    let screen = render(&certificate);
    assert!(
        screen.contains("traced interruptions: canary_pre 0 job 2 exit 0 canary_post 0"),
        "{screen}"
    );
    assert!(screen.contains("thread  sh:4711"), "{screen}");
}

#[test]
fn a_name_cannot_leave_its_place() {
    let evil = "</title><script>alert('1')</script>&\u{7}]]>";
    let mut certificate = traced(
        vec![event(4_250_000_000, InterruptionKind::Thread, evil)],
        0,
    );
    certificate.evidence.run_id = evil.to_owned();
    certificate.evidence.image = evil.repeat(9);
    certificate.evidence.platform.kernel = evil.to_owned();
    let (text, titles) = drawn(&certificate);
    assert!(!text.contains("<script>"));
    assert!(
        titles.iter().any(
            |title| title.contains("thread </title><script>alert('1')</script>&\u{fffd}]]> on")
        )
    );
}

#[test]
fn a_quiet_run_is_a_picture_too() {
    let (text, titles) = drawn(&traced(Vec::new(), 0));
    assert!(
        text.contains("Interruptions: 0 in 9.0 s · verdict quiet"),
        "{text}"
    );
    assert_eq!(
        titles.len(),
        5,
        "the document's and the windows': {titles:?}"
    );
}

#[test]
fn thousands_are_drawn_in_bins_that_add_up() {
    let kinds = InterruptionKind::ALL;
    let many = 9_000_usize;
    let events =
        (0..many).map(|at| event(1_000_000_000 + at as u64 * 1_000_000, kinds[at % 4], "x:1"));
    let (text, titles) = drawn(&traced(events.collect(), 77));
    assert!(text.len() < 500_000, "{} bytes", text.len());
    assert!(
        text.contains("Drawn in bins of 18.0 ms"),
        "{}",
        &text[text.len() - 900..]
    );
    assert!(text.contains("CPU 1: 77 later ones were not kept"));
    let drawn = titles
        .iter()
        .filter_map(|title| title.split_once(" in 18.0 ms from"));
    let sum: usize = drawn
        .map(|(count, _)| count.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(sum, many);
}

#[test]
fn without_a_trace_there_is_no_picture_and_the_reason_says_how_to_get_one() {
    let mut evidence = evidence(JobClass::Compute, 1, |_, _, _| {});
    let why =
        |evidence: &quiet::Evidence| timeline(&Certificate::new(evidence.clone())).unwrap_err();
    assert!(why(&evidence).to_string().contains("stillmetal.trace=true"));
    evidence.interruptions = Some(Interruptions::Unobservable {
        why: "no tracer".to_owned(),
    });
    let verdict = Certificate::new(evidence.clone()).verdict;
    assert_eq!(
        verdict,
        quiet::Verdict::Quiet,
        "the counters judge, the tracer explains"
    );
    assert!(render(&Certificate::new(evidence.clone())).contains("not traced: no tracer"));
    assert_eq!(
        why(&evidence),
        NotTraced::Unobservable {
            why: "no tracer".to_owned()
        }
    );
    evidence.interruptions = traced(Vec::new(), 0).evidence.interruptions;
    evidence.windows.clear();
    assert_eq!(why(&evidence), NotTraced::NoWindow);
}

#[test]
fn bars_grow_with_each_digit() {
    let of = |events: u64| {
        let certificate = Certificate::new(evidence(JobClass::Compute, 1, |window, step, node| {
            if window == quiet::WindowName::Job && step == 1 {
                node.add("RES", events);
            }
        }));
        let screen = render(&certificate);
        let row = screen
            .lines()
            .find(|line| line.starts_with("job "))
            .unwrap()
            .to_owned();
        row.rsplit_once("  ").unwrap().1.to_owned()
    };
    assert_eq!(
        [0, 1, 9, 10, 14_412].map(of),
        ["·", "█", "█", "██", "█████"]
    );
}
