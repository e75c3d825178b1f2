//! Images as `docker save` writes them.

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
        let config = json!({ "architecture": "amd64", "os": "linux", "names": names }).to_string();
        let hex = sha256(config.as_bytes());
        let config_path = format!("blobs/sha256/{hex}");
        let layer = vec![7; layer_bytes];
        let layer_path = format!("blobs/sha256/{}", sha256(&layer));
        let manifest =
            json!([{ "Config": config_path, "RepoTags": names, "Layers": [layer_path] }]);
        Self {
            id: format!("sha256:{hex}"),
            tar: tar(&[
                (&layer_path, &layer),
                (&config_path, config.as_bytes()),
                ("manifest.json", manifest.to_string().as_bytes()),
            ]),
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

/// The ids of the images in an archive; none if it is not one.
#[must_use]
pub fn image_ids(archive: &[u8]) -> Vec<String> {
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
    let manifest = file("manifest.json").and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(Value::Array(images)) = manifest else {
        return Vec::new();
    };
    let id = |image: &Value| {
        let config = file(image["Config"].as_str()?)?;
        Some(format!("sha256:{}", sha256(&config)))
    };
    images.iter().filter_map(id).collect()
}
