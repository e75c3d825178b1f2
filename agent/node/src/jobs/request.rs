//! What an assignment asks of this node. Whatever the node cannot do is a refusal: nothing is passed
//! over. Pure.

use api::job::{JobRequest, Measure};
use api::process::{CpuRequest, ProcessRequest};
use api::run::RunRequest;
use api::work::Assignment;
use policy::Role;

use crate::runs::Seat;

/// Runs of one job, repeated ones included: of each the node keeps the certificate, and the ending
/// names them all.
const MOST_RUNS: u64 = 4000;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Image(Box<Image>),
    Command(Box<ProcessRequest>),
}

/// A series of runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) role: Role,
    pub(super) request: RunRequest,
    pub(super) seat: Seat,
}

/// What the node is to do; an error is why it cannot.
pub(super) fn wanted(assignment: &Assignment) -> Result<Wanted, String> {
    let request = &assignment.request;
    let role = assignment.role.parse::<Role>();
    let role = role.map_err(|error| error.to_string())?;
    if assignment.cpus.is_empty() {
        return Err("it was given no CPU".into());
    }
    match (&request.image, &request.command) {
        (Some(image), None) => {
            let name = stillmetal_work::attempt::name(assignment.key);
            Ok(Wanted::Image(Box::new(Image {
                role,
                request: series(assignment, image)?,
                seat: Seat {
                    devices: assignment.devices.clone(),
                    job: Some(name),
                },
            })))
        }
        (None, Some(argv)) => {
            if role != Role::Admin {
                return Err(
                    "role `user` may not run programs of the node itself (`command`): give an \
                     `image`, or submit with a certificate of role `admin`"
                        .into(),
                );
            }
            Ok(Wanted::Command(Box::new(process(assignment, argv)?)))
        }
        (Some(_), Some(_)) => Err("it has both `image` and `command`: give one of them".into()),
        (None, None) => Err("it has neither `image` nor `command`: give one of them".into()),
    }
}

fn series(assignment: &Assignment, image: &str) -> Result<RunRequest, String> {
    let JobRequest {
        argv,
        env,
        place,
        measure,
        limits,
        ..
    } = &assignment.request;
    let request = &assignment.request;
    let tries = u64::from(measure.repetitions) * u64::from(measure.attempts);
    let runs = tries + u64::from(measure.warmups);
    if runs > MOST_RUNS {
        return Err(format!(
            "it may come to {runs} runs (`warmups` + `repetitions` × `attempts`): a node keeps the \
             certificates of {MOST_RUNS}; make several jobs of it"
        ));
    }
    let asked = collect::asked(&request.tools);
    let tools = asked.map_err(|fault| format!("{}; {}", fault.why, fault.next))?;
    let each = 1 + request.artifacts.len() as u64 + tools.len() as u64;
    let documents = runs * each;
    if documents > MOST_RUNS {
        return Err(format!(
            "it may come to {documents} certificates and artifacts of {runs} runs, with what tools saw: a node \
             keeps {MOST_RUNS}; write the artifacts into one folder, or make several jobs of it"
        ));
    }
    Ok(RunRequest {
        image: image.to_owned(),
        argv: argv.clone(),
        cpus: CpuRequest::Exact(assignment.cpus.clone()),
        env: env.clone(),
        memory_bytes: place.memory_bytes,
        warmups: measure.warmups,
        repetitions: measure.repetitions,
        attempts: measure.attempts,
        timeout_seconds: limits.run_seconds,
        class: measure.class,
        canary_seconds: measure.canary_seconds,
        tick_mode: measure.tick_mode,
        fixed_addresses: measure.fixed_addresses,
        nice: measure.nice,
        fifo: measure.fifo,
        trace: measure.trace,
        metrics: request.metrics.clone(),
        artifacts: request.artifacts.clone(),
        tools: request.tools.clone(),
    })
}

fn process(assignment: &Assignment, command: &[String]) -> Result<ProcessRequest, String> {
    let JobRequest {
        argv,
        env,
        place,
        measure,
        limits,
        ..
    } = &assignment.request;
    let plain = Measure::default();
    // taken apart, so that what is added there is not forgotten here
    let Measure {
        repetitions,
        warmups,
        attempts,
        class,
        canary_seconds,
        tick_mode,
        fixed_addresses,
        nice,
        fifo,
        trace,
    } = measure;
    let asked = [
        ("argv", !argv.is_empty()),
        ("measure.repetitions", *repetitions != plain.repetitions),
        ("measure.warmups", *warmups != plain.warmups),
        ("measure.attempts", *attempts != plain.attempts),
        ("measure.class", *class != plain.class),
        // none is what a command has anyway
        (
            "measure.canary_seconds",
            *canary_seconds != plain.canary_seconds && *canary_seconds != 0,
        ),
        ("measure.tick_mode", tick_mode.is_some()),
        ("measure.fixed_addresses", *fixed_addresses),
        ("measure.nice", nice.is_some()),
        ("measure.fifo", fifo.is_some()),
        ("measure.trace", *trace),
        ("place.devices", !assignment.devices.is_empty()),
        ("artifacts", !assignment.request.artifacts.is_empty()),
    ];
    let asked: Vec<&str> = asked
        .iter()
        .filter(|(_, asked)| *asked)
        .map(|(name, _)| *name)
        .collect();
    if !asked.is_empty() {
        return Err(format!(
            "a `command` has no {}: such a job is one program, run once and not certified; put it \
             into an image for the rest",
            asked.join(", ")
        ));
    }
    let metrics = metric::extractors(&assignment.request.metrics);
    metrics.map_err(|fault| format!("{}; {}", fault.why, fault.next))?;
    let tools = collect::asked(&assignment.request.tools);
    tools.map_err(|fault| format!("{}; {}", fault.why, fault.next))?;
    Ok(ProcessRequest {
        argv: command.to_vec(),
        cpus: Some(CpuRequest::Exact(assignment.cpus.clone())),
        env: env.clone(),
        directory: None,
        timeout_seconds: Some(limits.run_seconds),
        memory_bytes: place.memory_bytes,
    })
}

#[cfg(test)]
mod tests {
    use api::job::JobId;
    use api::work::Key;
    use serde_json::{Value, json};

    use super::*;

    fn assignment(role: &str, request: Value) -> Assignment {
        Assignment {
            key: Key {
                job: JobId(3),
                attempt: 2,
                fence: 9,
            },
            user: "ada".into(),
            role: role.into(),
            request: serde_json::from_value(request).unwrap(),
            cpus: "2-3".parse().unwrap(),
            devices: Vec::new(),
            lease_seconds: 60,
            wait_for_begin: false,
        }
    }

    #[test]
    fn every_field_of_an_image_job_reaches_its_series() {
        let mut given = assignment(
            "user",
            json!({
                "image": "b", "argv": ["a"], "env": {"A": "1"},
                "place": {"memory_bytes": 64},
                "measure": {"repetitions": 7, "warmups": 2, "attempts": 4, "class": "io",
                    "canary_seconds": 1, "tick_mode": "nohz_full", "fixed_addresses": true,
                    "nice": -3, "trace": true},
                "limits": {"run_seconds": 12},
                "metrics": [{"name": "rate", "unit": "1/s", "direction": "higher",
                    "from": {"file": "/r"}, "regex": "(.)"}],
                "artifacts": ["/out"],
                "tools": ["light", "perf:cycles"],
            }),
        );
        given.devices = vec!["/dev/dri/renderD128".into()];
        let Ok(Wanted::Image(image)) = wanted(&given) else {
            panic!("no image");
        };
        assert_eq!(image.role, Role::User);
        assert_eq!(image.seat.job.as_deref(), Some("3-2-9"));
        assert_eq!(image.seat.devices, ["/dev/dri/renderD128"]);
        let expected = json!({
            "image": "b", "argv": ["a"], "cpus": "2-3", "env": {"A": "1"}, "memory_bytes": 64,
            "warmups": 2, "repetitions": 7, "attempts": 4, "timeout_seconds": 12, "class": "io",
            "canary_seconds": 1, "tick_mode": "nohz_full", "fixed_addresses": true, "nice": -3,
            "fifo": null, "trace": true,
            "metrics": [{"name": "rate", "unit": "1/s", "direction": "higher",
                "from": {"file": "/r"}, "regex": "(.)"}],
            "artifacts": ["/out"],
            "tools": ["light", "perf:cycles"],
        });
        assert_eq!(serde_json::to_value(&image.request).unwrap(), expected);
    }

    #[test]
    fn a_command_runs_on_its_cpus_with_its_limits() {
        let given = json!({
            "command": ["/bin/true", "x"], "env": {"A": "1"}, "place": {"memory_bytes": 64},
            "limits": {"run_seconds": 12},
        });
        let Ok(Wanted::Command(process)) = wanted(&assignment("admin", given)) else {
            panic!("no command");
        };
        let expected = json!({
            "argv": ["/bin/true", "x"], "cpus": "2-3", "env": {"A": "1"}, "directory": null,
            "timeout_seconds": 12, "memory_bytes": 64,
        });
        assert_eq!(serde_json::to_value(&process).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let command = |more: Value| {
            let mut request = json!({"command": ["/bin/true"]});
            request["measure"] = more;
            request
        };
        for (role, request, why) in [
            ("user", json!({}), "neither"),
            ("user", json!({"image": "b", "command": ["/x"]}), "both"),
            ("user", json!({"command": ["/x"]}), "role `user`"),
            ("root", json!({"image": "b"}), "no role"),
            (
                "admin",
                command(json!({"repetitions": 2})),
                "measure.repetitions",
            ),
            ("admin", command(json!({"warmups": 1})), "measure.warmups"),
            ("admin", command(json!({"attempts": 1})), "measure.attempts"),
            ("admin", command(json!({"class": "io"})), "measure.class"),
            (
                "admin",
                command(json!({"canary_seconds": 9})),
                "canary_seconds",
            ),
            ("admin", command(json!({"tick_mode": "tick"})), "tick_mode"),
            (
                "admin",
                command(json!({"fixed_addresses": true})),
                "fixed_addresses",
            ),
            ("admin", command(json!({"nice": 1})), "nice"),
            ("admin", command(json!({"fifo": 1})), "fifo"),
            ("admin", command(json!({"trace": true})), "trace"),
            ("admin", json!({"command": ["/x"], "argv": ["y"]}), "argv"),
            (
                "user",
                json!({"image": "b", "measure": {"repetitions": 1000, "attempts": 20}}),
                "20000 runs",
            ),
            (
                "user",
                json!({"image": "b", "measure": {"repetitions": 1000}, "artifacts": ["/a"]}),
                "6000 certificates and artifacts",
            ),
            (
                "admin",
                json!({"command": ["/x"], "artifacts": ["/a"]}),
                "artifacts",
            ),
            ("user", json!({"image": "b", "tools": ["gpu"]}), "\"gpu\""),
            (
                "user",
                json!({"image": "b", "measure": {"repetitions": 1000}, "tools": ["cpu"]}),
                "what tools saw",
            ),
            (
                "admin",
                json!({"command": ["/x"], "metrics": [{"name": "m", "regex": "a"}]}),
                "metric \"m\": its regex \"a\" has no group",
            ),
        ] {
            let refusal = wanted(&assignment(role, request.clone())).unwrap_err();
            assert!(refusal.contains(why), "{request}: {refusal}");
        }
        let mut given = assignment("admin", json!({"command": ["/x"]}));
        given.devices = vec!["/dev/x".into()];
        assert!(wanted(&given).unwrap_err().contains("place.devices"));
        let mut given = assignment("user", json!({"image": "b"}));
        given.cpus = cpulist::CpuSet::new();
        assert!(wanted(&given).unwrap_err().contains("no CPU"));
    }

    #[test]
    fn no_canary_is_what_a_command_has() {
        let request = json!({"command": ["/x"], "measure": {"canary_seconds": 0}});
        assert!(wanted(&assignment("admin", request)).is_ok());
    }
}
