//! What a series may ask for, as far as the node's state does not matter.

use api::run::RunRequest;
use policy::Denial;

use super::attempt::bad;

const MOST_WARMUPS: u32 = 100;
const MOST_REPETITIONS: u32 = 1000;
const MOST_ATTEMPTS: u32 = 20;

/// The rest is policy's, as for every container.
pub(super) fn check(request: &RunRequest) -> Result<(), Denial> {
    let within = |name: &str, number: u32, least: u32, most: u32| {
        if (least..=most).contains(&number) {
            Ok(())
        } else {
            Err(bad(format!("`{name}` is {number}: give {least} to {most}")))
        }
    };
    within("warmups", request.warmups, 0, MOST_WARMUPS)?;
    within("repetitions", request.repetitions, 1, MOST_REPETITIONS)?;
    within("attempts", request.attempts, 1, MOST_ATTEMPTS)?;
    if request.image.is_empty() {
        return Err(bad("`image` is empty: name an image of this node".into()));
    }
    if request.fifo.is_some() && request.nice.is_some() {
        return Err(bad(
            "`fifo` and `nice` exclude each other: SCHED_FIFO knows no nice value".into(),
        ));
    }
    let strange = request.env.iter().find(|(name, value)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    });
    if let Some((name, _)) = strange {
        return Err(bad(format!(
            "`env` {name:?}: a name must not be empty or hold `=`, and nothing may hold a NUL byte"
        )));
    }
    let fault = |field: &str, fault: metric::Fault| {
        bad(format!(
            "`{field}{}`: {}; {}",
            fault.at, fault.why, fault.next
        ))
    };
    metric::extractors(&request.metrics).map_err(|wrong| fault("metrics", wrong))?;
    metric::artifacts(&request.artifacts).map_err(|wrong| fault("artifacts", wrong))?;
    tools(request)?;
    Ok(())
}

/// What is to look at its runs.
pub(super) fn tools(request: &RunRequest) -> Result<Vec<collect::Asked>, Denial> {
    collect::asked(&request.tools).map_err(|fault| {
        let collect::Fault { at, why, next } = fault;
        bad(format!("`tools{at}`: {why}; {next}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn wrong_metrics_and_artifacts_are_refused_before_anything_starts() {
        let with = |field: &str, value: Value| {
            let mut request = json!({"image": "b", "cpus": 1});
            request[field] = value;
            check(&serde_json::from_value(request).unwrap())
        };
        let good = json!([{"name": "m", "regex": "(a)"}]);
        assert!(with("metrics", good).is_ok());
        assert!(with("artifacts", json!(["/a"])).is_ok());
        let wrong = with("metrics", json!([{"name": "m", "regex": "a(b"}])).unwrap_err();
        assert_eq!(wrong.status, 400);
        for part in ["`metrics/0/regex`", "metric \"m\"", "a(b", "unclosed group"] {
            assert!(wrong.message.contains(part), "{}", wrong.message);
        }
        assert!(with("tools", json!(["light", "perf:cycles"])).is_ok());
        let wrong = with("tools", json!(["cpu", "gpu"])).unwrap_err();
        for part in ["`tools/1`", "\"gpu\"", "cpu, interrupts"] {
            assert!(wrong.message.contains(part), "{}", wrong.message);
        }
        let wrong = with("artifacts", json!(["/a", "b"])).unwrap_err();
        assert!(wrong.message.contains("`artifacts/1`"), "{}", wrong.message);
    }
}
