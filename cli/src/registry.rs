//! Images of a registry, as the archive that `docker save` would make of them.

use std::collections::BTreeSet;
use std::io::{Seek as _, SeekFrom};
use std::time::Duration;

use anyhow::{Context as _, bail};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol, linux_amd64_resolver};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncWriteExt as _;

use crate::outcome::Misuse;
use crate::progress::Progress;

/// Until a registry is connected to.
const CONNECT: Duration = Duration::from_secs(15);
/// Between two pieces of what it sends.
const PIECE: Duration = Duration::from_secs(60);
/// More layers than an image can have (the engine's limit is 127).
const LAYERS: usize = 256;

/// An image's archive, in a file of its own.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) file: NamedTempFile,
    /// Bytes.
    pub(crate) length: u64,
}

/// Fetches an image for 64-bit x86, each part verified against its digest.
///
/// Credentials are those of the docker client (`docker login`). As with Docker, only a registry on this
/// machine may be without TLS.
pub(crate) async fn fetch(name: &str, progress: &Progress) -> anyhow::Result<Archive> {
    let reference: Reference = name.parse().map_err(|why| Misuse::NoReference {
        name: name.to_owned(),
        why: format!("{why}"),
    })?;
    let registry = reference.resolve_registry().to_owned();
    let auth = credentials(&registry)?;
    pki::install();
    let client = Client::new(ClientConfig {
        protocol: match is_local(&registry) {
            true => ClientProtocol::HttpsExcept(vec![registry.clone()]),
            false => ClientProtocol::Https,
        },
        platform_resolver: Some(Box::new(linux_amd64_resolver)),
        read_timeout: Some(PIECE),
        connect_timeout: Some(CONNECT),
        ..ClientConfig::default()
    });
    progress.now(&format!("asking {registry} for {name}"));
    let asked = client.pull_image_manifest(&reference, &auth).await;
    let (manifest, _digest) = asked.with_context(|| format!("find {name} at {registry}"))?;
    if manifest.layers.len() > LAYERS {
        bail!(
            "{name} has {} layers, and {LAYERS} are the limit",
            manifest.layers.len()
        );
    }
    let folder = tempfile::tempdir().context("make a folder for the image's layers")?;
    let parts: BTreeSet<&str> = blobs(&manifest).map(|blob| blob.digest.as_str()).collect();
    for (number, blob) in parts.iter().enumerate() {
        progress.now(&format!(
            "fetching part {} of {} of {name}",
            number + 1,
            parts.len()
        ));
        let path = folder.path().join(hex(blob)?);
        let write = async {
            let mut file = tokio::fs::File::create(&path).await?;
            // what has not the digest that it was asked for by is refused there
            client.pull_blob(&reference, *blob, &mut file).await?;
            file.flush().await?;
            anyhow::Ok(())
        };
        write
            .await
            .with_context(|| format!("fetch {blob} of {name}"))?;
    }
    let tag = reference.tag().map(|_| docker_name(&reference));
    tokio::task::spawn_blocking(move || pack(&folder, &manifest, tag))
        .await
        .context("write the archive")?
        .context("write the archive")
}

fn blobs(manifest: &OciImageManifest) -> impl Iterator<Item = &OciDescriptor> {
    std::iter::once(&manifest.config).chain(&manifest.layers)
}

/// The digits of a digest, which are a file's name.
fn hex(digest: &str) -> anyhow::Result<&str> {
    let digits = digest.strip_prefix("sha256:");
    let plain = |text: &&str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits
        .filter(plain)
        .with_context(|| format!("{digest} is not a SHA-256"))
}

/// As Docker shows it, so that `still run` finds it by the same name.
fn docker_name(reference: &Reference) -> String {
    let tag = reference.tag().unwrap_or("latest");
    match reference.registry() {
        "docker.io" => format!("{}:{tag}", reference.repository()),
        registry => format!("{registry}/{}:{tag}", reference.repository()),
    }
}

fn pack(
    folder: &TempDir,
    manifest: &OciImageManifest,
    tag: Option<String>,
) -> anyhow::Result<Archive> {
    let mut file = NamedTempFile::new()?;
    let mut tar = tar::Builder::new(file.as_file_mut());
    let mut packed = BTreeSet::new();
    for blob in blobs(manifest) {
        let digits = hex(&blob.digest)?;
        if packed.insert(digits) {
            tar.append_path_with_name(folder.path().join(digits), in_archive(digits))?;
        }
    }
    let layers = manifest.layers.iter().map(|layer| hex(&layer.digest));
    let layers = layers.collect::<anyhow::Result<Vec<_>>>()?;
    let index = serde_json::to_vec(&serde_json::json!([{
        "Config": in_archive(hex(&manifest.config.digest)?),
        "RepoTags": tag.into_iter().collect::<Vec<_>>(),
        "Layers": layers.into_iter().map(in_archive).collect::<Vec<_>>(),
    }]))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(index.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "manifest.json", index.as_slice())?;
    tar.finish()?;
    drop(tar);
    let length = file.as_file_mut().seek(SeekFrom::End(0))?;
    file.as_file_mut().rewind()?;
    Ok(Archive { file, length })
}

fn in_archive(digits: &str) -> String {
    format!("blobs/sha256/{digits}")
}

/// Of the docker client's configuration.
fn credentials(registry: &str) -> anyhow::Result<RegistryAuth> {
    // as docker names its own hub
    let server = match registry {
        "index.docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    match docker_credential::get_credential(server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(RegistryAuth::Bearer(token)),
        Err(
            CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError
            | CredentialRetrievalError::NoCredentialConfigured,
        ) => Ok(RegistryAuth::Anonymous),
        Err(error) => Err(error).with_context(|| {
            format!("read the credentials for {registry} (`docker login` makes them)")
        }),
    }
}

/// On this machine: nobody can listen in between.
fn is_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_be_without_tls() {
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_local(registry), "{registry}");
        }
        for registry in [
            "docker.io",
            "localhost.example:5000",
            "10.0.0.1:5000",
            "[::2]:5000",
        ] {
            assert!(!is_local(registry), "{registry}");
        }
    }

    #[test]
    fn names_are_docker_s() {
        for (given, shown) in [
            ("busybox:1", "library/busybox:1"),
            ("docker.io/a/b:2", "a/b:2"),
            ("lab.example:5000/a/b:2", "lab.example:5000/a/b:2"),
        ] {
            assert_eq!(docker_name(&given.parse().unwrap()), shown);
        }
    }

    #[test]
    fn a_digest_is_a_file_s_name_only_if_it_is_one() {
        let digits = "ab".repeat(32);
        assert_eq!(hex(&format!("sha256:{digits}")).unwrap(), digits);
        for wrong in ["sha256:../../etc/passwd", "sha256:ab", "sha512:ab", ""] {
            assert!(hex(wrong).is_err(), "{wrong}");
        }
    }
}
