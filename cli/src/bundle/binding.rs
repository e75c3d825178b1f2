//! Whether what lies together belongs together: the certificates to the runs of the series, the series
//! to the job, what was written to what the certificates say of it. Pure.
//!
//! Only certificates are signed. What they vouch for is held against them here: verdicts, outcomes and
//! durations of the runs, the image, the CPUs, what the last run wrote, and what follows from those.

use std::collections::BTreeMap;

use api::fleet::NodeId;
use api::job::{JobPart, JobState, JobStatus};
use api::provenance;
use api::run::{Attempt, RunState, RunStatus};
use api::work::{Document, Key, PartOutcome};
use quiet::{Certificate, Digest, Outcome, Verdict};
use serde_json::Value;

use super::admit;
use super::listing::{JOB, Place};
use super::verify::Changed;

/// The document with the series.
pub(super) const RESULT: &str = "result.json";
/// A part's last run wrote them.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// What a bundle has of one part.
#[derive(Debug, Default)]
pub(super) struct PartFiles {
    pub(super) documents: Vec<Document>,
    pub(super) provenance: Option<Value>,
    /// What `result.json` is, if it is a series; of a program it is something else.
    pub(super) series: Option<RunStatus>,
    /// By the document's name.
    pub(super) certificates: BTreeMap<String, Certificate>,
}

/// A part under scrutiny.
struct Part<'a> {
    job: &'a JobStatus,
    part: &'a JobPart,
    files: &'a PartFiles,
}

/// Whether all parts of a job are its own and whole.
pub(super) fn check(job: &JobStatus, parts: &BTreeMap<NodeId, PartFiles>) -> Result<(), Changed> {
    let about = |what: String| Changed::new(Place::Job(job.id).path(), what);
    admit::check_job(job).map_err(|blocked| about(blocked.to_string()))?;
    let known = |node: &NodeId| job.parts.iter().filter(|part| part.node == *node).count();
    if let Some(node) = parts.keys().find(|node| known(node) != 1) {
        let (times, id) = (known(node), job.id);
        return Err(about(format!(
            "it names the part on {node} {times} times, and the bundle has files of it (job {id})"
        )));
    }
    let nothing = PartFiles::default();
    for part in &job.parts {
        let files = parts.get(&part.node).unwrap_or(&nothing);
        Part { job, part, files }.check()?;
    }
    let outcomes = job.parts.iter().filter_map(|part| part.ending.as_ref());
    let mut others = outcomes.filter(|ending| ending.outcome != PartOutcome::Done);
    if job.state == JobState::Done && others.next().is_some() {
        return Err(about(
            "it calls the job done, and one of its parts is not".into(),
        ));
    }
    Ok(())
}

impl Part<'_> {
    fn changed(&self, name: &str, what: impl Into<String>) -> Changed {
        let place = Place::Document {
            job: self.job.id,
            node: self.part.node.clone(),
            name: name.to_owned(),
        };
        Changed::new(place.path(), what.into())
    }

    /// Of the job's own file.
    fn wrong(&self, what: &str) -> Changed {
        let what = format!("of the part on {}, {what}", self.part.node);
        Changed::new(Place::Job(self.job.id).path(), what)
    }

    fn check(&self) -> Result<(), Changed> {
        if let Some(first) = admit::differences(&self.files.documents, &self.part.documents).first()
        {
            return Err(self.wrong(&format!(
                "{JOB} names other documents than there are: {first}"
            )));
        }
        let provenance = self.check_provenance()?;
        match &self.job.request.image {
            Some(_) => self.check_series(provenance),
            None => self.check_program(),
        }
    }

    fn check_provenance(&self) -> Result<&Value, Changed> {
        let changed = |what: &str| self.changed(provenance::DOCUMENT, what);
        // that it is there was seen in what its ending names
        let value = self.files.provenance.as_ref();
        let value = value.ok_or_else(|| changed("it is not there"))?;
        let missing = provenance::missing(value);
        if !missing.is_empty() {
            return Err(changed(&format!("it lacks {}", missing.join(", "))));
        }
        let key: Option<Key> = serde_json::from_value(value["job"].clone()).ok();
        let own = |key: Key| key.job == self.job.id && Some(key.fence) == self.job.fence;
        if !key.is_some_and(own) {
            return Err(changed("it is of another job, or of another attempt"));
        }
        if value["cpus"].as_str() != Some(self.part.cpus.as_str()) {
            return Err(changed("it tells of other CPUs than the job was given"));
        }
        let ran = match self.job.request.image {
            Some(_) => provenance::IMAGE,
            None => provenance::COMMAND,
        };
        if value.get(ran).is_none() {
            return Err(changed(&format!("it tells of no {ran}, which the job ran")));
        }
        Ok(value)
    }

    /// Programs of the node are not certified.
    fn check_program(&self) -> Result<(), Changed> {
        if let Some(name) = self.files.certificates.keys().next() {
            return Err(self.changed(name, "the job ran no image, and nothing else is certified"));
        }
        let ending = self.part.ending.as_ref();
        if ending.is_some_and(|ending| ending.verdict.is_some()) {
            return Err(self.wrong("it has a verdict, and nothing was certified"));
        }
        Ok(())
    }

    fn check_series(&self, provenance: &Value) -> Result<(), Changed> {
        let Some(series) = &self.files.series else {
            // it could not be kept: then nothing was measured, as far as anybody can tell
            return match (self.files.certificates.keys().next(), self.verdict()) {
                (Some(name), _) => Err(self.changed(name, "there is no series that it is of")),
                (None, Some(_)) => {
                    Err(self.wrong("it has a verdict, and there is no series of runs"))
                }
                (None, None) => Ok(()),
            };
        };
        let changed = |what: &str| self.changed(RESULT, what);
        let same_cpus = |cpus: &_| self.part.cpus.parse().is_ok_and(|own| *cpus == own);
        if !series.cpus.as_ref().is_none_or(same_cpus) {
            return Err(changed("it tells of other CPUs than the job was given"));
        }
        let digest = provenance[provenance::IMAGE]["digest"].as_str();
        let unknown = |digest: &str| digest.starts_with(provenance::NOT_OBSERVABLE);
        if !digest.is_some_and(|digest| digest == series.image || unknown(digest)) {
            return Err(self.changed(provenance::DOCUMENT, "it tells of another image than ran"));
        }
        self.check_runs(series)?;
        let (durations, left_out) = stillmetal_node::runs::figures(&series.attempts);
        if left_out != series.left_out
            || !same_figures(durations.as_ref(), series.duration_ns.as_ref())
        {
            return Err(changed("its figures are not those of its runs"));
        }
        if self.verdict() != stillmetal_node::jobs::verdict(series) {
            return Err(self.wrong("its verdict is not the one that its runs give"));
        }
        self.check_output(series)
    }

    fn verdict(&self) -> Option<Verdict> {
        self.part.ending.as_ref()?.verdict
    }

    /// Each certificate is of one run, and each verdict of a certificate.
    fn check_runs(&self, series: &RunStatus) -> Result<(), Changed> {
        let mut certificates = self.files.certificates.iter().collect::<BTreeMap<_, _>>();
        for (index, run) in series.attempts.iter().enumerate() {
            let about = |what: String| self.changed(RESULT, format!("run {}: {what}", run.number));
            if usize::try_from(run.number) != Ok(index + 1) {
                return Err(about(format!("it is the {}. of the series", index + 1)));
            }
            let name = format!("certificate-{}.json", run.number);
            match certificates.remove(&name) {
                Some(certificate) => {
                    self.check_certificate(&name, certificate, series)?;
                    if let Some(what) = other_than(run, certificate) {
                        return Err(about(format!("{what}, which {name} does not say")));
                    }
                }
                None => {
                    // of the last run of a series that broke off it may not have been kept
                    let broke_off =
                        series.state == RunState::Error && index + 1 == series.attempts.len();
                    let proven = matches!(run.verdict, Some(Verdict::Quiet | Verdict::Noisy));
                    if proven && !broke_off {
                        return Err(about(
                            "it has a verdict, and there is no certificate of it".into(),
                        ));
                    }
                }
            }
        }
        match certificates.pop_first() {
            Some((name, _)) => Err(self.changed(name, "the series has no such run")),
            None => Ok(()),
        }
    }

    fn check_certificate(
        &self,
        name: &str,
        certificate: &Certificate,
        series: &RunStatus,
    ) -> Result<(), Changed> {
        let (evidence, request) = (&certificate.evidence, &self.job.request);
        let other = |what: &str| {
            let what = format!("/evidence/{what} is not that of job {}", self.job.id);
            Err(self.changed(name, what))
        };
        if evidence.image != series.image {
            return other("image");
        }
        if !evidence.argv.ends_with(&request.argv) {
            return other("argv");
        }
        if evidence.class != request.measure.class {
            return other("class");
        }
        if !self
            .part
            .cpus
            .parse()
            .is_ok_and(|own| evidence.job_cpus == own)
        {
            return other("job_cpus");
        }
        Ok(())
    }

    /// What was written is what the last run wrote, as its certificate says.
    fn check_output(&self, series: &RunStatus) -> Result<(), Changed> {
        let Some(last) = series.attempts.last() else {
            return Ok(());
        };
        let name = format!("certificate-{}.json", last.number);
        let Some(certificate) = self.files.certificates.get(&name) else {
            return Ok(());
        };
        let output = &certificate.evidence.job.output;
        for (stream, digest) in STREAMS.into_iter().zip([&output.stdout, &output.stderr]) {
            let document = self
                .files
                .documents
                .iter()
                .find(|document| document.name == stream);
            let (Some(document), Digest::Measured { sha256, bytes }) = (document, digest) else {
                continue;
            };
            // a series that broke off may leave with a container that had not run
            let unrun = matches!(
                series.state,
                RunState::Cancelled | RunState::Error | RunState::Running
            ) && document.bytes == 0;
            // of more than that the node keeps the beginning, and nobody has a digest of it
            let cut = document.bytes == stillmetal_node::jobs::KEPT_OUTPUT_BYTES
                && *bytes > document.bytes;
            let same = document.sha256 == *sha256 && document.bytes == *bytes;
            if !same && !unrun && !cut {
                return Err(self.changed(
                    stream,
                    format!("it is not what {name} says that the run wrote"),
                ));
            }
        }
        Ok(())
    }
}

/// What of a run is not as its certificate has it. When the node's agent was restarted during a run, the
/// engine knows more of its end than the certificate, and nothing is proven.
fn other_than(run: &Attempt, certificate: &Certificate) -> Option<&'static str> {
    let (evidence, job) = (&certificate.evidence, &certificate.evidence.job);
    if run.container != evidence.container_id {
        return Some("it is of another container");
    }
    let unseen = certificate.outcome == Outcome::Unknown;
    let verdict = match run.repetition {
        None => None,
        Some(_) if unseen => Some(Verdict::Unproven),
        Some(_) => Some(certificate.verdict),
    };
    // without an end that was seen, a verdict may be what it is in the certificate as well
    if run.verdict != verdict && !(unseen && run.verdict == Some(certificate.verdict)) {
        return Some("it has another verdict");
    }
    if unseen {
        return (run.duration_ns.is_some() && run.duration_ns != job.duration_ns())
            .then_some("it took another time");
    }
    if run.outcome != certificate.outcome || run.failure != job.failure() {
        return Some("it ended otherwise");
    }
    if (run.exit_code, run.signal) != (job.exit_code, job.signal) {
        return Some("it has another exit code or signal");
    }
    (run.duration_ns != job.duration_ns()).then_some("it took another time")
}

/// But for the last digits, which a text of JSON may lose.
fn same_figures(a: Option<&stats::Dispersion>, b: Option<&stats::Dispersion>) -> bool {
    let numbers = |of: &stats::Dispersion| {
        let interval = of.interval.as_ref();
        let interval = interval.map(|it| [it.low, it.high, it.confidence]);
        let mut all = vec![of.median, of.mad, of.min, of.max];
        all.extend(interval.into_iter().flatten());
        (of.samples, all)
    };
    let near = |a: &f64, b: &f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    match (a.map(numbers), b.map(numbers)) {
        (None, None) => true,
        (Some((samples, a)), Some((other, b))) => {
            samples == other && a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| near(a, b))
        }
        _ => false,
    }
}
