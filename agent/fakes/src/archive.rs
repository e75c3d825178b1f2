//! Images as `docker save` writes them.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image that `docker save` could have written.
#[derive(Debug, Clone)]
pub struct FakeImage {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    pub tar: Vec<u8>,
}

impl FakeImage {
    /// With these names and one layer of so many bytes.
    #[must_use]
    pub fn new(names: &[&str], layer_bytes: usize) -> Self {
        Self::layered(names, &[&vec![7; layer_bytes]])
    }

    /// With these names and layers, from the lowest on.
    #[must_use]
    pub fn layered(names: &[&str], layers: &[&[u8]]) -> Self {
        let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let paths: Vec<String> = digests
            .iter()
            .map(|it| format!("blobs/sha256/{it}"))
            .collect();
        let diffs: Vec<String> = digests.iter().map(|it| format!("sha256:{it}")).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diffs });
        let config =
            json!({ "architecture": "amd64", "os": "linux", "names": names, "rootfs": rootfs });
        let config = config.to_string();
        let hex = sha256(config.as_bytes());
        let config_path = format!("blobs/sha256/{hex}");
        let manifest =
            json!([{ "Config": config_path, "RepoTags": names, "Layers": paths }]).to_string();
        // a layer that is there twice is one file
        let blobs = paths.iter().map(String::as_str).zip(layers.iter().copied());
        let blobs: BTreeMap<&str, &[u8]> = blobs.collect();
        let own = [
            (config_path.as_str(), config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ];
        let files: Vec<(&str, &[u8])> = blobs.into_iter().chain(own).collect();
        Self {
            id: format!("sha256:{hex}"),
            tar: tar(&files),
        }
    }
}

/// An archive of regular files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// An image as an engine finds it in an archive.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    /// Digests of its layers, from the lowest on, and whether their files are there.
    pub(crate) layers: Vec<(String, bool)>,
}

/// The images in an archive; none if it is not one.
pub(crate) fn images(archive: &[u8]) -> Vec<Found> {
    let file = |wanted: &str| {
        let mut archive = tar::Archive::new(archive);
        let mut entry = archive.entries().ok()?.find_map(|entry| {
            let entry = entry.ok()?;
            let found = entry.path().is_ok_and(|path| path.to_str() == Some(wanted));
            found.then_some(entry)
        })?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).ok();
    let manifest = file("manifest.json").and_then(json);
    let Some(Value::Array(images)) = manifest else {
        return Vec::new();
    };
    let image = |image: &Value| {
        let config = file(image["Config"].as_str()?)?;
        let id = format!("sha256:{}", sha256(&config));
        let config = json(config)?;
        let diffs = config["rootfs"]["diff_ids"].as_array()?.iter();
        let paths = image["Layers"].as_array()?.iter();
        let layers = diffs.zip(paths).filter_map(|(diff, path)| {
            let there = file(path.as_str()?).is_some();
            Some((diff.as_str()?.to_owned(), there))
        });
        Some(Found {
            id,
            layers: layers.collect(),
        })
    };
    images.iter().filter_map(image).collect()
}
