//! Its documents and images.

use std::ops::Range;

use api::image::ImageView;
use api::job::{JobPart, JobStatus};
use api::work::Document;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::FakeController;
use crate::desk::Caller;
use crate::http::{Archive, ByteStream, Documents, Images};
use crate::refusal::{Kind, Refusal};

/// In pieces of so many bytes, as a file would come.
const PIECE: usize = 1000;

fn pieces(bytes: Bytes) -> ByteStream {
    stream::unfold(bytes, |mut rest| async {
        let piece = rest.split_to(PIECE.min(rest.len()));
        (!piece.is_empty()).then_some((Ok(piece), rest))
    })
    .boxed()
}

impl Documents for FakeController {
    async fn read(
        &self,
        job: &JobStatus,
        part: &JobPart,
        document: &Document,
        range: Range<u64>,
    ) -> Result<ByteStream, Refusal> {
        self.trouble().await?;
        let key = (job.id, part.node.clone(), document.name.clone());
        let state = self.state();
        let bytes = state.documents.get(&key).and_then(|bytes| {
            let start = usize::try_from(range.start).ok()?;
            let end = usize::try_from(range.end).ok()?;
            (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
        });
        bytes
            .map(pieces)
            .ok_or_else(|| Refusal::new(Kind::NoSuchDocument, "its bytes are gone"))
    }

    async fn live(
        &self,
        job: &JobStatus,
        part: &JobPart,
        stream: &str,
        follow: bool,
    ) -> Result<ByteStream, Refusal> {
        self.trouble().await?;
        let id = job.id;
        let key = (id, part.node.clone(), stream.to_owned());
        let written = self.0.written.subscribe();
        let begin = (self.clone(), written, 0);
        let output = stream::unfold(begin, move |(fake, mut written, at)| {
            let key = key.clone();
            async move {
                loop {
                    written.mark_unchanged();
                    let (new, over) = {
                        let mut state = fake.state();
                        let output = state.output.get(&key);
                        let new = output.and_then(|output| output.get(at..));
                        let new = Bytes::copy_from_slice(new.unwrap_or_default());
                        let over = state.job(id).map_or(true, |job| job.state.is_over());
                        (new, over)
                    };
                    if !new.is_empty() {
                        let at = at + new.len();
                        return Some((Ok(new), (fake, written, at)));
                    }
                    if over || !follow || written.changed().await.is_err() {
                        return None;
                    }
                }
            }
        });
        Ok(output.boxed())
    }
}

impl Images for FakeController {
    async fn push(&self, caller: &Caller, mut archive: Archive) -> Result<ImageView, Refusal> {
        self.trouble().await?;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = archive.body.next().await {
            let piece = piece.map_err(|error| {
                Refusal::new(Kind::Invalid, format!("the archive broke off: {error}"))
            })?;
            digest.update(&piece);
            bytes += piece.len() as u64;
        }
        if bytes == 0 {
            return Err(Refusal::new(Kind::Invalid, "the archive is empty"));
        }
        let digest = digest.finalize();
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.change(|state| {
            let image = ImageView {
                name: String::new(),
                digest: format!("sha256:{digits}"),
                bytes,
                pushed_ms: state.tick(),
                user: caller.user.clone(),
            };
            state.images.insert(image.digest.clone(), image.clone());
            image
        }))
    }

    async fn images(&self) -> Result<Vec<ImageView>, Refusal> {
        self.trouble().await?;
        Ok(self.state().images.values().cloned().collect())
    }
}
