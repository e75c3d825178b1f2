//! Lines of ours between the engine's lines: the decision what goes out next, without any waiting.
//!
//! While events of the past are to be put in order, the engine's lines are held until they are
//! complete, so that ours can go before a younger one. After that nothing is held: the engine's bytes
//! pass at once, and a line of ours waits at most for the end of a line that has begun.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event;

/// Lines of ours that wait for the end of a line of the engine's. More are left where they are.
const DUE: usize = 256;

/// A line of ours with its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) time_ns: i64,
    pub(super) line: Bytes,
}

#[derive(Debug)]
pub(super) struct Merge {
    /// In the order in which they go out.
    due: VecDeque<Due>,
    /// The past is being put in order.
    ordering: bool,
    /// A part of one line of the engine's, held while ordering.
    held: Vec<u8>,
    /// Bytes of a line whose end has not come yet have gone out.
    open: bool,
    /// A longer line is not held: it goes out without being put in order.
    line_bytes: usize,
}

impl Merge {
    /// `past` in the order of its times.
    pub(super) fn new(past: Vec<Due>, line_bytes: usize) -> Self {
        Self {
            ordering: !past.is_empty(),
            due: past.into(),
            held: Vec::new(),
            open: false,
            line_bytes,
        }
    }

    /// Whether it waits for [`Merge::silence`].
    pub(super) fn is_ordering(&self) -> bool {
        self.ordering
    }

    /// Whether [`Merge::ours`] may be called.
    pub(super) fn has_room(&self) -> bool {
        self.due.len() < DUE
    }

    /// A piece of the engine's stream came: what goes out.
    #[must_use]
    pub(super) fn engine(&mut self, piece: Bytes) -> Bytes {
        if self.due.is_empty() && !self.ordering {
            self.open = piece.last().map_or(self.open, |last| *last != b'\n');
            return piece;
        }
        let mut out = Vec::with_capacity(self.held.len() + piece.len());
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.part(part, &mut out);
        }
        out.into()
    }

    /// Something happened on the node: what goes out.
    #[must_use]
    pub(super) fn ours(&mut self, due: Due) -> Bytes {
        if self.open || self.ordering {
            self.due.push_back(due);
            return Bytes::new();
        }
        due.line
    }

    /// The engine has said nothing for a while, so its past is told: what goes out.
    #[must_use]
    pub(super) fn silence(&mut self) -> Bytes {
        let mut out = Vec::new();
        self.ordering = false;
        self.flush(&mut out);
        self.open |= !self.held.is_empty();
        out.append(&mut self.held);
        out.into()
    }

    /// The engine's stream has ended: what goes out. After half a line nothing of ours can follow.
    #[must_use]
    pub(super) fn end(&mut self) -> Bytes {
        self.silence()
    }

    /// A line or a piece of one.
    fn part(&mut self, part: &[u8], out: &mut Vec<u8>) {
        let complete = part.ends_with(b"\n");
        if self.open || !self.ordering {
            out.extend_from_slice(part);
            self.open = !complete;
            if !self.ordering {
                self.flush(out);
            }
            return;
        }
        self.held.extend_from_slice(part);
        if complete {
            if let Some(time_ns) = event::time_ns(&self.held) {
                self.flush_until(time_ns, out);
            }
            out.append(&mut self.held);
            self.ordering = !self.due.is_empty();
        } else if self.held.len() > self.line_bytes {
            out.append(&mut self.held);
            self.open = true;
        }
    }

    /// All that is due, unless a line is open.
    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.open {
            self.flush_until(i64::MAX, out);
        }
    }

    fn flush_until(&mut self, time_ns: i64, out: &mut Vec<u8>) {
        while let Some(due) = self.due.pop_front_if(|due| due.time_ns <= time_ns) {
            out.extend_from_slice(&due.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(time_ns: i64) -> Due {
        Due {
            time_ns,
            line: format!("our {time_ns}\n").into(),
        }
    }

    fn theirs(time_ns: i64) -> String {
        format!("{{\"Type\":\"x\",\"timeNano\":{time_ns}}}\n")
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_past_is_put_in_order_and_ends_with_silence() {
        let mut merge = Merge::new(vec![ours(2), ours(4), ours(6)], 1000);
        let piece = format!("{}{}{{\"ti", theirs(1), theirs(3));
        let out = merge.engine(piece.into());
        assert_eq!(text(&out), format!("{}our 2\n{}", theirs(1), theirs(3)));
        assert!(merge.is_ordering());
        assert_eq!(text(&merge.ours(ours(7))), "");
        assert_eq!(text(&merge.silence()), "our 4\nour 6\nour 7\n{\"ti");
        assert!(!merge.is_ordering());
        // now at once, but for the open line
        assert_eq!(text(&merge.ours(ours(8))), "");
        assert_eq!(text(&merge.engine("meNano\"".into())), "meNano\"");
        assert_eq!(text(&merge.engine(":9}\n{".into())), ":9}\nour 8\n{");
        assert_eq!(text(&merge.engine("}\n".into())), "}\n");
        assert_eq!(text(&merge.ours(ours(10))), "our 10\n");
    }

    #[test]
    fn an_end_brings_what_is_due_but_never_into_a_line() {
        let mut merge = Merge::new(vec![ours(2)], 1000);
        assert_eq!(text(&merge.engine(theirs(1).into())), theirs(1));
        assert_eq!(text(&merge.end()), "our 2\n");
        let mut merge = Merge::new(Vec::new(), 1000);
        assert_eq!(text(&merge.engine("{".into())), "{");
        assert_eq!(text(&merge.ours(ours(3))), "");
        assert_eq!(text(&merge.end()), "");
    }

    #[test]
    fn a_line_that_is_too_long_passes_as_it_comes() {
        let mut merge = Merge::new(vec![ours(2)], 10);
        assert_eq!(text(&merge.engine("0123456789".into())), "");
        assert_eq!(text(&merge.engine("abc".into())), "0123456789abc");
        assert_eq!(text(&merge.engine("def".into())), "def");
        assert_eq!(text(&merge.silence()), "", "the line is open");
        assert_eq!(text(&merge.engine("\n{".into())), "\nour 2\n{");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut merge = Merge::new(Vec::new(), 10);
        assert_eq!(text(&merge.engine("{".into())), "{");
        for time in 0..256 {
            assert!(merge.has_room());
            assert_eq!(text(&merge.ours(ours(time))), "");
        }
        assert!(!merge.has_room());
        let out = merge.engine("}\n".into());
        assert_eq!(text(&out).lines().count(), 257);
        assert!(merge.has_room());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// That many bytes of the engine's stream come.
        Engine(usize),
        Ours,
        Silence,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0_usize..40).prop_map(Step::Engine),
            2 => Just(Step::Ours),
            1 => Just(Step::Silence),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// However the engine's stream is cut and whatever happens in between: its lines are the
        /// same and in the same order, and each of ours is there once, whole, and in order.
        #[test]
        fn lines_are_never_torn_lost_or_moved(
            past in 0_i64..5,
            times in proptest::collection::vec((0_i64..50, 0_usize..60), 0..10),
            steps in steps(),
            line_bytes in 0_usize..120,
        ) {
            let lines = times.iter().map(|(time, padding)| {
                format!("{{\"pad\":\"{}\",\"timeNano\":{time}}}\n", "x".repeat(*padding))
            });
            let lines: Vec<String> = lines.collect();
            let mut stream = Bytes::from(lines.concat());
            let mut merge = Merge::new((0..past).map(|n| ours(n * 10)).collect(), line_bytes);
            let mut number = 100;
            let mut out = Vec::new();
            for step in steps {
                out.extend_from_slice(&match step {
                    Step::Engine(bytes) => {
                        merge.engine(stream.split_to(bytes.min(stream.len())))
                    }
                    Step::Ours => {
                        number += 1;
                        merge.ours(ours(number))
                    }
                    Step::Silence => merge.silence(),
                });
            }
            out.extend_from_slice(&merge.engine(stream));
            out.extend_from_slice(&merge.end());
            let out = String::from_utf8(out).unwrap();
            let (our, engine): (Vec<&str>, Vec<&str>) = out
                .split_inclusive('\n')
                .partition(|line| line.starts_with("our"));
            prop_assert_eq!(engine, lines);
            let told = (0..past).map(|n| n * 10).chain(101..=number);
            let told: Vec<String> = told.map(|time| format!("our {time}\n")).collect();
            prop_assert_eq!(our, told);
        }

        /// With lines that fit and no silence in between, the whole past is in the order of time.
        #[test]
        fn the_past_is_in_order(
            mut engine in proptest::collection::vec(0_i64..100, 0..12),
            mut node in proptest::collection::vec(0_i64..100, 0..12),
            cut in 1_usize..50,
        ) {
            engine.sort_unstable();
            node.sort_unstable();
            let lines: String = engine.iter().map(|time| theirs(*time)).collect();
            let due = node.iter().map(|time| Due {
                time_ns: *time,
                line: theirs(*time).into(),
            });
            let mut merge = Merge::new(due.collect(), 1000);
            let mut out = Vec::new();
            for piece in lines.as_bytes().chunks(cut) {
                out.extend_from_slice(&merge.engine(Bytes::copy_from_slice(piece)));
            }
            out.extend_from_slice(&merge.end());
            let mut all = [engine, node].concat();
            all.sort_unstable();
            let expected: String = all.into_iter().map(theirs).collect();
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
