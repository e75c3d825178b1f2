//! Reads a bundle that somebody else gave us, from its first byte to its last. It is believed nothing:
//! what is held in memory is limited, and nothing is written anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use api::fleet::NodeId;
use api::job::{JobId, JobState, JobStatus};
use api::provenance;
use api::run::RunStatus;
use api::work::Document;
use quiet::Verdict;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::binding::{self, PartFiles, RESULT};
use super::layout::{self, BLOCK, END};
use super::listing::{LISTING, Listing, Place};
use super::{admit, digest, finish};
use crate::certificates::{check, is_certificate};

/// Longest listing, job and series that are read, bytes.
const LONGEST: u64 = 64 << 20;
/// Longest certificate that is read, bytes.
pub(crate) const LONGEST_CERTIFICATE: u64 = 256 << 20;
/// What passes through memory at a time, bytes.
const CHUNK: usize = 64 << 10;

/// What is not as it was, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub(crate) struct Changed {
    pub(crate) file: String,
    pub(crate) what: String,
}

impl Changed {
    pub(super) fn new(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            what: what.into(),
        }
    }
}

/// Why a bundle does not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Changed(#[from] Changed),
    /// Nobody knows whether it holds.
    #[error("read it")]
    Read(#[source] io::Error),
}

/// A bundle that is as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Contents {
    pub(crate) jobs: Vec<JobContents>,
    /// With `bundle.json`.
    pub(crate) files: usize,
    /// Common names of the nodes that signed the certificates.
    pub(crate) signers: BTreeSet<String>,
    pub(crate) certificates: usize,
}

/// One job of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JobContents {
    pub(crate) id: JobId,
    pub(crate) state: JobState,
    pub(crate) verdict: Option<Verdict>,
    /// Of its runs; none: nothing of this job is signed.
    pub(crate) certificates: usize,
}

/// Reads all of a bundle. Certificates must be signed by nodes of its own authority, which must be
/// `given` (PEM) if that is there.
pub(crate) fn verify(from: impl Read, given: Option<&str>) -> Result<Contents, Failure> {
    let mut tape = Tape { from, at: 0 };
    let listing = read_listing(&mut tape)?;
    let mut files = Files {
        given,
        ..Files::default()
    };
    for file in &listing.files {
        let head = layout::head(&file.name, file.bytes, listing.made_ms);
        tape.expect(&head.map_err(Failure::Read)?, &file.name)?;
        // the listing was checked: each of its names has a place
        let Some(place) = Place::of(&file.name) else {
            return Err(Changed::new(&file.name, "it has no place in a bundle").into());
        };
        let text = match limit(&place) {
            Some(limit) if file.bytes > limit => {
                let what = format!(
                    "{} bytes: more than the {limit} of any such file",
                    file.bytes
                );
                return Err(Changed::new(&file.name, what).into());
            }
            Some(_) => Some(tape.take(file.bytes, &file.name)?),
            None => None,
        };
        let is = match &text {
            Some(text) => digest(text),
            None => tape.digest(file.bytes, &file.name)?,
        };
        if is != file.sha256 {
            let what = format!("its SHA-256 is {is}, and {LISTING} says {}", file.sha256);
            return Err(Changed::new(&file.name, what).into());
        }
        tape.expect(&vec![0; layout::padding(file.bytes)], &file.name)?;
        files.put(place, file, text.as_deref())?;
    }
    tape.expect(&[0; END], "its end")?;
    tape.expect_end()?;
    Ok(files.judge(&listing)?)
}

/// What is looked at has a limit; `None`: only its digest matters.
fn limit(place: &Place) -> Option<u64> {
    match place {
        Place::Authority | Place::Job(_) => Some(LONGEST),
        Place::Document { name, .. } if is_certificate(name) => Some(LONGEST_CERTIFICATE),
        Place::Document { name, .. } => [RESULT, provenance::DOCUMENT]
            .contains(&name.as_str())
            .then_some(LONGEST),
    }
}

fn read_listing(tape: &mut Tape<impl Read>) -> Result<Listing, Failure> {
    let changed = |what: String| Failure::from(Changed::new(LISTING, what));
    let mut block = [0; BLOCK];
    tape.fill(&mut block, LISTING)?;
    let no_bundle =
        "it does not begin as a bundle of `still results export` does: with a tar's header for it";
    let bytes = layout::listing_bytes(&block).ok_or_else(|| changed(no_bundle.into()))?;
    if bytes > LONGEST {
        return Err(changed(format!(
            "{bytes} bytes: more than the {LONGEST} of any listing"
        )));
    }
    let text = String::from_utf8(tape.take(bytes, LISTING)?);
    let text = text.map_err(|_| changed("it is no text".into()))?;
    let listing = Listing::parse(&text).map_err(|error| changed(error.to_string()))?;
    let head = layout::head(LISTING, bytes, listing.made_ms).map_err(Failure::Read)?;
    if head != block {
        return Err(changed("the tar's header for it was changed".into()));
    }
    tape.expect(&vec![0; layout::padding(bytes)], LISTING)?;
    Ok(listing)
}

/// Bytes in their order.
struct Tape<R> {
    from: R,
    /// Of the next byte.
    at: u64,
}

impl<R: Read> Tape<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.from.read(buffer) {
                Ok(count) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
        }
    }

    fn cut(&self, file: &str) -> Failure {
        let what = format!(
            "the bundle ends within it, after {} bytes in all: it was cut",
            self.at
        );
        Changed::new(file, what).into()
    }

    fn fill(&mut self, buffer: &mut [u8], file: &str) -> Result<(), Failure> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(self.cut(file)),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// The next bytes must be these.
    fn expect(&mut self, expected: &[u8], file: &str) -> Result<(), Failure> {
        let from = self.at;
        let mut found = vec![0; expected.len()];
        self.fill(&mut found, file)?;
        let same = found.iter().zip(expected).take_while(|(a, b)| a == b);
        let same = same.count();
        if same == expected.len() {
            return Ok(());
        }
        let at = from + same as u64;
        let mut what =
            format!("byte {at} of the bundle: what stands there around the files was changed");
        if let Some(name) = layout::name_in(&found).filter(|name| name != file) {
            what = format!("byte {at} of the bundle: the file that stands there is {name:?}");
        }
        Err(Changed::new(file, what).into())
    }

    fn expect_end(&mut self) -> Result<(), Failure> {
        let from = self.at;
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => {
                let what =
                    format!("there is something behind it, from byte {from} of the bundle on");
                Err(Changed::new("its end", what).into())
            }
        }
    }

    /// So many bytes in memory, as far as they are there.
    fn take(&mut self, bytes: u64, file: &str) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        self.pass(bytes, file, |piece| all.extend_from_slice(piece))?;
        Ok(all)
    }

    fn digest(&mut self, bytes: u64, file: &str) -> Result<String, Failure> {
        let mut hasher = Sha256::new();
        self.pass(bytes, file, |piece| hasher.update(piece))?;
        Ok(finish(hasher))
    }

    fn pass(&mut self, bytes: u64, file: &str, mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut buffer = vec![0; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            match self.read(&mut buffer[..most])? {
                0 => return Err(self.cut(file)),
                count => {
                    each(&buffer[..count]);
                    left -= count as u64;
                }
            }
        }
        Ok(())
    }
}

/// What was read so far.
#[derive(Default)]
struct Files<'a> {
    given: Option<&'a str>,
    authority: String,
    jobs: BTreeMap<JobId, JobStatus>,
    parts: BTreeMap<JobId, BTreeMap<NodeId, PartFiles>>,
    signers: BTreeSet<String>,
}

impl Files<'_> {
    fn put(&mut self, place: Place, file: &Document, text: Option<&[u8]>) -> Result<(), Changed> {
        let changed = |what: String| Changed::new(&file.name, what);
        let no_json = |error: serde_json::Error| changed(format!("it cannot be read: {error}"));
        match place {
            Place::Authority => {
                let pem = text.map(String::from_utf8_lossy).unwrap_or_default();
                self.authority = pem.into_owned();
                let other = self
                    .given
                    .is_some_and(|given| !same_words(given, &self.authority));
                if other {
                    return Err(changed(
                        "it is another authority than the one given by --ca".into(),
                    ));
                }
            }
            Place::Job(id) => {
                let job: JobStatus =
                    serde_json::from_slice(text.unwrap_or_default()).map_err(no_json)?;
                if job.id != id {
                    return Err(changed(format!("it is of job {}", job.id)));
                }
                self.jobs.insert(id, job);
            }
            Place::Document { job, node, name } => {
                let part = self.parts.entry(job).or_default().entry(node).or_default();
                part.documents.push(Document {
                    name: name.clone(),
                    ..file.clone()
                });
                let Some(text) = text else {
                    return Ok(());
                };
                if name == provenance::DOCUMENT {
                    part.provenance = Some(serde_json::from_slice(text).map_err(no_json)?);
                } else if name == RESULT {
                    part.series = serde_json::from_slice(text).ok().map(without_output);
                } else {
                    let text = str::from_utf8(text).map_err(|_| changed("it is no text".into()))?;
                    let checked = check(text, Some(&self.authority));
                    if let Some(why) = checked.broken {
                        return Err(changed(why));
                    }
                    self.signers.extend(checked.signer);
                    let certificate = serde_json::from_str(text).map_err(no_json)?;
                    part.certificates.insert(name, certificate);
                }
            }
        }
        Ok(())
    }

    /// All is there: does it belong together?
    fn judge(self, listing: &Listing) -> Result<Contents, Changed> {
        let nothing = BTreeMap::new();
        let (mut jobs, mut agents, mut certificates) = (Vec::new(), BTreeSet::new(), 0);
        for job in self.jobs.values() {
            let parts = self.parts.get(&job.id).unwrap_or(&nothing);
            binding::check(job, parts)?;
            let of_job = parts.values().map(|part| part.certificates.len()).sum();
            certificates += of_job;
            jobs.push(JobContents {
                id: job.id,
                state: job.state,
                verdict: job.verdict(),
                certificates: of_job,
            });
            let provenances = parts.values().filter_map(|part| part.provenance.as_ref());
            agents.extend(provenances.map(admit::agent_version));
        }
        let changed = |what: &str| Changed::new(LISTING, what);
        if agents != listing.versions.agents {
            return Err(changed(
                "it names other agents than the provenance of the parts",
            ));
        }
        let ended = self.jobs.values().filter_map(|job| job.ended_ms).max();
        if ended.unwrap_or_default() != listing.made_ms {
            return Err(changed("its time is not that of the end of its last job"));
        }
        Ok(Contents {
            jobs,
            files: listing.files.len() + 1,
            signers: self.signers,
            certificates,
        })
    }
}

/// Ends of lines and blanks mean nothing in PEM.
fn same_words(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// What its runs wrote is not held in memory.
fn without_output(mut series: RunStatus) -> RunStatus {
    for run in &mut series.attempts {
        (run.stdout, run.stderr) = (String::new(), String::new());
    }
    series
}
