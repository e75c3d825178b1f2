//! `bundle.json`: the first file of a bundle, which names all others. Pure.
//!
//! It has one form only: the fields in their order, two blanks of indentation. Its last field is the
//! SHA-256 of the lines before it, so that no byte of it can be changed without being noticed.

use std::collections::BTreeSet;

use api::fleet::NodeId;
use api::job::JobId;
use api::work::Document;
use serde::{Deserialize, Serialize};

/// Changes with every change of meaning.
pub(crate) const SCHEMA: &str = "stillmetal-bundle/1";
/// Its own name.
pub(crate) const LISTING: &str = "bundle.json";
/// The authority's certificate.
pub(crate) const AUTHORITY: &str = "ca.pem";
/// Of each job: what the controller says of it.
pub(crate) const JOB: &str = "job.json";
/// Longest name of a document, as nodes make them.
const LONGEST_NAME: usize = 255;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    pub(crate) schema: String,
    /// When the last of its jobs ended, milliseconds since the epoch by the controller's clock.
    pub(crate) made_ms: u64,
    pub(crate) versions: Versions,
    /// In the order of their numbers.
    pub(crate) jobs: Vec<JobId>,
    /// In the order of the bytes of their names, which is that in the tar.
    pub(crate) files: Vec<Document>,
}

/// What made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    /// The program that put it together.
    pub(crate) still: String,
    /// The agents that measured, as their provenance says.
    pub(crate) agents: BTreeSet<String>,
}

/// A text that is no listing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadListing {
    #[error("it does not end with the digest of its other lines")]
    NoDigest,
    #[error("it was changed: its last field says {said}, its other lines come to {is}")]
    Digest { said: String, is: String },
    #[error("its schema is {0:?}, and this program knows {SCHEMA:?}: take a newer one")]
    Schema(String),
    #[error("it is no listing: {0}")]
    Json(String),
    #[error("it is not written as `still results export` writes it")]
    Form,
    #[error("{0:?} is no name of a file in a bundle")]
    Name(String),
    #[error("{0:?} does not come in its order, or twice")]
    Order(String),
    #[error("{0:?} has {1:?} for a SHA-256")]
    Sha256(String, String),
    #[error("it names no job")]
    NoJob,
    #[error("its jobs are not in order")]
    JobOrder,
    #[error("it does not name {0:?}")]
    Lacks(String),
    #[error("{0:?} belongs to none of its jobs")]
    Stranger(String),
}

/// Where a file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Authority,
    Job(JobId),
    Document {
        job: JobId,
        node: NodeId,
        name: String,
    },
}

impl Place {
    /// Of a file's name; `None`: no bundle has such a file.
    pub(crate) fn of(path: &str) -> Option<Self> {
        if path == AUTHORITY {
            return Some(Self::Authority);
        }
        let (job, rest) = path.strip_prefix("job-")?.split_once('/')?;
        let id: JobId = job.parse().ok()?;
        // one number has one text
        if id.to_string() != job {
            return None;
        }
        if rest == JOB {
            return Some(Self::Job(id));
        }
        let (node, name) = rest.split_once('/')?;
        let node = NodeId::try_from(node.to_owned()).ok()?;
        is_sound(name).then(|| Self::Document {
            job: id,
            node,
            name: name.to_owned(),
        })
    }

    /// The file's name.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Authority => AUTHORITY.into(),
            Self::Job(job) => format!("job-{job}/{JOB}"),
            Self::Document { job, node, name } => format!("job-{job}/{node}/{name}"),
        }
    }
}

/// A document's name, sound as a path below any folder.
pub(crate) fn is_sound(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    let part = |part: &str| !matches!(part, "" | "." | "..");
    name.len() <= LONGEST_NAME && name.bytes().all(known) && name.split('/').all(part)
}

impl Listing {
    /// Its text, with the digest.
    pub(crate) fn text(&self) -> String {
        // numbers and texts cannot fail to be JSON
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let before = format!("{},\n", text.strip_suffix("\n}").unwrap_or(&text));
        let digest = super::digest(before.as_bytes());
        before + &last_lines(&digest)
    }

    /// The listing of this text, if it is one to the last byte.
    pub(crate) fn parse(text: &str) -> Result<Self, BadListing> {
        let lines = last_lines(&"0".repeat(64)).len();
        let at = text.len().checked_sub(lines);
        let (before, last) = at
            .and_then(|at| text.split_at_checked(at))
            .ok_or(BadListing::NoDigest)?;
        let said = last.split('"').nth(3).unwrap_or_default();
        if last != last_lines(said) {
            return Err(BadListing::NoDigest);
        }
        let is = super::digest(before.as_bytes());
        if said != is {
            let said = said.to_owned();
            return Err(BadListing::Digest { said, is });
        }
        let body = before.strip_suffix(",\n").ok_or(BadListing::Form)?;
        let body = format!("{body}\n}}");
        let json = |error: serde_json::Error| BadListing::Json(error.to_string());
        let value: serde_json::Value = serde_json::from_str(&body).map_err(json)?;
        let schema = value["schema"].as_str().unwrap_or_default();
        if schema != SCHEMA {
            return Err(BadListing::Schema(schema.to_owned()));
        }
        let listing: Self = serde_json::from_str(&body).map_err(json)?;
        if listing.text() != text {
            return Err(BadListing::Form);
        }
        listing.check()?;
        Ok(listing)
    }

    fn check(&self) -> Result<(), BadListing> {
        if self.jobs.is_empty() {
            return Err(BadListing::NoJob);
        }
        if !self.jobs.is_sorted_by(|a, b| a < b) {
            return Err(BadListing::JobOrder);
        }
        let mut last = "";
        let mut fixed: BTreeSet<String> =
            self.jobs.iter().map(|id| Place::Job(*id).path()).collect();
        fixed.insert(AUTHORITY.into());
        for file in &self.files {
            let name = file.name.as_str();
            let place = Place::of(name).ok_or_else(|| BadListing::Name(name.into()))?;
            if name <= last {
                return Err(BadListing::Order(name.into()));
            }
            last = name;
            let hexadecimal = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
            if file.sha256.len() != 64 || !file.sha256.bytes().all(hexadecimal) {
                return Err(BadListing::Sha256(name.into(), file.sha256.clone()));
            }
            fixed.remove(name);
            match place {
                Place::Job(job) | Place::Document { job, .. } if !self.jobs.contains(&job) => {
                    return Err(BadListing::Stranger(name.into()));
                }
                _ => {}
            }
        }
        match fixed.pop_first() {
            Some(name) => Err(BadListing::Lacks(name)),
            None => Ok(()),
        }
    }
}

fn last_lines(digest: &str) -> String {
    format!("  \"sha256\": \"{digest}\"\n}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Document {
        Document {
            name: name.into(),
            bytes: 3,
            sha256: "ab".repeat(32),
        }
    }

    fn listing(names: &[&str]) -> Listing {
        Listing {
            schema: SCHEMA.into(),
            made_ms: 1_700_000_000_123,
            versions: Versions {
                still: "0.1.0".into(),
                agents: ["0.1.0".to_owned()].into(),
            },
            jobs: vec![JobId(7)],
            files: names.iter().map(|name| file(name)).collect(),
        }
    }

    const WHOLE: [&str; 3] = [AUTHORITY, "job-7/job.json", "job-7/n1/stdout"];

    #[test]
    fn a_listing_comes_back_and_its_lines_can_be_hashed_by_hand() {
        let listing = listing(&WHOLE);
        let text = listing.text();
        assert_eq!(Listing::parse(&text), Ok(listing));
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        let (before, last) = lines.split_at(lines.len() - 2);
        let digest = super::super::digest(before.concat().as_bytes());
        assert_eq!(last[0], format!("  \"sha256\": \"{digest}\"\n"));
    }

    #[test]
    fn no_byte_of_it_can_be_changed() {
        let text = listing(&WHOLE).text();
        for at in 0..text.len() {
            for flip in [1, 0x20, 0x40] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= flip;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert!(Listing::parse(&changed).is_err(), "byte {at}: {changed}");
                }
            }
        }
        for shorter in 0..text.len() {
            assert!(Listing::parse(&text[..shorter]).is_err(), "{shorter}");
        }
        Listing::parse("ä").unwrap_err();
    }

    #[test]
    fn what_makes_no_sense_is_refused_although_its_digest_holds() {
        let error = |change: &dyn Fn(&mut Listing)| {
            let mut listing = listing(&WHOLE);
            change(&mut listing);
            Listing::parse(&listing.text()).unwrap_err()
        };
        let renamed = |name: &'static str| move |it: &mut Listing| it.files[2] = file(name);
        for name in [
            "../x",
            "/etc/passwd",
            "job-7/n1/../x",
            "job-7/n1/",
            "job-7/N1/x",
            "job-07/n1/x",
            "job-7/n1/x y",
            "readme",
        ] {
            assert_eq!(error(&renamed(name)), BadListing::Name(name.into()));
        }
        let stranger = error(&renamed("job-8/n1/x"));
        assert_eq!(stranger, BadListing::Stranger("job-8/n1/x".into()));
        let twice = error(&renamed("job-7/job.json"));
        assert_eq!(twice, BadListing::Order("job-7/job.json".into()));
        let lacks = error(&|it| drop(it.files.remove(0)));
        assert_eq!(lacks, BadListing::Lacks(AUTHORITY.into()));
        let newer = error(&|it| it.schema = "stillmetal-bundle/2".into());
        assert!(newer.to_string().contains("take a newer one"), "{newer}");
        assert_eq!(error(&|it| it.jobs.clear()), BadListing::NoJob);
        assert_eq!(error(&|it| it.jobs.push(JobId(7))), BadListing::JobOrder);
        let digest = error(&|it| it.files[0].sha256 = "AB".repeat(32));
        assert!(matches!(digest, BadListing::Sha256(..)), "{digest}");
    }

    #[test]
    fn places_and_paths_are_the_same() {
        for path in [AUTHORITY, "job-7/job.json", "job-7/n-1/runs/a.json"] {
            assert_eq!(Place::of(path).unwrap().path(), path);
        }
    }
}
