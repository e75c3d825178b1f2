//! What a job may ask for: `cpu`, `memory:500ms`, `perf:cycles,instructions`, `energy?`, `light`.

use std::collections::BTreeMap;
use std::time::Duration;

use api::tool::TOOLS;

use crate::event::Event;

/// Between two samples unless something else is asked for.
const USUAL_INTERVAL: Duration = Duration::from_secs(1);
/// Events of one `perf`.
const EVENTS: usize = 16;

/// One collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Where each CPU's time goes, and the job's.
    Cpu,
    /// Interrupts and softirqs of each CPU.
    Interrupts,
    /// Of the system and of the job.
    Memory,
    /// Of each block device.
    Disk,
    /// Of each network interface.
    Network,
    /// Of each CPU.
    Frequency,
    /// Of what can be asked without interrupting a CPU that is measured.
    Temperature,
    /// Of each package.
    Energy,
    /// Events of the job's program, counted.
    Perf,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Interrupts,
        Self::Memory,
        Self::Disk,
        Self::Network,
        Self::Frequency,
        Self::Temperature,
        Self::Energy,
        Self::Perf,
    ];

    /// As a job asks for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Interrupts => "interrupts",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Network => "network",
            Self::Frequency => "frequency",
            Self::Temperature => "temperature",
            Self::Energy => "energy",
            Self::Perf => "perf",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name)
    }

    /// Name of its document, in the folder of its run.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Cpu => "cpu.jsonl",
            Self::Interrupts => "interrupts.jsonl",
            Self::Memory => "memory.jsonl",
            Self::Disk => "disk.jsonl",
            Self::Network => "network.jsonl",
            Self::Frequency => "frequency.jsonl",
            Self::Temperature => "temperature.jsonl",
            Self::Energy => "energy.jsonl",
            Self::Perf => "perf.json",
        }
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Several collectors under one name, all of them optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Light,
    Medium,
    All,
}

impl Set {
    /// Each holds the one before it.
    pub const ALL: [Self; 3] = [Self::Light, Self::Medium, Self::All];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Medium => "medium",
            Self::All => "all",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.as_str() == name)
    }

    /// What it stands for.
    #[must_use]
    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::Light => &Tool::ALL[..3],
            Self::Medium => &Tool::ALL[..8],
            Self::All => &Tool::ALL,
        }
    }
}

/// Whether a run may be without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Then the result says why it is not there.
    Optional,
    /// Then nothing is begun.
    Required,
}

/// What `perf` counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Events {
    /// Of [`Event::usual`] those that this machine has.
    Usual,
    /// All of these.
    Named(Vec<Event>),
}

/// One collector, asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub tool: Tool,
    /// Between two samples; `perf` takes none.
    pub interval: Duration,
    /// Of `perf`.
    pub events: Events,
    pub need: Need,
}

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Fault {
    /// Where, as a JSON pointer below the list; empty: the list itself.
    pub at: String,
    /// What is wrong, with the word.
    pub why: String,
    /// What to do instead.
    pub next: String,
}

/// A word of the list.
enum Word {
    One(Asked),
    Set(Set, Duration),
}

/// What a list stands for: each collector once. One that is named wins over the same one of a set.
///
/// # Errors
/// The first [`Fault`].
pub fn asked(words: &[String]) -> Result<Vec<Asked>, Fault> {
    if words.len() > TOOLS {
        return Err(Fault {
            at: String::new(),
            why: format!("{} tools, and {TOOLS} are the limit", words.len()),
            next: "name each once; `all` is every one of them".into(),
        });
    }
    let mut named: BTreeMap<Tool, Asked> = BTreeMap::new();
    let mut of_sets: BTreeMap<Tool, Asked> = BTreeMap::new();
    for (index, text) in words.iter().enumerate() {
        let fault = |(why, next): (String, String)| Fault {
            at: format!("/{index}"),
            why,
            next,
        };
        match word(text).map_err(fault)? {
            Word::One(asked) => {
                let tool = asked.tool;
                if named.insert(tool, asked).is_some() {
                    return Err(fault((
                        format!("tool {tool} is asked for twice"),
                        "leave one of them out".into(),
                    )));
                }
            }
            Word::Set(set, interval) => {
                for tool in set.tools() {
                    let asked = Asked {
                        tool: *tool,
                        interval,
                        events: Events::Usual,
                        need: Need::Optional,
                    };
                    // of two sets the closer look
                    let known = of_sets.entry(*tool).or_insert_with(|| asked.clone());
                    known.interval = known.interval.min(interval);
                }
            }
        }
    }
    of_sets.extend(named);
    Ok(of_sets.into_values().collect())
}

/// What is wrong, and what to write instead.
type Wrong = (String, String);

fn word(text: &str) -> Result<Word, Wrong> {
    let (body, need) = match text.strip_suffix('?') {
        Some(body) => (body, Need::Optional),
        None => (text, Need::Required),
    };
    let (name, rest) = match body.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (body, None),
    };
    if let Some(set) = Set::parse(name) {
        if need == Need::Optional {
            return Err((
                format!("tool {}: all of a set are optional anyway", short(text)),
                format!("write `{name}`"),
            ));
        }
        return Ok(Word::Set(set, interval(text, rest)?));
    }
    let Some(tool) = Tool::parse(name) else {
        return Err((format!("no tool {} is known", short(text)), known()));
    };
    let (interval, events) = match tool {
        Tool::Perf => (USUAL_INTERVAL, events(text, rest)?),
        _ => (interval(text, rest)?, Events::Usual),
    };
    Ok(Word::One(Asked {
        tool,
        interval,
        events,
        need,
    }))
}

/// `100ms` to `99999ms`, `1s` to `999s`, without leading zeros.
fn interval(text: &str, rest: Option<&str>) -> Result<Duration, Wrong> {
    let Some(rest) = rest else {
        return Ok(USUAL_INTERVAL);
    };
    let wrong = || {
        (
            format!(
                "tool {}: its interval is not 100ms to 99999ms or 1s to 999s",
                short(text)
            ),
            "such as `cpu:500ms` or `energy:10s`; without one it is a second".to_owned(),
        )
    };
    let number = |digits: &str| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse::<u32>().ok().filter(|_| plain)
    };
    let millis = match rest.strip_suffix("ms") {
        Some(digits) => number(digits).filter(|it| (100..=99_999).contains(it)),
        None => rest
            .strip_suffix('s')
            .and_then(number)
            .filter(|it| (1..=999).contains(it))
            .map(|seconds| seconds * 1000),
    };
    millis
        .map(|millis| Duration::from_millis(millis.into()))
        .ok_or_else(wrong)
}

fn events(text: &str, rest: Option<&str>) -> Result<Events, Wrong> {
    let Some(rest) = rest else {
        return Ok(Events::Usual);
    };
    let mut events = Vec::new();
    for name in rest.split(',') {
        let Some(event) = Event::parse(name) else {
            let all: Vec<&str> = Event::all().map(Event::name).collect();
            return Err((
                format!("tool {}: no event {} is known", short(text), short(name)),
                format!("there are {}", all.join(", ")),
            ));
        };
        if events.contains(&event) {
            return Err((
                format!("tool {}: event {name} is named twice", short(text)),
                "leave one of them out".into(),
            ));
        }
        events.push(event);
    }
    if events.len() > EVENTS {
        return Err((
            format!(
                "tool perf: {} events, and {EVENTS} are the limit",
                events.len()
            ),
            "a CPU has four to eight counters: measure the rest in another job".into(),
        ));
    }
    Ok(Events::Named(events))
}

/// All names, for a message.
fn known() -> String {
    let tools = Tool::ALL.map(Tool::as_str).join(", ");
    let sets = Set::ALL.map(Set::as_str).join(", ");
    format!(
        "there are {tools}, and the sets {sets}; `cpu:500ms` samples more often, `perf:cycles,instructions` \
         names events, `energy?` goes on without it"
    )
}

/// A word in quotes, if it is long its beginning.
fn short(text: &str) -> String {
    format!("{:?}", &text[..text.floor_char_boundary(64)])
}

/// A list as it is typed, at its commas: those behind `perf:` part events, as long as these follow.
#[must_use]
pub fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in text.split(',') {
        let event = Event::parse(part.strip_suffix('?').unwrap_or(part));
        match words.last_mut() {
            Some(perf) if event.is_some() && perf.starts_with("perf:") && !perf.ends_with('?') => {
                perf.push(',');
                perf.push_str(part);
            }
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::tool::PATTERN;
    use proptest::prelude::*;

    fn list(text: &str) -> Result<Vec<Asked>, Fault> {
        asked(&split(text))
    }

    fn names(text: &str) -> Vec<String> {
        let all = list(text).unwrap().into_iter();
        all.map(|one| {
            let need = match one.need {
                Need::Required => "",
                Need::Optional => "?",
            };
            format!("{}:{}{need}", one.tool, one.interval.as_millis())
        })
        .collect()
    }

    #[test]
    fn a_list_becomes_each_collector_once() {
        assert_eq!(names("cpu"), ["cpu:1000"]);
        assert_eq!(
            names("light,energy?,cpu:100ms"),
            [
                "cpu:100",
                "interrupts:1000?",
                "memory:1000?",
                "energy:1000?"
            ]
        );
        assert_eq!(names("medium:10s,light:2s")[0], "cpu:2000?");
        assert_eq!(names("medium:10s,light:2s")[4], "network:10000?");
        assert_eq!(names("all").len(), Tool::ALL.len());
        assert_eq!(asked(&[]), Ok(Vec::new()));
    }

    #[test]
    fn events_behind_perf_are_its_own() {
        let all = list("cpu,perf:cycles,page-faults,memory").unwrap();
        let tools: Vec<Tool> = all.iter().map(|one| one.tool).collect();
        assert_eq!(tools, [Tool::Cpu, Tool::Memory, Tool::Perf]);
        let events = ["cycles", "page-faults"].map(|name| Event::parse(name).unwrap());
        assert_eq!(all[2].events, Events::Named(events.into()));
        assert_eq!(list("perf").unwrap()[0].events, Events::Usual);
        let optional = list("perf:cycles,instructions?,cpu").unwrap();
        assert_eq!(optional[1].need, Need::Optional);
        assert_eq!(split("perf:cycles?,cycles"), ["perf:cycles?", "cycles"]);
    }

    #[test]
    fn what_is_wrong_is_quoted_with_what_there_is() {
        for (text, why, next) in [
            ("gpu", "no tool \"gpu\"", "cpu, interrupts"),
            ("", "no tool \"\"", "light, medium, all"),
            ("Cpu", "\"Cpu\"", "cpu"),
            ("cpu,memory,cpu:2s", "cpu is asked for twice", "leave one"),
            ("cpu:99ms", "\"cpu:99ms\"", "cpu:500ms"),
            ("cpu:0s", "\"cpu:0s\"", "cpu:500ms"),
            ("cpu:01s", "\"cpu:01s\"", "cpu:500ms"),
            ("cpu:1000s", "\"cpu:1000s\"", "cpu:500ms"),
            ("cpu:+1s", "\"cpu:+1s\"", "cpu:500ms"),
            ("cpu:", "\"cpu:\"", "cpu:500ms"),
            ("light?", "optional anyway", "`light`"),
            ("perf:", "no event \"\"", "cycles, instructions"),
            ("perf:1s", "no event \"1s\"", "cycles"),
            ("perf:cycles,cycles", "named twice", "leave one"),
        ] {
            let fault = list(text).unwrap_err();
            assert!(fault.why.contains(why), "{text}: {fault}");
            assert!(fault.next.contains(next), "{text}: {}", fault.next);
        }
        assert_eq!(list("cpu,gpu").unwrap_err().at, "/1");
        let many = vec!["cpu".to_owned(); TOOLS + 1];
        assert_eq!(asked(&many).unwrap_err().at, "");
    }

    proptest! {
        #[test]
        fn the_pattern_of_the_api_is_what_is_taken(
            word in "(cpu|energy|perf|light|gpu|all)?:?([0-9]{0,6}m?s|cycles|branches(,ref-cycles)?|[a-z]{0,4})?\\??",
        ) {
            let pattern = regex::Regex::new(PATTERN).unwrap();
            prop_assert_eq!(pattern.is_match(&word), asked(std::slice::from_ref(&word)).is_ok(), "{}", word);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            for word in split(&text) {
                prop_assert!(asked(&[word]).is_err() || !text.is_empty());
            }
            prop_assert_eq!(split(&text).join(","), text);
        }
    }
}
