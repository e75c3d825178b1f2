//! Just enough of squashfs to tell a whole image from one that memory cut short.
//!
//! The kernel's unpacker gives a file its full length first and writes the content after, so a file that memory cut
//! short has the right size and ends in zeros. A squashfs ends in the index of its last table: a block's position, which
//! is never zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the superblock, the file's size and its end say about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    Whole,
    /// Its end is missing.
    Truncated {
        want_bytes: u64,
    },
    NotSquashfs,
}

const MAGIC: &[u8; 4] = b"hsqs";
const BYTES_USED: std::ops::Range<usize> = 40..48;
const SUPERBLOCK_BYTES: usize = 96;
const POSITION_BYTES: u64 = 8;

pub(crate) fn inspect(path: &Path) -> io::Result<Image> {
    let file = File::open(path)?;
    let have_bytes = file.metadata()?.len();
    let mut head = [0; SUPERBLOCK_BYTES];
    if have_bytes < head.len() as u64 {
        // Not even a superblock: the unpacker stopped right here.
        return Ok(Image::Truncated {
            want_bytes: head.len() as u64,
        });
    }
    file.read_exact_at(&mut head, 0)?;
    let want_bytes = match bytes_used(&head) {
        Some(bytes) => bytes,
        // The unpacker stopped before the first byte of it.
        None if head == [0; SUPERBLOCK_BYTES] => {
            return Ok(Image::Truncated {
                want_bytes: have_bytes,
            });
        }
        None => return Ok(Image::NotSquashfs),
    };
    if have_bytes < want_bytes {
        return Ok(Image::Truncated { want_bytes });
    }
    let mut last = [0; 8];
    file.read_exact_at(&mut last, want_bytes.saturating_sub(POSITION_BYTES))?;
    let position = u64::from_le_bytes(last);
    let whole = (1..want_bytes).contains(&position);
    Ok(if whole {
        Image::Whole
    } else {
        Image::Truncated { want_bytes }
    })
}

fn bytes_used(head: &[u8; SUPERBLOCK_BYTES]) -> Option<u64> {
    let field = head[BYTES_USED].try_into().ok()?;
    head.starts_with(MAGIC).then(|| u64::from_le_bytes(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of 4,000 bytes, padded, with a plausible end.
    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[BYTES_USED].copy_from_slice(&4000_u64.to_le_bytes());
        bytes[3992..4000].copy_from_slice(&3970_u64.to_le_bytes());
        bytes
    }

    fn judge(bytes: &[u8]) -> Image {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        inspect(file.path()).unwrap()
    }

    #[test]
    fn whole_and_other() {
        assert_eq!(judge(&image()), Image::Whole);
        assert_eq!(judge(&[7; 4096]), Image::NotSquashfs);
    }

    #[test]
    fn cut_short_with_or_without_its_length() {
        let cut = Image::Truncated { want_bytes: 4000 };
        assert_eq!(judge(&image()[..3000]), cut);
        let mut hole = image();
        hole[2048..].fill(0);
        assert_eq!(judge(&hole), cut);
        assert_eq!(judge(&vec![0; 4096]), Image::Truncated { want_bytes: 4096 });
        assert!(matches!(judge(b"hsqs"), Image::Truncated { .. }));
        assert!(matches!(judge(b""), Image::Truncated { .. }));
    }
}
