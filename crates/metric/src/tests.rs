use api::metric::Metric;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn metric(more: Value) -> Metric {
    let mut all = json!({ "name": "m" });
    let object = all.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn extractor(more: Value) -> Extractor {
    extractors(&[metric(more)]).unwrap().remove(0)
}

fn take(more: Value, text: &[u8]) -> Result<f64, String> {
    let mut tail = Tail::default();
    tail.push(text);
    let found = extractor(more).extract(&mut tail, &|| true);
    found.map_err(|missing| missing.to_string())
}

fn fault(metrics: &[Value]) -> Fault {
    let metrics: Vec<Metric> = metrics.iter().cloned().map(metric).collect();
    extractors(&metrics).unwrap_err()
}

#[test]
fn the_last_match_counts_and_the_named_group_goes_first() {
    let text = b"rate: 1\nrate: 2.5\nrate: -3e2 of 9\n";
    assert_eq!(take(json!({"regex": "rate: (\\S+)"}), text), Ok(-300.0));
    let named = json!({"regex": "(rate): (\\S+) of (?<value>\\d)"});
    assert_eq!(take(named, text), Ok(9.0));
    // lines are told apart when the pattern says so
    let lines = json!({"regex": "(?m)^rate: (.*5)$"});
    assert_eq!(take(lines, text), Ok(2.5));
}

#[test]
fn why_a_regex_has_no_number_is_said() {
    for (pattern, text, why) in [
        ("rate: (.*)", "speed: 5", "nothing matches \"rate: (.*)\""),
        ("rate: (.*)", "rate: fast", "\"fast\", in the last match"),
        ("rate: (.*)", "rate: inf", "\"inf\""),
        ("rate: (.*)", "rate: NaN", "\"NaN\""),
        ("rate: (.*)", "rate: 1e999", "\"1e999\""),
        ("rate: (.*)", "rate: 1,234", "\"1,234\""),
        // an earlier number is not taken for the last one
        ("rate: (.*)", "rate: 7\nrate: ?", "\"?\""),
        ("rate(?:: (.*))?", "rate: 7\nrate", "without the group"),
    ] {
        let error = take(json!({"regex": pattern}), text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
        assert!(!error.contains("16 MiB"), "{error}");
    }
}

#[test]
fn pointers_go_into_all_of_it_or_into_the_last_line_that_is_json() {
    let whole = br#"{"a": {"b/c": [1, {"~": 2.5}]},
        "n": null, "s": "7", "o": {"x": 1}, "l": [3]}"#;
    let at = |pointer: &str| take(json!({"pointer": pointer}), whole);
    assert_eq!(at("/a/b~1c/0"), Ok(1.0));
    assert_eq!(at("/a/b~1c/1/~0"), Ok(2.5));
    for (pointer, why) in [
        ("/n", "null"),
        ("/s", "a string"),
        ("/o", "an object"),
        ("/l", "an array"),
        ("/l/1", "nothing at"),
        ("/l/00", "nothing at"),
        ("/l/-", "nothing at"),
        ("/s/0", "nothing at"),
        ("/b", "nothing at \"/b\" in the JSON"),
        ("", "an object"),
    ] {
        let error = at(pointer).unwrap_err();
        assert!(error.contains(why), "{pointer}: {error}");
    }
    let lines = b"starting\n{\"x\": 1}\n{\"x\": 2}\ndone\n\n";
    assert_eq!(take(json!({"pointer": "/x"}), lines), Ok(2.0));
    assert_eq!(take(json!({"pointer": ""}), b"8.5\n"), Ok(8.5));
    let error = take(json!({"pointer": "/y"}), lines).unwrap_err();
    assert!(error.contains("the last line that is JSON"), "{error}");
    let error = take(json!({"pointer": "/y"}), b"no json").unwrap_err();
    assert!(error.contains("not JSON"), "{error}");
    let error = take(json!({"pointer": "/y"}), b" \n").unwrap_err();
    assert!(error.contains("nothing was written"), "{error}");
    // serde_json's limit of depth, not the stack's
    let deep = "[".repeat(1 << 20);
    assert!(take(json!({"pointer": "/0/0"}), deep.as_bytes()).is_err());
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let text = b"\xff\xfe rate: 4\xff";
    assert_eq!(take(json!({"regex": "rate: (\\d+)"}), text), Ok(4.0));
    assert_eq!(take(json!({"pointer": "/x"}), b"\xff\n{\"x\":1}"), Ok(1.0));
}

#[test]
fn of_long_texts_the_end_is_looked_at_from_a_line_on() {
    let mut tail = Tail::default();
    tail.push(b"rate: 1\n");
    for _ in 0..17 {
        tail.push(&[b'.'; 1 << 20]);
    }
    let rate = extractor(json!({"regex": "rate: (\\d+)"}));
    let error = rate.extract(&mut tail, &|| true).unwrap_err().to_string();
    assert!(
        error.contains("no beginning") && error.contains("16 MiB"),
        "{error}"
    );
    tail.push(b"\nend\n");
    let error = rate.extract(&mut tail, &|| true).unwrap_err().to_string();
    assert!(
        error.contains("nothing matches") && error.contains("16 MiB"),
        "{error}"
    );
    tail.push(b"rate: 2\n");
    assert_eq!(rate.extract(&mut tail, &|| true), Ok(2.0));

    // the first line that is left lost its beginning: 4 is not what stood there
    let mut tail = Tail::default();
    let mut long = b"rate: 1234\n".to_vec();
    long.resize(LOOKED_AT + 9, b'.');
    tail.push(&long);
    let digits = extractor(json!({"regex": "(\\d+)"}));
    assert!(digits.extract(&mut tail, &|| true).is_err());

    let mut tail = Tail::default();
    tail.push(b"rate: 9\n");
    tail.cut();
    assert!(rate.extract(&mut tail, &|| true).is_err(), "half a line");
}

#[test]
fn what_takes_too_long_is_given_up() {
    let mut tail = Tail::default();
    tail.push(b"a a a a");
    for way in [json!({"regex": "(a)"}), json!({"pointer": "/x"})] {
        let error = extractor(way).extract(&mut tail, &|| false).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}

#[test]
fn wrong_declarations_are_named_and_shown() {
    let good = json!({"regex": "(a)"});
    let with = |more: Value| {
        let mut all = good.clone();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    for (wrong, at, why) in [
        (with(json!({"name": ""})), "/0/name", "\"\""),
        (with(json!({"name": "-a"})), "/0/name", "\"-a\""),
        (with(json!({"name": "a b"})), "/0/name", "\"a b\""),
        (with(json!({"name": "a".repeat(65)})), "/0/name", "64"),
        (with(json!({"unit": "a\nb"})), "/0/unit", "\"m\""),
        (with(json!({"unit": "µ".repeat(33)})), "/0/unit", "\"m\""),
        (json!({}), "/0/regex", "metric \"m\" has neither"),
        (
            with(json!({"pointer": "/a"})),
            "/0/regex",
            "metric \"m\" has both",
        ),
        (json!({"regex": "a(b"}), "/0/regex", "unclosed group"),
        (json!({"regex": "(?=a)(b)"}), "/0/regex", "look-around"),
        (json!({"regex": "abc"}), "/0/regex", "no group"),
        (json!({"regex": "a".repeat(513)}), "/0/regex", "513 bytes"),
        (
            json!({"regex": "((\\w{99}){99}){9}"}),
            "/0/regex",
            "compiled",
        ),
        (json!({"pointer": "a"}), "/0/pointer", "begin with `/`"),
        (json!({"pointer": "/~2"}), "/0/pointer", "neither `~0`"),
        (json!({"pointer": "/a".repeat(257)}), "/0/pointer", "512"),
        (
            with(json!({"from": {"file": "out"}})),
            "/0/from/file",
            "absolute",
        ),
        (
            with(json!({"from": {"file": "/a/../b"}})),
            "/0/from/file",
            "`..`",
        ),
    ] {
        let fault = fault(std::slice::from_ref(&wrong));
        assert_eq!(fault.at, at, "{wrong}: {fault:?}");
        assert!(fault.why.contains(why), "{wrong}: {fault:?}");
        assert!(!fault.next.is_empty());
    }
    let twice = fault(&[good.clone(), good.clone()]);
    assert_eq!(
        (twice.at.as_str(), twice.why.contains("twice")),
        ("/1/name", true)
    );
    let many = vec![good; 65];
    assert_eq!(fault(&many).at, "");
    // what is wrong with a pattern is shown below it
    let shown = fault(&[json!({"regex": "a(b"})]).why;
    assert!(shown.contains("a(b") && shown.contains('^'), "{shown}");
}

#[test]
fn bounds_themselves_are_allowed() {
    let names: Vec<Metric> = (0..64)
        .map(|n| {
            metric(json!({"name": format!("{n}{}", "x".repeat(62)), "pointer": "", "unit": "µs"}))
        })
        .collect();
    assert!(extractors(&names).is_ok());
    extractor(json!({"regex": format!("({})", "a".repeat(510))}));
    extractor(json!({"pointer": "/a".repeat(256), "from": {"file": "/a"}}));
}

#[test]
fn artifacts_are_absolute_plain_and_different() {
    let check = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        artifacts(&paths).err().map(|fault| (fault.at, fault.why))
    };
    assert_eq!(check(&["/out", "/tmp/..x/a b"]), None);
    for (paths, at, why) in [
        (vec!["out"], "/0", "absolute"),
        (vec!["/a", "/a/../b"], "/1", "`..`"),
        (vec!["/./a"], "/0", "`.`"),
        (vec!["/"], "/0", "empty"),
        (vec!["/a/"], "/0", "empty"),
        (vec!["/a\0"], "/0", "NUL"),
        (vec!["/a", "/a"], "/1", "twice"),
    ] {
        let (found, text) = check(&paths).unwrap();
        assert_eq!(found, at, "{paths:?}");
        assert!(text.contains(why), "{paths:?}: {text}");
    }
    let many: Vec<String> = (0..33).map(|n| format!("/{n}")).collect();
    assert_eq!(artifacts(&many).unwrap_err().at, "");
    assert!(artifacts(&many[..32]).is_ok());
}

proptest! {
    /// Whatever a program writes, and whatever is asked for: a finite number or a reason.
    #[test]
    fn it_never_panics_and_never_gives_what_is_no_number(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                Just(b"rate: 12.5\n".to_vec()),
                Just(b"{\"a\": [1, 1e400]}\n".to_vec()),
            ],
            0..12,
        ),
        pattern in "[()a-z0-9.*+?\\\\|^$:<>{}\\[\\]]{0,20}",
        pointer in "(/[a-z0-9~]{0,3}){0,3}",
        cut in any::<bool>(),
    ) {
        let mut tail = Tail::default();
        for piece in &pieces {
            tail.push(piece);
        }
        if cut {
            tail.cut();
        }
        for way in [
            json!({"regex": pattern}),
            json!({"regex": "rate: (.*)"}),
            json!({"pointer": pointer}),
            json!({"pointer": "/a/1"}),
        ] {
            let Ok(mut found) = extractors(&[metric(way)]) else { continue };
            match found.remove(0).extract(&mut tail, &|| true) {
                Ok(number) => prop_assert!(number.is_finite()),
                Err(missing) => prop_assert_eq!(missing.to_string().contains("16 MiB"), cut),
            }
        }
    }

    /// As serde_json's own pointers find it.
    #[test]
    fn pointers_find_what_a_whole_value_has(
        numbers in prop::collection::vec(-1e6..1e6_f64, 1..5),
        index in 0_usize..6,
    ) {
        let text = json!({"x": {"y": numbers}, "z": "q"}).to_string();
        let value: Value = serde_json::from_str(&text).unwrap();
        let pointer = format!("/x/y/{index}");
        let expected = value.pointer(&pointer).and_then(Value::as_f64);
        let found = take(json!({"pointer": pointer}), text.as_bytes());
        prop_assert_eq!(found.ok(), expected);
    }

    /// It keeps the end, however it arrives.
    #[test]
    fn a_tail_is_the_same_in_any_pieces(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..200,
    ) {
        let at = at.min(bytes.len());
        let (mut one, mut two) = (Tail::default(), Tail::default());
        one.push(&bytes);
        two.push(&bytes[..at]);
        two.push(&bytes[at..]);
        prop_assert_eq!(one.text(), two.text());
    }
}
