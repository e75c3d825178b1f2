use proptest::prelude::*;
use serde_json::Value;

use super::*;

const ZERO: Zero = Zero {
    at_ns: 1000,
    window_ns: Some(500),
};

fn counter(name: &str, count: u64) -> Reading<'static> {
    Reading::counter(name, "count", "/c", count)
}

fn gauge(name: &str, value: i64) -> Reading<'static> {
    Reading::gauge(name, "bytes", "/g", value)
}

fn energy(value: u64, range_uj: Option<u64>) -> Reading<'static> {
    Reading {
        kind: Kind::Energy { range_uj },
        ..counter("package-0", value)
    }
}

/// Its first line, and the others.
fn read(series: &Series, zero: Zero) -> (Value, Vec<Vec<Option<i64>>>) {
    let text = series.encode(3, zero);
    let mut lines = text.lines();
    let head = serde_json::from_str(lines.next().unwrap()).unwrap();
    let rows = lines.map(|line| serde_json::from_str(line).unwrap());
    (head, rows.collect())
}

fn new() -> Series {
    Series::new("cpu", Duration::from_secs(1))
}

#[test]
fn counters_begin_at_zero_and_gauges_are_as_they_are() {
    let mut series = new();
    series.add(900, vec![counter("a", 70), gauge("b", -5)]);
    series.add(1100, vec![counter("a", 75)]);
    series.finish(
        1600,
        vec![counter("a", 75), gauge("b", 6), counter("late", 9)],
    );
    let (head, rows) = read(&series, ZERO);
    assert_eq!(
        rows,
        [
            vec![Some(-100), Some(0), Some(-5), None],
            vec![Some(100), Some(5), None, None],
            vec![Some(600), Some(5), Some(6), Some(0)],
        ]
    );
    assert_eq!(head["schema"], SCHEMA);
    assert_eq!((&head["tool"], &head["run"]), (&json!("cpu"), &json!(3)));
    assert_eq!(head["window_ns"], json!([0, 500]));
    assert_eq!(head["zero_ns"], 1000);
    assert_eq!(
        head["columns"][0],
        json!({"name": "a", "unit": "count", "kind": "counter", "source": "/c"})
    );
    assert_eq!((&head["samples"], &head["dropped"]), (&json!(3), &json!(0)));
}

#[test]
fn what_comes_later_counts_from_its_beginning() {
    let born = |name, count, birth| counter(name, count).born(birth);
    let later = |doubt: bool| {
        let mut series = new();
        series.add(1, vec![born("first", 9, Birth::Zero)]);
        if doubt {
            series.miss("a file could not be read");
        }
        series.add(
            2,
            vec![
                born("first", 10, Birth::Zero),
                born("zero", 5, Birth::Zero),
                born("new", 6, Birth::New),
                born("unknown", 7, Birth::Unknown),
            ],
        );
        read(&series, ZERO).1
    };
    let [before, after] = &later(false)[..] else {
        panic!("two rows");
    };
    assert_eq!(before[1..], [Some(0), Some(0), None, None]);
    assert_eq!(after[1..], [Some(1), Some(5), Some(6), Some(0)]);
    // it may have been there when it was not read
    let [before, after] = &later(true)[..] else {
        panic!("two rows");
    };
    assert_eq!(before[1..], [Some(0), None, None, None]);
    assert_eq!(after[1..], [Some(1), Some(0), Some(0), Some(0)]);
}

#[test]
fn what_did_not_move_is_named_once() {
    let mut series = new();
    for at in [1, 2] {
        series.add(at, vec![counter("still", 7), gauge("size", 7)]);
    }
    let zero = Zero {
        at_ns: 1,
        window_ns: None,
    };
    let (head, rows) = read(&series, zero);
    assert_eq!(head["unmoved"], json!(["still"]));
    assert_eq!(rows, [[Some(0), Some(7)], [Some(1), Some(7)]]);
    assert_eq!(head["window_ns"], Value::Null);
    assert!(head["zero"].as_str().unwrap().contains("nobody saw"));
}

#[test]
fn a_counter_that_goes_backwards_is_not_believed_any_more() {
    let mut series = new();
    for (at, count) in [(1, 5), (2, 9), (3, 8), (4, 20)] {
        series.add(at, vec![counter("a", count)]);
    }
    let (head, rows) = read(&series, ZERO);
    let found: Vec<Option<i64>> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(found, [Some(0), Some(4), None, None]);
    assert_eq!(head["lost"], json!(["a: it went backwards, from 9 to 8"]));
}

#[test]
fn energy_goes_round_once_and_not_more() {
    let second = 1_000_000_000;
    let mut series = new();
    // 600 W for a second are 600 J; a range of 1000 J goes round at most once
    let range = Some(1_000_000_000);
    for (at, uj) in [
        (0, 990_000_000),
        (second, 10_000_000),
        (2 * second, 30_000_000),
    ] {
        series.add(at, vec![energy(uj, range)]);
    }
    let (_, rows) = read(&series, ZERO);
    assert_eq!(rows[1][1], Some(20_000_000));
    assert_eq!(rows[2][1], Some(40_000_000));
    let mut unknown = new();
    for (at, uj) in [(0, 5), (second, 7)] {
        unknown.add(at, vec![energy(uj, None)]);
    }
    let (head, rows) = read(&unknown, ZERO);
    assert_eq!(rows[1][1], None);
    assert!(head["lost"][0].as_str().unwrap().contains("goes round"));
}

#[test]
fn a_long_run_is_thinned_and_says_so() {
    let mut series = new();
    let most = i64::try_from(SAMPLES).unwrap();
    let taken = 3 * most;
    for at in 0..taken {
        series.add(at, vec![counter("a", 2 * u64::try_from(at).unwrap())]);
    }
    series.finish(taken, vec![counter("a", 9 * SAMPLES as u64)]);
    let (head, rows) = read(
        &series,
        Zero {
            at_ns: 0,
            window_ns: Some(1),
        },
    );
    assert!(
        rows.len() < SAMPLES && rows.len() > SAMPLES / 4,
        "{}",
        rows.len()
    );
    assert_eq!(series.samples() + series.dropped(), 3 * SAMPLES as u64 + 1);
    assert_eq!(head["dropped"], json!(series.dropped()));
    assert_eq!(rows[0][0], Some(0));
    let last = rows.last().unwrap();
    assert_eq!((last[0], last[1]), (Some(taken), Some(9 * most)));
    // evenly, and nothing that was counted is lost with a row
    let step = head["kept_every"].as_i64().unwrap();
    for pair in rows[..rows.len() - 1].windows(2) {
        assert_eq!(pair[1][0].unwrap() - pair[0][0].unwrap(), step);
        assert_eq!(pair[1][1], Some(2 * pair[1][0].unwrap()));
    }
}

#[test]
fn there_is_room_for_so_many_numbers_and_figures() {
    let wide = |count: usize, value: i64| {
        (0..count)
            .map(|index| gauge(&format!("g{index}"), value))
            .collect::<Vec<_>>()
    };
    let mut series = new();
    for at in 0..200 {
        series.add(at, wide(COLUMNS, at));
        assert!(series.times.len() * series.columns.len() < CELLS + COLUMNS);
    }
    assert!(series.dropped() > 0);
    let mut series = new();
    series.add(0, wide(COLUMNS + 1, 0));
    assert_eq!(series.columns.len(), COLUMNS);
    assert!(
        series.lost()[0].contains("more than"),
        "{:?}",
        series.lost()
    );
}

#[test]
fn reasons_are_bounded() {
    let mut series = new();
    for index in 0..100 {
        series.lose(format!("{index}"));
    }
    assert_eq!(series.lost().len(), REASONS);
}

proptest! {
    #[test]
    fn every_row_has_a_number_for_each_column(
        moments in prop::collection::vec(
            (any::<i64>(), prop::collection::vec((0..6_usize, any::<u64>(), 0..3_u8), 0..8)),
            0..20,
        ),
    ) {
        let mut series = new();
        for (at, figures) in &moments {
            let readings = figures.iter().map(|(index, value, kind)| match kind {
                0 => counter(&format!("c{index}"), *value),
                1 => gauge(&format!("g{index}"), value.cast_signed()),
                _ => energy(*value, Some(u64::MAX)),
            });
            series.add(*at, readings.collect());
        }
        let (head, rows) = read(&series, ZERO);
        let columns = head["columns"].as_array().unwrap().len();
        prop_assert_eq!(rows.len(), moments.len());
        prop_assert!(rows.iter().all(|row| row.len() == columns + 1));
    }
}
