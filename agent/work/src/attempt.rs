//! Names of attempts, as directories and in URLs.

use api::job::JobId;
use api::work::Key;

/// `JOB-ATTEMPT-FENCE`.
#[must_use]
pub fn name(key: Key) -> String {
    format!("{}-{}-{}", key.job, key.attempt, key.fence)
}

/// The attempt of this name; `None`: it is no attempt's.
#[must_use]
pub fn parse(text: &str) -> Option<Key> {
    let mut parts = text.split('-');
    let key = Key {
        job: JobId(parts.next()?.parse().ok()?),
        attempt: parts.next()?.parse().ok()?,
        fence: parts.next()?.parse().ok()?,
    };
    // also refuses what parses and is written otherwise, such as `+1`
    (name(key) == text).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_was_written_here_is_a_name() {
        let key = Key {
            job: JobId(3),
            attempt: 1,
            fence: 9,
        };
        assert_eq!(parse("3-1-9"), Some(key));
        for other in [
            "",
            "3",
            "3-1",
            "3-1-9-2",
            "+3-1-9",
            "03-1-9",
            "3--9",
            "a-1-9",
            ".",
            "..",
            "fences.json",
            "3-1-99999999999999999999",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn names_read_back(job in any::<u64>(), attempt in any::<u32>(), fence in any::<u64>()) {
            let key = Key { job: JobId(job), attempt, fence };
            prop_assert_eq!(parse(&name(key)), Some(key));
        }
    }
}
