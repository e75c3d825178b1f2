//! Results as one file: a plain tar, each byte of which follows from what is in it.
//!
//! ```text
//! listing   bundle.json: which files there are, with their digests; pure
//! layout    what stands in the tar around a file's bytes; pure
//! admit     whether a result may be handed on; pure
//! binding   whether certificates, series and provenance are of the job they lie with; pure
//! pack      writes a bundle
//! verify    reads one that somebody else gave us
//! ```
//! What is read is never unpacked: nothing in a bundle names a place on this machine.

pub(crate) mod admit;
mod binding;
mod layout;
pub(crate) mod listing;
pub(crate) mod pack;
#[cfg(test)]
mod tests;
pub(crate) mod verify;

use sha2::{Digest as _, Sha256};

/// Whether a file of this beginning and name is to be taken for a bundle. Anything else in a tar is
/// one that was changed.
pub(crate) fn is_bundle(name: &str, beginning: &[u8]) -> bool {
    layout::is_tar(beginning) || name.ends_with(".tar")
}

/// Of bytes that come in pieces, in lower-case hexadecimal.
fn finish(hasher: Sha256) -> String {
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    finish(Sha256::new_with_prefix(bytes))
}
