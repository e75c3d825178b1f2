//! What stands in the tar around a file's bytes. Pure, and the same for who writes and who reads: what
//! is not as it is written here was changed.

use std::io;

use super::listing::LISTING;

/// Unit of a tar, bytes.
pub(crate) const BLOCK: usize = 512;
/// Zeros that end it, bytes.
pub(crate) const END: usize = 2 * BLOCK;
/// Every file's, as far as it is not its name, size or time.
const MODE: u32 = 0o644;

/// The blocks before a file's bytes: owner 0, mode 0644, the bundle's time. Names that are longer than
/// a header has room for get a block more (GNU).
pub(crate) fn head(name: &str, bytes: u64, made_ms: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(made_ms / 1000);
    header.set_size(bytes);
    let mut builder = tar::Builder::new(Vec::new());
    // nothing but the head: whoever calls writes the bytes
    builder.append_data(&mut header, name, io::empty())?;
    let mut head = builder.into_inner()?;
    head.truncate(head.len().saturating_sub(END));
    Ok(head)
}

/// Zeros behind so many bytes.
pub(crate) fn padding(bytes: u64) -> usize {
    let over = usize::try_from(bytes % BLOCK as u64).unwrap_or_default();
    (BLOCK - over) % BLOCK
}

/// A tar begins so.
pub(crate) fn is_tar(beginning: &[u8]) -> bool {
    beginning.get(257..262) == Some(b"ustar")
}

/// Size of the listing, by the first block of a bundle; `None`: it begins otherwise.
pub(crate) fn listing_bytes(block: &[u8; BLOCK]) -> Option<u64> {
    let header = tar::Header::from_byte_slice(block);
    let is_listing = is_tar(block) && *header.path_bytes() == *LISTING.as_bytes();
    header.entry_size().ok().filter(|_| is_listing)
}

/// The name that a header has, for messages.
pub(crate) fn name_in(block: &[u8]) -> Option<String> {
    let block: &[u8; BLOCK] = block.get(..BLOCK)?.try_into().ok()?;
    let name = tar::Header::from_byte_slice(block).path_bytes();
    is_tar(block).then(|| String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_those_of_a_tar() {
        let long = format!("job-1/{}/{}", "n".repeat(64), "d".repeat(255));
        for name in ["ca.pem", long.as_str()] {
            let mut bytes = head(name, 3, 5_999).unwrap();
            assert_eq!(bytes.len() % BLOCK, 0);
            bytes.extend(b"abc");
            bytes.resize(bytes.len() + padding(3) + END, 0);
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut entries = archive.entries().unwrap();
            let entry = entries.next().unwrap().unwrap();
            assert_eq!(entry.path_bytes(), name.as_bytes());
            let header = entry.header();
            assert_eq!((header.size().unwrap(), header.mtime().unwrap()), (3, 5));
            assert_eq!((header.uid().unwrap(), header.mode().unwrap()), (0, MODE));
            assert!(entries.next().is_none());
        }
    }

    #[test]
    fn padding_fills_the_last_block() {
        for (bytes, zeros) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(bytes), zeros, "{bytes}");
        }
    }

    #[test]
    fn sizes_beyond_eight_gibibytes_have_a_head() {
        let bytes = head(LISTING, 1 << 40, 0).unwrap();
        let block: &[u8; BLOCK] = bytes[..].try_into().unwrap();
        assert_eq!(listing_bytes(block), Some(1 << 40));
        assert_eq!(name_in(block).as_deref(), Some(LISTING));
        assert_eq!(listing_bytes(&[0; BLOCK]), None);
        let other = head("ca.pem", 1, 0).unwrap();
        assert_eq!(listing_bytes(other[..].try_into().unwrap()), None);
    }
}
