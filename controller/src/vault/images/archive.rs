//! What is in an archive. Nothing of it is unpacked, and what is read of it is bounded.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::index::{Layer, full_name};

/// More files than any image has.
const FILES: usize = 100_000;
/// Longest manifest, bytes.
const MANIFEST: u64 = 1024 * 1024;
/// Longest configuration of an image, bytes.
const CONFIGURATION: u64 = 8 * 1024 * 1024;
/// Most images of an archive, and most names of an image.
const MANY: usize = 100;

/// Why an archive holds no image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is compressed: unpack it first (`zcat`, `unzstd`)")]
    Compressed,
    #[error("it is no tar archive, or is cut short")]
    Tar(#[source] io::Error),
    #[error("it has no manifest.json: make it with `docker save`")]
    NoManifest,
    #[error("its manifest.json is not that of `docker save`")]
    Manifest(#[source] serde_json::Error),
    #[error("it holds no image")]
    Empty,
    #[error("it has more than {most} {what}")]
    TooMany { what: &'static str, most: usize },
    #[error("its file {path} is longer than {most} bytes")]
    TooLong { path: String, most: u64 },
    #[error("it has the file {path} twice")]
    Twice { path: String },
    #[error("its manifest.json names {path}, which is not there")]
    Missing { path: String },
}

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    /// From the lowest on; none where they cannot be left out one by one.
    pub(super) layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Of an image's configuration, what tells its layers.
#[derive(Debug, Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Where a file lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    bytes: u64,
    /// Where its header begins; `None`: what stands before that belongs to it, too.
    header: Option<u64>,
}

/// What a tar archive is made of, bytes.
const BLOCK: u64 = 512;

/// The images of an archive. Blocks.
pub(super) fn describe(archive: &mut (impl Read + Seek)) -> Result<Vec<Described>, ArchiveError> {
    refuse_compressed(archive)?;
    let files = files(archive)?;
    let manifest = *files.get("manifest.json").ok_or(ArchiveError::NoManifest)?;
    let manifest = read(archive, "manifest.json", manifest, MANIFEST)?;
    let images: Vec<Entry> = serde_json::from_slice(&manifest).map_err(ArchiveError::Manifest)?;
    if images.is_empty() {
        return Err(ArchiveError::Empty);
    }
    at_most(images.len(), "images")?;
    let alone = images.len() == 1;
    images
        .into_iter()
        .map(|image| {
            let Some(place) = files.get(&image.config) else {
                return Err(ArchiveError::Missing { path: image.config });
            };
            let config = read(archive, &image.config, *place, CONFIGURATION)?;
            let tags = image.repo_tags.unwrap_or_default();
            at_most(tags.len(), "names of an image")?;
            let layers = layers(&image.layers, &config, &files);
            Ok(Described {
                id: format!("sha256:{:x}", Sha256::digest(&config)),
                names: tags.iter().filter_map(|tag| full_name(tag)).collect(),
                // another image of the archive may need what an engine that has this one's layers does not
                layers: layers.filter(|_| alone).unwrap_or_default(),
            })
        })
        .collect()
}

/// The layers of an image, if each is a file of its own.
fn layers(paths: &[String], config: &[u8], files: &HashMap<String, Place>) -> Option<Vec<Layer>> {
    let config: Configuration = serde_json::from_slice(config).ok()?;
    let diffs = config.rootfs.diff_ids;
    if paths.len() != diffs.len() {
        return None;
    }
    let layer = |(path, diff)| {
        let place = files.get(path)?;
        let end = place.at + place.bytes.next_multiple_of(BLOCK);
        Some(Layer {
            diff,
            file: place.header?..end,
        })
    };
    paths.iter().zip(diffs).map(layer).collect()
}

fn at_most(count: usize, what: &'static str) -> Result<(), ArchiveError> {
    if count > MANY {
        return Err(ArchiveError::TooMany { what, most: MANY });
    }
    Ok(())
}

fn refuse_compressed(archive: &mut (impl Read + Seek)) -> Result<(), ArchiveError> {
    let mut begin = [0; 4];
    let mut have = 0;
    while have < begin.len() {
        match archive
            .read(&mut begin[have..])
            .map_err(ArchiveError::Tar)?
        {
            0 => break,
            count => have += count,
        }
    }
    archive.rewind().map_err(ArchiveError::Tar)?;
    let compressed = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zX"];
    if compressed.iter().any(|magic| begin.starts_with(magic)) {
        return Err(ArchiveError::Compressed);
    }
    Ok(())
}

/// Regular files by their paths. The names of the files that matter are short, so headers are taken
/// as they are: the extensions for long ones, which can be of any length, are not read.
fn files(archive: &mut (impl Read + Seek)) -> Result<HashMap<String, Place>, ArchiveError> {
    let end = archive
        .seek(SeekFrom::End(0))
        .and_then(|end| archive.rewind().map(|()| end))
        .map_err(ArchiveError::Tar)?;
    let mut files = HashMap::new();
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries_with_seek().map_err(ArchiveError::Tar)?;
    let mut extended = false;
    for (number, entry) in entries.raw(true).enumerate() {
        let entry = entry.map_err(ArchiveError::Tar)?;
        if number >= FILES {
            return Err(ArchiveError::TooMany {
                what: "files",
                most: FILES,
            });
        }
        let place = Place {
            at: entry.raw_file_position(),
            bytes: entry.size(),
            header: (!extended).then(|| entry.raw_header_position()),
        };
        let kind = entry.header().entry_type();
        extended = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if place.at.checked_add(place.bytes).is_none_or(|at| at > end) {
            return Err(ArchiveError::Tar(io::ErrorKind::UnexpectedEof.into()));
        }
        let path = entry.path_bytes();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let Ok(path) = str::from_utf8(path) else {
            continue;
        };
        if kind.is_file() && files.insert(path.to_owned(), place).is_some() {
            return Err(ArchiveError::Twice {
                path: path.to_owned(),
            });
        }
    }
    Ok(files)
}

fn read(
    archive: &mut (impl Read + Seek),
    path: &str,
    place: Place,
    most: u64,
) -> Result<Vec<u8>, ArchiveError> {
    if place.bytes > most {
        return Err(ArchiveError::TooLong {
            path: path.to_owned(),
            most,
        });
    }
    let mut bytes = Vec::new();
    archive
        .seek(SeekFrom::Start(place.at))
        .and_then(|_| archive.by_ref().take(place.bytes).read_to_end(&mut bytes))
        .map_err(ArchiveError::Tar)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use stillmetal_fakes::FakeImage;

    use super::*;

    fn of(bytes: &[u8]) -> Result<Vec<Described>, ArchiveError> {
        describe(&mut Cursor::new(bytes))
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn an_image_is_known_by_its_configuration() {
        let image = FakeImage::new(&["bench:1", "docker.io/library/other"], 100_000);
        let described = of(&image.tar).unwrap();
        assert_eq!(
            described,
            [Described {
                id: image.id,
                names: vec!["bench:1".into(), "other:latest".into()],
                // a header of 512 bytes, and whole blocks of as many
                layers: vec![Layer {
                    diff: format!("sha256:{:x}", Sha256::digest([7; 100_000])),
                    file: 0..100_864,
                }],
            }]
        );
    }

    #[test]
    fn the_files_of_layers_are_known_with_their_headers() {
        let config = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:a","sha256:b"]}}"#;
        let manifest = r#"[{"Config":"c","Layers":["one","two"]}]"#;
        let bytes = archive(&[
            ("one", &[1; 700]),
            ("c", config.as_bytes()),
            ("two", &[2; 512]),
            ("manifest.json", manifest.as_bytes()),
        ]);
        let layers = &of(&bytes).unwrap()[0].layers;
        let told: Vec<_> = layers
            .iter()
            .map(|it| (it.diff.as_str(), it.file.clone()))
            .collect();
        assert_eq!(
            told,
            [("sha256:a", 0..1536), ("sha256:b", 2560..3584)],
            "a header and whole blocks each"
        );
        // without the files that it names, or with another number of them, an image is sent as a whole
        for manifest in [
            r#"[{"Config":"c","Layers":["one"]}]"#,
            r#"[{"Config":"c","Layers":["one","three"]}]"#,
            r#"[{"Config":"c","Layers":["one","two"]},{"Config":"c"}]"#,
        ] {
            let bytes = archive(&[
                ("one", &[1; 700]),
                ("c", config.as_bytes()),
                ("two", &[2; 512]),
                ("manifest.json", manifest.as_bytes()),
            ]);
            assert!(of(&bytes).unwrap()[0].layers.is_empty(), "{manifest}");
        }
    }

    #[test]
    fn a_layer_with_a_long_name_is_never_left_out() {
        let long = format!("{}/layer.tar", "x".repeat(150));
        let config = r#"{"rootfs":{"diff_ids":["sha256:a"]}}"#;
        let manifest = format!(r#"[{{"Config":"c","Layers":["{long}"]}}]"#);
        let bytes = archive(&[
            (&long, &[1; 700]),
            ("c", config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ]);
        assert!(of(&bytes).unwrap()[0].layers.is_empty());
    }

    #[test]
    fn archives_of_other_things_are_told_apart() {
        type Wanted = fn(&ArchiveError) -> bool;
        let manifest = |text: &str| archive(&[("manifest.json", text.as_bytes())]);
        let long = "x".repeat(2 * 1024 * 1024);
        let many = format!("[{}]", vec![r#"{"Config":"c"}"#; 101].join(","));
        let whole = FakeImage::new(&["a"], 10_000).tar;
        let twice = archive(&[("manifest.json", b"[]"), ("./manifest.json", b"[]")]);
        let cases: [(Vec<u8>, Wanted); 11] = [
            (b"\x1f\x8b\x08etc".into(), |e| {
                matches!(e, ArchiveError::Compressed)
            }),
            (vec![], |e| matches!(e, ArchiveError::NoManifest)),
            (vec![b'x'; 2048], |e| matches!(e, ArchiveError::Tar(_))),
            (archive(&[("a", b"b")]), |e| {
                matches!(e, ArchiveError::NoManifest)
            }),
            (manifest("{"), |e| matches!(e, ArchiveError::Manifest(_))),
            (manifest("[]"), |e| matches!(e, ArchiveError::Empty)),
            (manifest(&many), |e| {
                matches!(e, ArchiveError::TooMany { .. })
            }),
            (manifest(&long), |e| {
                matches!(e, ArchiveError::TooLong { .. })
            }),
            (manifest(r#"[{"Config":"../../etc/passwd"}]"#), |e| {
                matches!(e, ArchiveError::Missing { .. })
            }),
            (twice, |e| matches!(e, ArchiveError::Twice { .. })),
            (whole[..whole.len() / 2].into(), |e| {
                matches!(e, ArchiveError::Tar(_))
            }),
        ];
        for (number, (bytes, wanted)) in cases.iter().enumerate() {
            let error = of(bytes).expect_err("refused");
            assert!(wanted(&error), "{number}: {error:?}");
        }
    }

    proptest! {
        /// Whatever comes, it is an answer.
        #[test]
        fn any_damage_is_an_error_or_harmless(at in 0_usize..12_000, byte in any::<u8>()) {
            let mut bytes = FakeImage::new(&["a"], 4_000).tar;
            let at = at % bytes.len();
            bytes[at] = byte;
            drop(of(&bytes));
            drop(of(&bytes[..at]));
        }
    }
}
