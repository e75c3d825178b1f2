//! Writes a bundle, piece by piece, to wherever it is to go.

use std::io;

use api::job::{JobId, JobPart, JobStatus};
use api::provenance;
use api::work::Document;
use client::Client;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::admit::{self, Blocked};
use super::digest;
use super::layout::{self, END};
use super::listing::{LISTING, Listing, Place, SCHEMA, Versions};

/// Longest provenance, bytes.
const LONGEST_PROVENANCE: u64 = 16 << 20;

/// Where a file's bytes come from.
#[derive(Debug)]
enum Source {
    Here(Vec<u8>),
    Controller(JobId, String, Document),
}

/// Results that may be handed on, and what their bundle will hold.
#[derive(Debug)]
pub(crate) struct Packing {
    made_ms: u64,
    /// In the order of the tar.
    files: Vec<(Document, Source)>,
}

impl Packing {
    /// Asks the controller for everything but the documents, and says whether they make a bundle.
    ///
    /// # Errors
    /// [`Blocked`] in it, for the first result that must not be handed on.
    pub(crate) async fn of(client: &Client, ids: &[JobId], ca_pem: &str) -> anyhow::Result<Self> {
        let mut jobs = ids.to_vec();
        jobs.sort_unstable();
        jobs.dedup();
        let mut sources = vec![here(Place::Authority, ca_pem.as_bytes().to_vec())];
        let (mut made_ms, mut agents) = (0, std::collections::BTreeSet::new());
        for id in &jobs {
            let (job, text) = client.job_with_text(*id).await?;
            admit::check_job(&job)?;
            made_ms = made_ms.max(job.ended_ms.unwrap_or_default());
            sources.push(here(Place::Job(*id), text));
            for part in &job.parts {
                let value = read_provenance(client, &job, part).await?;
                agents.insert(admit::agent_version(&value));
                sources.extend(
                    part.documents
                        .iter()
                        .map(|document| of(&job, part, document)),
                );
            }
        }
        sources.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let listing = Listing {
            schema: SCHEMA.into(),
            made_ms,
            versions: Versions {
                still: env!("CARGO_PKG_VERSION").into(),
                agents,
            },
            jobs,
            files: sources.iter().map(|(file, _)| file.clone()).collect(),
        };
        let text = listing.text().into_bytes();
        // what the reader would not take is not written
        Listing::parse(&String::from_utf8_lossy(&text))?;
        let mut files = vec![(file(LISTING.into(), &text), Source::Here(text))];
        files.append(&mut sources);
        Ok(Self { made_ms, files })
    }

    /// With `bundle.json`.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// All of the tar, bytes.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        let mut all = END as u64;
        for (file, _) in &self.files {
            let head = layout::head(&file.name, file.bytes, self.made_ms)?.len();
            all += head as u64 + file.bytes + layout::padding(file.bytes) as u64;
        }
        Ok(all)
    }

    /// Writes it. After an error `to` holds part of it.
    ///
    /// # Errors
    /// Whatever keeps a document from coming as it was stored, or `to` from taking it.
    pub(crate) async fn write(
        &self,
        client: &Client,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> anyhow::Result<()> {
        for (file, source) in &self.files {
            let head = layout::head(&file.name, file.bytes, self.made_ms)?;
            to.write_all(&head).await?;
            match source {
                Source::Here(bytes) => to.write_all(bytes).await?,
                Source::Controller(job, node, document) => {
                    client.copy_document(*job, node, document, to).await?;
                }
            }
            to.write_all(&vec![0; layout::padding(file.bytes)]).await?;
        }
        to.write_all(&[0; END]).await?;
        to.flush().await?;
        Ok(())
    }
}

fn file(name: String, bytes: &[u8]) -> Document {
    Document {
        name,
        bytes: bytes.len() as u64,
        sha256: digest(bytes),
    }
}

fn here(place: Place, bytes: Vec<u8>) -> (Document, Source) {
    (file(place.path(), &bytes), Source::Here(bytes))
}

fn of(job: &JobStatus, part: &JobPart, document: &Document) -> (Document, Source) {
    let place = Place::Document {
        job: job.id,
        node: part.node.clone(),
        name: document.name.clone(),
    };
    let file = Document {
        name: place.path(),
        ..document.clone()
    };
    let node = part.node.to_string();
    (file, Source::Controller(job.id, node, document.clone()))
}

async fn read_provenance(
    client: &Client,
    job: &JobStatus,
    part: &JobPart,
) -> anyhow::Result<serde_json::Value> {
    let mut documents = part.documents.iter();
    let document = documents.find(|document| document.name == provenance::DOCUMENT);
    let document = document.ok_or_else(|| Blocked::NoProvenance {
        job: job.id,
        node: part.node_name.clone(),
    })?;
    let node = part.node.as_str();
    let text = client.fetch_document(job.id, node, document, LONGEST_PROVENANCE);
    Ok(admit::check_provenance(job.id, part, &text.await?)?)
}
