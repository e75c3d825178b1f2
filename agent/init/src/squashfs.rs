//! Just enough of the squashfs superblock to tell a whole image from one that memory cut short.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What the superblock and the file's size say about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    Whole,
    /// Shorter than it says it is.
    Truncated {
        have_bytes: u64,
        want_bytes: u64,
    },
    NotSquashfs,
}

const MAGIC: &[u8; 4] = b"hsqs";
const BYTES_USED: std::ops::Range<usize> = 40..48;
const SUPERBLOCK_BYTES: usize = 96;

pub(crate) fn inspect(path: &Path) -> io::Result<Image> {
    let file = File::open(path)?;
    let have_bytes = file.metadata()?.len();
    let mut head = Vec::with_capacity(SUPERBLOCK_BYTES);
    file.take(SUPERBLOCK_BYTES as u64).read_to_end(&mut head)?;
    Ok(judge(&head, have_bytes))
}

fn judge(head: &[u8], have_bytes: u64) -> Image {
    let Some(field) = head.get(BYTES_USED).and_then(|bytes| bytes.try_into().ok()) else {
        // Not even a superblock: the unpacker stopped right here.
        return Image::Truncated {
            have_bytes,
            want_bytes: SUPERBLOCK_BYTES as u64,
        };
    };
    let want_bytes = u64::from_le_bytes(field);
    match () {
        () if !head.starts_with(MAGIC) => Image::NotSquashfs,
        () if have_bytes < want_bytes => Image::Truncated {
            have_bytes,
            want_bytes,
        },
        () => Image::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(used: u64) -> Vec<u8> {
        let mut head = vec![0; SUPERBLOCK_BYTES];
        head[..4].copy_from_slice(MAGIC);
        head[BYTES_USED].copy_from_slice(&used.to_le_bytes());
        head
    }

    #[test]
    fn whole_truncated_and_other() {
        assert_eq!(judge(&head(4000), 4096), Image::Whole);
        assert_eq!(
            judge(&head(4097), 4096),
            Image::Truncated {
                have_bytes: 4096,
                want_bytes: 4097
            }
        );
        assert_eq!(judge(&[0; 96], 4096), Image::NotSquashfs);
        assert!(matches!(
            judge(b"hsqs", 4),
            Image::Truncated { have_bytes: 4, .. }
        ));
        assert!(matches!(judge(b"", 0), Image::Truncated { .. }));
    }
}
