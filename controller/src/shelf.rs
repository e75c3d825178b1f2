//! What the API shows of documents and images.

use std::ops::Range;
use std::sync::Arc;

use api::image::ImageView;
use api::job::{JobPart, JobStatus};
use api::work::Document;
use store::Digest;

use crate::desk::Caller;
use crate::http::{Archive, ByteStream, Documents, Images};
use crate::refusal::{Kind, Refusal};
use crate::stock::Stock;
use crate::vault::Vault;

/// Documents and images of a running controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shelf {
    vault: Vault,
    stock: Arc<Stock>,
}

impl Shelf {
    #[must_use]
    pub fn new(vault: Vault, stock: Arc<Stock>) -> Self {
        Self { vault, stock }
    }
}

impl Documents for Shelf {
    async fn read(
        &self,
        _job: &JobStatus,
        _part: &JobPart,
        document: &Document,
        range: Range<u64>,
    ) -> Result<ByteStream, Refusal> {
        let digest: Result<Digest, _> = document.sha256.parse();
        let digest = digest
            .map_err(|error| Refusal::new(Kind::Internal, format!("{}: {error}", document.name)))?;
        let all = range.start == 0 && range.end >= document.bytes;
        let read = if all {
            self.vault.get(&digest).await.map(|(_, bytes)| bytes)
        } else {
            self.vault.get_range(&digest, range).await
        };
        read.map_err(|error| Refusal::new(Kind::NoSuchDocument, crate::chain(&error)))
    }

    async fn live(
        &self,
        job: &JobStatus,
        part: &JobPart,
        stream: &str,
        _follow: bool,
    ) -> Result<ByteStream, Refusal> {
        let detail = format!(
            "job {} has not ended on {}: its node sends nothing while it measures, so {stream} comes \
             with the result",
            job.id, part.node_name
        );
        Err(Refusal::new(Kind::NoSuchDocument, detail)
            .next("wait until it has ended: GET /v1/jobs/ID?wait=60"))
    }
}

impl Images for Shelf {
    async fn push(&self, caller: &Caller, archive: Archive) -> Result<ImageView, Refusal> {
        self.stock.push(caller, archive.body).await
    }

    async fn images(&self) -> Result<Vec<ImageView>, Refusal> {
        Ok(self.stock.list())
    }
}
