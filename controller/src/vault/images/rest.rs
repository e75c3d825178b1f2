//! What of an image's archive an engine needs that has some of its layers. Pure.

use std::ops::Range;

use super::index::Layer;

/// How many of an image's layers, from the lowest on, an engine has that has images of these layers.
///
/// An engine knows a layer by those below it (its chain id, OCI image specification, "Layer ChainID"), so the
/// same content on top of something else is another layer.
pub(super) fn common(layers: &[Layer], there: &[Vec<String>]) -> usize {
    let same = |diffs: &Vec<String>| {
        let pairs = layers.iter().zip(diffs);
        pairs
            .take_while(|(layer, diff)| layer.diff == **diff)
            .count()
    };
    there.iter().map(same).max().unwrap_or(0)
}

/// The parts of an archive of `bytes` without the files of the first `have` layers, in their order. A file that
/// is a higher layer as well stays.
pub(super) fn rest(layers: &[Layer], bytes: u64, have: usize) -> Vec<Range<u64>> {
    let (known, missing) = layers.split_at(have.min(layers.len()));
    let needed = |layer: &&Layer| missing.iter().all(|other| other.file != layer.file);
    let mut left_out: Vec<&Range<u64>> = known.iter().filter(needed).map(|it| &it.file).collect();
    left_out.sort_by_key(|file| file.start);
    let mut parts = Vec::new();
    let mut at = 0;
    for file in left_out {
        if file.start > at {
            parts.push(at..file.start);
        }
        at = at.max(file.end);
    }
    if at < bytes {
        parts.push(at..bytes);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(diff: &str, file: Range<u64>) -> Layer {
        Layer {
            diff: diff.into(),
            file,
        }
    }

    fn image(diffs: &[&str]) -> Vec<String> {
        diffs.iter().map(|diff| (*diff).to_owned()).collect()
    }

    #[test]
    fn layers_are_the_same_only_on_the_same_ground() {
        let layers = [layer("a", 0..1), layer("b", 1..2), layer("c", 2..3)];
        assert_eq!(common(&layers, &[]), 0);
        assert_eq!(common(&layers, &[image(&["b", "c"])]), 0);
        assert_eq!(
            common(&layers, &[image(&["a", "x"]), image(&["a", "b", "x"])]),
            2
        );
        assert_eq!(common(&layers, &[image(&["a", "b", "c", "d"])]), 3);
    }

    #[test]
    fn what_is_there_is_left_out() {
        let layers = [layer("a", 10..20), layer("b", 40..50), layer("c", 20..30)];
        let whole = |bytes: u64| {
            vec![Range {
                start: 0,
                end: bytes,
            }]
        };
        assert_eq!(rest(&layers, 60, 0), whole(60));
        assert_eq!(rest(&layers, 60, 1), [0..10, 20..60]);
        assert_eq!(rest(&layers, 60, 2), [0..10, 20..40, 50..60]);
        assert_eq!(rest(&layers, 60, 3), [0..10, 30..40, 50..60]);
        assert_eq!(rest(&layers, 60, 9), [0..10, 30..40, 50..60]);
        // an empty layer is there twice, and one file
        let twice = [layer("e", 10..20), layer("a", 30..40), layer("e", 10..20)];
        assert_eq!(rest(&twice, 50, 1), whole(50));
        assert_eq!(rest(&twice, 50, 3), [0..10, 20..30, 40..50]);
    }

    proptest! {
        /// Nothing is sent twice, and every byte is sent or belongs to a layer that is there.
        #[test]
        fn parts_and_layers_are_the_whole(
            files in proptest::collection::vec((0_u64..80, 1_u64..20), 0..6), have in 0_usize..8,
        ) {
            let file = |(at, bytes): &(u64, u64)| layer(&at.to_string(), *at..at + bytes);
            let layers: Vec<Layer> = files.iter().map(file).collect();
            let parts = rest(&layers, 100, have);
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= 100));
            prop_assert!(parts.is_sorted_by(|one, next| one.end <= next.start));
            for byte in 0..100 {
                let sent = parts.iter().any(|part| part.contains(&byte));
                let there = layers.iter().take(have).any(|it| it.file.contains(&byte));
                prop_assert!(sent || there, "{byte}");
            }
        }
    }
}
