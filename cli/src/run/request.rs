//! The arguments of `still run`, and the request that they make. Pure.

use std::collections::BTreeMap;

use api::job::{JobLimits, JobRequest, Measure, OnLoss, Place};
use clap::Args;
use quiet::{JobClass, TickMode};

use super::metrics::{self, Given};
use crate::outcome::Misuse;
use crate::quantity::{parse_bytes, parse_limit, parse_pair, parse_plain_seconds};

/// Run a benchmark on isolated CPUs of a node, and print its result with its noise certificate's verdict.
#[derive(Debug, Args)]
#[command(
    after_help = "The job waits in a queue until a node with that many free isolated CPUs is there, runs, and is
measured. Then what it wrote is printed, and a few lines that say whether its runs were quiet and how
long they took. Control-C asks the controller to end it; a second one leaves it alone.

Exit codes: 0 it is done, 1 it failed, was noisy, timed out, was cancelled or lost its node,
2 wrong use, 3 it could not be run.

Examples:
  still run --cpus 1 busybox echo hello
  still run --cpus 2 --repeat 10 --warmup 1 --timeout 5m mybench:1 --size 1000
  still run --node node1 --command /usr/bin/stress-ng --cpu 1 --cpu-ops 1000
  still run --metric 'rate:req/s:higher=Requests/sec: *([0-9.]+)' --artifact /tmp/out mybench:1
  still run --unproven --cpus 1 busybox true          also on a host that isolates no CPU: nothing is proven
  still run --tool light --tool 'energy?' --tool perf:cycles,instructions mybench:1
  still run --queue night --detach mybench:1          prints the job's number and returns"
)]
pub(crate) struct RunArguments {
    /// Return when it is queued, and print its number.
    #[arg(long, short, conflicts_with = "follow", help_heading = "How")]
    pub(super) detach: bool,
    /// Print what it writes while it writes it. That makes traffic on the node while it is measured, and is
    /// noted with the result.
    #[arg(long, short, help_heading = "How")]
    pub(super) follow: bool,

    #[command(flatten)]
    pub(super) job: JobArguments,
}

/// What runs, where and how.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// Only on this node: a name or id, `*` stands for anything.
    #[arg(long, value_name = "NODE", help_heading = "Where")]
    node: Option<String>,
    /// The queue it waits in.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        help_heading = "Where"
    )]
    queue: String,
    /// How many exclusive isolated CPUs, all of one NUMA node.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Where")]
    cpus: u32,
    /// Its limit of memory, such as 512M or 2G [default: none].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Where")]
    memory: Option<u64>,
    /// Only on nodes with this label; the value may hold `*`. Repeatable.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair, help_heading = "Where")]
    labels: Vec<(String, String)>,
    /// Only on machines of this kind; `*` stands for anything.
    #[arg(long, value_name = "CLASS", help_heading = "Where")]
    node_class: Option<String>,
    /// A device of the node, by path; `*` stands for anything. Repeatable.
    #[arg(long = "device", value_name = "GLOB", help_heading = "Where")]
    devices: Vec<String>,
    /// How many nodes at once; each runs the same.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Where")]
    nodes: u32,
    /// Other jobs may run on its nodes at the same time, if they allow it too.
    #[arg(long, help_heading = "Where")]
    share: bool,
    /// Take nodes whose CPUs are not isolated as well. There nothing can be proven: the verdict is unproven.
    #[arg(long, alias = "unisolated", help_heading = "Where")]
    unproven: bool,

    /// How many runs are to be quiet.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "Measurement"
    )]
    repeat: u32,
    /// Runs before the first that counts.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "Measurement"
    )]
    warmup: u32,
    /// How often each repetition is tried until it is quiet.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        help_heading = "Measurement"
    )]
    attempts: u32,
    /// What the benchmark does: compute, memory, syscall, forking or io.
    #[arg(long, value_name = "CLASS", default_value_t = JobClass::default(), help_heading = "Measurement")]
    class: JobClass,
    /// How long an empty CPU is watched before and after each run; 0: not at all, and nothing is proven.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_plain_seconds, help_heading = "Measurement")]
    canary: u32,
    /// Only CPUs of this mode: nohz_full or tick.
    #[arg(long, value_name = "MODE", help_heading = "Measurement")]
    tick: Option<TickMode>,
    /// The same addresses in each run.
    #[arg(long, help_heading = "Measurement")]
    fixed_addresses: bool,
    /// Its nice value, -20 to 19.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-20..=19), help_heading = "Measurement")]
    nice: Option<i8>,
    /// Record each interruption, for a picture.
    #[arg(long, help_heading = "Measurement")]
    trace: bool,

    /// How long each run may take.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_limit, help_heading = "Limits")]
    timeout: u32,
    /// How long all of it may take on its node [default: what its runs need if all take all their time].
    #[arg(long, value_name = "DURATION", value_parser = parse_limit, help_heading = "Limits")]
    total_timeout: Option<u32>,
    /// End a run that writes nothing for so long.
    #[arg(long, value_name = "DURATION", value_parser = parse_limit, help_heading = "Limits")]
    output_timeout: Option<u32>,
    /// Do not start it any more after so long in the queue.
    #[arg(long, value_name = "DURATION", value_parser = parse_limit, help_heading = "Limits")]
    queue_timeout: Option<u32>,
    /// How often it is tried in all when its node is lost; 1: it is lost too.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    tries: u32,

    /// A number that each run prints: a regex of its stdout with a group around the number; the last match
    /// counts. A run without it has failed. UNIT is for people; lower values are better, unless it says
    /// higher. Repeatable.
    #[arg(long = "metric", value_name = "NAME[:UNIT][:lower|higher]=REGEX", value_parser = metrics::parse, help_heading = "Results")]
    metrics: Vec<Given>,
    /// The same, by a JSON pointer into what it prints, or into its last line that is JSON.
    #[arg(long = "metric-json", value_name = "NAME[:UNIT][:lower|higher]=/POINTER", value_parser = metrics::parse, help_heading = "Results")]
    json_metrics: Vec<Given>,
    /// Read that metric from this file of the container, not from stdout. Repeatable.
    #[arg(long = "metric-file", value_name = "NAME=/PATH", value_parser = parse_pair, help_heading = "Results")]
    metric_files: Vec<(String, String)>,
    /// Keep this file or folder of the container of each run; `still job artifacts` fetches it. A run
    /// without it has failed. Repeatable.
    #[arg(long = "artifact", value_name = "/PATH", help_heading = "Results")]
    artifacts: Vec<String>,

    /// Look at each run while it is measured, from the housekeeping CPUs; `still job tools` fetches what was
    /// seen. cpu, interrupts, memory, disk, network, frequency, temperature and energy are sampled every
    /// second (cpu:200ms, disk:10s); perf counts events of the program (perf:cycles,instructions). A node
    /// that cannot run one of them refuses the job before anything starts, unless it ends with a `?`
    /// (energy?). Sets of such optional ones: light (cpu, interrupts, memory), medium (all but perf), all.
    /// Repeatable, or a list with commas.
    #[arg(
        long = "tool",
        visible_alias = "tools",
        value_name = "TOOL[:INTERVAL][?],…",
        help_heading = "Results"
    )]
    tools: Vec<String>,

    /// A variable of its environment; repeatable.
    #[arg(long = "env", short, value_name = "NAME=VALUE", value_parser = parse_pair, help_heading = "What")]
    env: Vec<(String, String)>,
    /// A name, for people.
    #[arg(long, help_heading = "What")]
    name: Option<String>,
    /// Not an image: a program of the node, by its absolute path.
    #[arg(long, help_heading = "What")]
    command: bool,

    /// The image, then the arguments of its entrypoint (or program and arguments).
    #[arg(
        value_name = "IMAGE [CMD…]",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

impl JobArguments {
    /// The request that they make.
    pub(crate) fn request(&self) -> Result<JobRequest, Misuse> {
        let (first, rest) = self.words.split_first().ok_or(Misuse::NothingToRun)?;
        // no image has such a name: clap takes what it does not know for one
        if first.starts_with('-') {
            return Err(Misuse::NoSuchOption(first.clone()));
        }
        let (image, argv, command) = match self.command {
            false => (Some(first.clone()), rest.to_vec(), None),
            true if first.starts_with('/') => (None, Vec::new(), Some(self.words.clone())),
            true => return Err(Misuse::RelativeCommand(first.clone())),
        };
        let pairs = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<_, _>>();
        Ok(JobRequest {
            name: self.name.clone(),
            queue: self.queue.clone(),
            image,
            argv,
            command,
            env: pairs(&self.env),
            place: Place {
                nodes: self.nodes,
                cpus: self.cpus,
                memory_bytes: self.memory,
                node: self.node.clone(),
                class: self.node_class.clone(),
                labels: pairs(&self.labels),
                devices: self.devices.clone(),
                share: self.share,
                unisolated: self.unproven,
            },
            measure: Measure {
                repetitions: self.repeat,
                warmups: self.warmup,
                attempts: self.attempts,
                class: self.class,
                canary_seconds: self.canary,
                tick_mode: self.tick,
                fixed_addresses: self.fixed_addresses,
                nice: self.nice,
                fifo: None,
                trace: self.trace,
            },
            limits: JobLimits {
                run_seconds: self.timeout,
                total_seconds: self.total_timeout,
                output_seconds: self.output_timeout,
                queued_seconds: self.queue_timeout,
            },
            metrics: metrics::metrics(&self.metrics, &self.json_metrics, &self.metric_files)?,
            artifacts: self.artifacts.clone(),
            tools: tools(&self.tools)?,
            on_loss: match self.tries {
                0 | 1 => OnLoss::Fail,
                attempts => OnLoss::Requeue { attempts },
            },
        })
    }
}

/// All words of the lists, checked as the controller does.
fn tools(lists: &[String]) -> Result<Vec<String>, Misuse> {
    let words: Vec<String> = lists.iter().flat_map(|list| collect::split(list)).collect();
    match collect::asked(&words) {
        Ok(_) => Ok(words),
        Err(collect::Fault { why, next, .. }) => Err(Misuse::Declared { why, next }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArguments,
    }

    fn parse(line: &str) -> Result<JobRequest, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.run.job.request().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_given_is_what_the_api_has_by_default() {
        let bare: JobRequest = serde_json::from_str(r#"{"image": "busybox"}"#).unwrap();
        assert_eq!(parse("busybox"), Ok(bare));
    }

    #[test]
    fn everything_given() {
        let given = parse(
            "--node n* --queue night --cpus 2 --memory 512M --label rack=7 --node-class x* \
             --device /dev/nvme* --nodes 3 --share --unproven --repeat 5 --warmup 1 --attempts 2 \
             --class io --canary 0 --tick tick --fixed-addresses --nice -5 --trace --timeout 90s \
             --total-timeout 2h --output-timeout 5m --queue-timeout 1d --tries 1 --env A=b=c -e D= \
             --name x busybox sh -c true --cpus 9",
        )
        .unwrap();
        let wanted: JobRequest = serde_json::from_value(serde_json::json!({
            "name": "x", "queue": "night", "image": "busybox",
            "argv": ["sh", "-c", "true", "--cpus", "9"],
            "env": { "A": "b=c", "D": "" },
            "place": {
                "nodes": 3, "cpus": 2, "memory_bytes": 512 << 20, "node": "n*", "class": "x*",
                "labels": { "rack": "7" }, "devices": ["/dev/nvme*"], "share": true, "unisolated": true,
            },
            "measure": {
                "repetitions": 5, "warmups": 1, "attempts": 2, "class": "io", "canary_seconds": 0,
                "tick_mode": "tick", "fixed_addresses": true, "nice": -5, "trace": true,
            },
            "limits": {
                "run_seconds": 90, "total_seconds": 7200, "output_seconds": 300, "queued_seconds": 86400,
            },
            "on_loss": { "policy": "fail" },
        }))
        .unwrap();
        assert_eq!(given, wanted);
    }

    #[test]
    fn metrics_and_artifacts() {
        let given = parse(
            "--metric rate:req/s:higher=rate:\\s*(\\S+)=x --metric plain=(\\d+) --metric cost:lower=(1) \
             --metric-json p99:µs=/latency/99 --metric-file p99=/out/r.json --artifact /out \
             --artifact /tmp/log x",
        )
        .unwrap();
        let wanted: JobRequest = serde_json::from_value(serde_json::json!({
            "image": "x",
            "metrics": [
                { "name": "rate", "unit": "req/s", "direction": "higher", "regex": "rate:\\s*(\\S+)=x" },
                { "name": "plain", "regex": "(\\d+)" },
                { "name": "cost", "direction": "lower", "regex": "(1)" },
                { "name": "p99", "unit": "µs", "from": { "file": "/out/r.json" }, "pointer": "/latency/99" },
            ],
            "artifacts": ["/out", "/tmp/log"],
        }))
        .unwrap();
        assert_eq!(given, wanted);
    }

    #[test]
    fn tools_are_repeated_or_listed() {
        let given = parse("--tool light,energy? --tool perf:cycles,branches,disk:10s x").unwrap();
        let wanted = ["light", "energy?", "perf:cycles,branches", "disk:10s"];
        assert_eq!(given.tools, wanted);
        assert_eq!(parse("--tools medium x").unwrap().tools, ["medium"]);
    }

    #[test]
    fn a_program_of_the_node() {
        let given = parse("--command /bin/true -x").unwrap();
        assert_eq!(given.command, Some(vec!["/bin/true".into(), "-x".into()]));
        assert_eq!((given.image, given.argv.len()), (None, 0));
        assert!(parse("--command true").unwrap_err().contains("\"true\""));
    }

    #[test]
    fn what_is_wrong_is_quoted() {
        for (line, quoted) in [
            ("", "an image or"),
            ("--timeout soon x", "\"soon\" is no duration"),
            ("--timeout 0s x", "\"0s\" is less than a second"),
            ("--memory much x", "\"much\" is no size"),
            ("--label rack x", "\"rack\" is not NAME=VALUE"),
            ("--class slow x", "`slow` is no job class"),
            ("--tick often x", "`often` is no tick mode"),
            ("--nice 20 x", "20 is not in -20..=19"),
            ("--tries 0 x", "0 is not in 1.."),
            ("--detach --follow x", "cannot be used with"),
            ("--cpu 1 x", "--cpu is not an option"),
            ("--metric rate x", "\"rate\" is not NAME"),
            ("--metric =(a) x", "is not NAME"),
            (
                "--metric rate=([0-9 x",
                "metric \"rate\": its regex is none",
            ),
            (
                "--metric rate=a x",
                "metric \"rate\": its regex \"a\" has no group",
            ),
            ("--metric a=(1) --metric a=(2) x", "\"a\" is declared twice"),
            ("--metric-json a=b x", "begin with `/`"),
            ("--metric-file a=/b x", "no metric has that name"),
            ("--tool gpu x", "no tool \"gpu\" is known"),
            ("--tool gpu x", "there are cpu, interrupts, memory"),
            ("--tool cpu:5ms x", "\"cpu:5ms\": its interval"),
            ("--tool cpu --tool cpu x", "cpu is asked for twice"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(quoted), "{line}: {error}");
        }
    }
}
