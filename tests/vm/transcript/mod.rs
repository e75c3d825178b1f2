//! A scripted day with the stock `docker` client. It runs against any endpoint and returns what it
//! saw with ids and times masked, so that our API and the engine's own can be laid side by side.

mod mask;
mod step;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testkit::{Deadline, Docker, Output, POLL, poll};

use mask::mask;
use step::{Act, Compare, End, Step, words};

const STEP_WITHIN: Duration = Duration::from_secs(120);
/// One exchange on a terminal or one awaited line.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

/// Steps where our API answers differently from the engine on purpose, and why. Documented in
/// docs/api-differences.md; everything else must be the same.
pub(crate) const DIFFERENCES: [(&str, &str); 0] = [];

/// What one step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) step: &'static str,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The files that the transcript works with.
#[derive(Debug)]
pub(crate) struct Material {
    dir: PathBuf,
    image: String,
}

impl Material {
    /// Lays them out in `dir`; `archive` holds `image`, which has a busybox.
    pub(crate) fn prepare(dir: &Path, archive: &Path, image: &str) -> Result<Self> {
        let context = dir.join("context");
        fs::create_dir_all(&context)?;
        fs::copy(archive, dir.join("image.tar")).context("copy the image's archive")?;
        let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        fs::write(dir.join("file"), bytes)?;
        fs::write(context.join("text"), "from the context\n")?;
        let dockerfile = format!(
            "FROM {image}\nCOPY text /text\nRUN echo from a command >>/text\nCMD [\"cat\", \"/text\"]\n"
        );
        fs::write(context.join("Dockerfile"), dockerfile)?;
        Ok(Self {
            dir: dir.into(),
            image: image.into(),
        })
    }

    fn words(&self, line: &str) -> Vec<String> {
        words(line, &self.image, &self.dir.display().to_string())
    }
}

/// Runs the whole transcript; every step that goes wrong is in the error.
pub(crate) fn run(docker: &Docker, material: &Material) -> Result<Vec<Seen>> {
    let leftovers = ["rm", "-f", "-v"].into_iter().chain(steps::CONTAINERS);
    // There usually is nothing to remove, and then the client says so by its status.
    docker.run(leftovers)?;
    let back = material.dir.join("back");
    if back.exists() {
        fs::remove_file(&back)?;
    }
    let mut seen = Vec::new();
    let mut wrong = Vec::new();
    for step in steps::steps() {
        let outcome = perform(docker, material, &step).and_then(|output| {
            eprintln!("{:?} took {:.1?}", step.name, output.duration);
            seen.push(record(&step, &output));
            check(&step, &output)
        });
        if let Err(error) = outcome {
            eprintln!("{:?} went wrong: {error:#}", step.name);
            wrong.push(format!("step {:?}: {error:#}", step.name));
        }
    }
    let count = wrong.len();
    ensure!(
        count == 0,
        "{count} steps at {}:\n{}",
        docker.endpoint(),
        wrong.join("\n")
    );
    let same = fs::read(back)? == fs::read(material.dir.join("file"))?;
    ensure!(same, "the file that was copied in and out has changed");
    Ok(seen)
}

fn perform(docker: &Docker, material: &Material, step: &Step) -> Result<Output> {
    let command = docker
        .command(material.words(&step.line))
        .within(STEP_WITHIN);
    Ok(match &step.act {
        Act::Run => command.run()?,
        Act::Stdin(bytes) => command.stdin(bytes.clone()).run()?,
        Act::PipeFrom(source) => {
            let bytes = docker.run_ok(material.words(source))?.stdout;
            command.stdin(bytes).run()?
        }
        Act::Terminal(dialogue) => {
            let mut running = command.spawn_on_terminal()?;
            for (wait, typed) in dialogue {
                running.wait_output(wait, REPLY_WITHIN)?;
                running.send(typed)?;
            }
            running.wait(STEP_WITHIN)?
        }
        Act::Follow {
            first,
            then,
            last,
            end,
        } => {
            let mut running = command.spawn()?;
            running.wait_output(first, REPLY_WITHIN)?;
            for line in then {
                docker.run_ok(material.words(line))?;
            }
            running.wait_output(last, REPLY_WITHIN)?;
            if matches!(end, End::Interrupt) {
                // docker 26 gives in to the third, later ones to the first
                for _ in 0..3 {
                    if running.has_ended() {
                        break;
                    }
                    running.interrupt()?;
                    let patience = Deadline::after(Duration::from_secs(5));
                    poll(patience, POLL, || running.has_ended().then_some(()));
                }
            }
            running.wait(STEP_WITHIN)?
        }
    })
}

fn check(step: &Step, output: &Output) -> Result<()> {
    let (stdout, stderr) = (output.text(), output.error_text());
    let show = |text: &str| text.chars().take(2000).collect::<String>();
    let printed = || format!("it printed {:?} and {:?}", show(&stdout), show(&stderr));
    if let Some(code) = step.code
        && output.code != Some(code)
    {
        bail!("status {:?} instead of {code}; {}", output.code, printed());
    }
    for text in &step.shows {
        let there = stdout.contains(text) || stderr.contains(text);
        ensure!(there, "{text:?} does not show; {}", printed());
    }
    if let Act::Stdin(bytes) = &step.act
        && step.line.ends_with(" cat")
    {
        ensure!(
            output.stdout == *bytes,
            "{} bytes came back",
            output.stdout.len()
        );
    }
    Ok(())
}

fn record(step: &Step, output: &Output) -> Seen {
    let text = |text: String| match step.compare {
        Compare::Output => mask(&text),
        Compare::StatusOnly => String::new(),
    };
    Seen {
        step: step.name,
        code: step.code.and(output.code),
        stdout: text(output.text()),
        stderr: text(output.error_text()),
    }
}

/// Where the two differ, except where they are meant to, one text a step.
pub(crate) fn unexpected_differences(ours: &[Seen], engine: &[Seen]) -> Vec<String> {
    let mut found = Vec::new();
    if ours.len() != engine.len() {
        found.push(format!("{} steps against {}", ours.len(), engine.len()));
    }
    for (ours, engine) in ours.iter().zip(engine) {
        let meant = DIFFERENCES.iter().any(|(step, _)| *step == ours.step);
        if ours != engine && !meant {
            found.push(format!("ours   {ours:?}\nengine {engine:?}"));
        }
    }
    found
}

#[test]
fn step_names_are_different() {
    let mut names: Vec<&str> = steps::steps().iter().map(|step| step.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
