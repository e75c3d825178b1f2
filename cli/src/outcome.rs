//! How the program ends: four exit codes, and what is said with the bad ones.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use client::Error as CallError;

use crate::bundle::admit::Blocked;

/// An end that is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 0.
    Done,
    /// 1: the program did its work; the job, the comparison or the document did not hold.
    Failed,
}

/// Wrong use, to be mended by whoever called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("there is no context {name:?}; there is {}", list(known))]
    NoSuchContext { name: String, known: Vec<String> },
    #[error(
        "no controller is known: `still up` starts one on this machine, `still context add` takes one that runs elsewhere"
    )]
    NoContext,
    #[error("there is a context {0:?} already: remove it first, with `still context remove {0}`")]
    ContextExists(String),
    #[error(
        "{0:?} is no name of a context: letters, digits, `.`, `-` and `_`, a letter or digit first"
    )]
    ContextName(String),
    #[error("{option} is for --provider {provider}")]
    OtherProvider {
        option: &'static str,
        provider: &'static str,
    },
    #[error("a virtual machine needs two CPUs: one for housekeeping, one for jobs")]
    OneCpu,
    #[error(
        "{nodes} local nodes of {each} CPUs are more than this machine's {there}: take fewer with --nodes or --cpus"
    )]
    TooFewCpus {
        nodes: usize,
        each: usize,
        there: usize,
    },
    #[error("{wanted}, but a lab with {runs} runs already: end it first, with `still down`")]
    OtherLab { wanted: String, runs: String },
    #[error("an image or, with --command, a program is needed; see `still run --help`")]
    NothingToRun,
    #[error("a health check is run on every node by itself: leave --node and --nodes out")]
    CheckOfOneNode,
    #[error("{0} is not an option of this command: see its --help")]
    NoSuchOption(String),
    #[error("--command wants the absolute path of a program on the node, not {0:?}")]
    RelativeCommand(String),
    #[error("{why}\nnext: {next}")]
    Declared { why: String, next: String },
    #[error(
        "--metric-file {0:?}: no metric has that name; declare it with --metric or --metric-json, and \
         with --metric-file say where it is"
    )]
    NoSuchMetric(String),
    #[error("job {0} ran on several nodes: name one with --node")]
    WhichNode(api::job::JobId),
    #[error("there is no queue {name:?}; there is {}", list(known))]
    NoSuchQueue { name: String, known: Vec<String> },
    #[error(
        "job {jobs} runs on {node}: still node drain {node} lets it end, --force does not wait"
    )]
    Busy { node: String, jobs: String },
    #[error("nothing is to be changed: see `still {0} --help`")]
    NothingToChange(&'static str),
    #[error("{name:?} names no image of a registry: {why}; such as registry:lab.example/mine:1")]
    NoReference { name: String, why: String },
    #[error("{0:?} is neither a file, docker:NAME nor registry:NAME")]
    NoArchive(String),
    #[error("{}: it holds no certificate (PEM) of an authority; that of a controller is `ca.pem` in the context's folder", .0.display())]
    NoAuthority(PathBuf),
    #[error("{} is there already: --force puts the new one in its place, --out takes another name", .0.display())]
    Exists(PathBuf),
    #[error("{} is a folder: --out wants the name of the file to make", .0.display())]
    OutIsFolder(PathBuf),
    #[error("several jobs make one bundle: name it, with --out FILE")]
    NameTheBundle,
    #[error("this is for `still up` to call")]
    NotByHand,
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.join(", "),
    }
}

/// What a command comes to.
pub(crate) type Ended = anyhow::Result<Outcome>;

/// Exit code for a job that failed, or a document that does not hold.
const UNFIT: u8 = 1;
/// Exit code for wrong use, as clap's own.
pub(crate) const USAGE: u8 = 2;
/// Exit code when the system could not do it.
const FAILED: u8 = 3;

/// The exit code, after telling what went wrong.
pub(crate) fn exit_code(ended: Ended) -> ExitCode {
    let error = match ended {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Failed) => return UNFIT.into(),
        Err(error) => error,
    };
    // whoever read us has enough, as `head` does
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let problem = error.chain().find_map(|cause| {
        let call = cause.downcast_ref::<CallError>()?;
        call.problem()
    });
    eprintln!("still: {}", crate::text::clean(&format!("{error:#}")));
    if let Some(problem) = problem {
        for (what, text) in [("where", &problem.instance), ("next", &problem.next)] {
            if let Some(text) = text {
                eprintln!("  {what}: {}", crate::text::clean(text));
            }
        }
    }
    code(&error).into()
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Misuse>() {
            return USAGE;
        }
        if let Some(blocked) = cause.downcast_ref() {
            // a job that is not over was asked for too early; other results do not hold what they must
            return match blocked {
                Blocked::NotOver { .. } => USAGE,
                _ => UNFIT,
            };
        }
        if let Some(CallError::Problem(problem)) = cause.downcast_ref() {
            // too many requests, or a deadline: nobody's wrong use
            let theirs =
                (400..500).contains(&problem.status) && ![408, 429].contains(&problem.status);
            return if theirs { USAGE } else { FAILED };
        }
        if cause.is::<client::BadAddress>() {
            return USAGE;
        }
    }
    FAILED
}

/// Standard output was closed by its reader.
#[derive(Debug, thiserror::Error)]
#[error("write to standard output")]
pub(crate) struct StdoutFailed(#[source] pub(crate) io::Error);

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<StdoutFailed>()
        .is_some_and(|StdoutFailed(error)| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use api::problem::Problem;

    fn problem(status: u16) -> anyhow::Error {
        let problem = Problem {
            kind: "stillmetal:x".into(),
            title: "x".into(),
            status,
            detail: "y".into(),
            instance: None,
            next: None,
        };
        anyhow::Error::from(CallError::Problem(Box::new(problem)))
    }

    #[test]
    fn whose_fault_it_is() {
        for (status, expected) in [
            (400, USAGE),
            (403, USAGE),
            (404, USAGE),
            (409, USAGE),
            (408, FAILED),
            (429, FAILED),
            (500, FAILED),
            (503, FAILED),
            (507, FAILED),
        ] {
            let error = problem(status).context("doing something");
            assert_eq!(code(&error), expected, "{status}");
        }
        assert_eq!(code(&Misuse::NoContext.into()), USAGE);
        let io: Result<(), _> = Err(io::Error::other("disk"));
        assert_eq!(code(&io.context("write x").unwrap_err()), FAILED);
    }
}
