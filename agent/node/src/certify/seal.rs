//! The node signs what it certifies, with the key of its own certificate.

use std::path::{Path, PathBuf};

use quiet::Certificate;
use quiet::seal::{Chain, SEAL};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The node's certificate (PEM) stands in the document under this name, and is sealed with it.
const SIGNER: &str = "signer";

/// What stands under `seal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    #[serde(flatten)]
    chain: Chain,
    /// Of the root, by TLS's name: `ECDSA_NISTP256_SHA256`.
    scheme: String,
    /// Hexadecimal.
    signature: String,
}

/// A document whose seal does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("not a JSON document")]
    Json(#[source] serde_json::Error),
    #[error("there is no seal in it: nobody vouches for this document")]
    Unsealed,
    #[error("/seal cannot be read")]
    Seal(#[source] serde_json::Error),
    #[error(transparent)]
    Tampering(#[from] quiet::seal::Tampering),
    #[error("/seal/signature does not hold")]
    Signature(#[source] pki::SignatureRefused),
    #[error("/signer is not trusted")]
    Signer(#[source] pki::SignatureRefused),
    #[error("byte {at}: the text says the same as what was sealed, but was written otherwise")]
    Text { at: usize },
}

/// The node's key and certificate, where they lie.
#[derive(Debug, Clone)]
pub(crate) struct Sealer {
    config: PathBuf,
    join: PathBuf,
}

impl Sealer {
    pub(crate) fn new(run_dir: &Path, join_dir: &Path) -> Self {
        Self {
            config: run_dir.join("config"),
            join: join_dir.to_path_buf(),
        }
    }

    /// The text to keep: the certificate with its seal.
    pub(crate) fn seal(&self, certificate: &Certificate) -> Result<String, String> {
        let mut document = serde_json::to_value(certificate).map_err(|error| error.to_string())?;
        let (certificate_pem, key_pem) = self.papers()?;
        document[SIGNER] = certificate_pem.into();
        let seal = Seal::of(&document, &key_pem).map_err(|error| crate::chain(&error))?;
        document[SEAL] = serde_json::to_value(seal).map_err(|error| error.to_string())?;
        text_of(&document)
    }

    /// The certificate and key that the node was booted with or, without them, those that it got from
    /// its controller.
    fn papers(&self) -> Result<(String, String), String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let own = self.config.join("node.pem");
        let joined = self.join.join("identity.json");
        if own.exists() || !joined.exists() {
            return Ok((read(&own)?, read(&self.config.join("node.key"))?));
        }
        let identity: Value = serde_json::from_str(&read(&joined)?)
            .map_err(|error| format!("{}: {error}", joined.display()))?;
        let text = |name: &str| {
            let text = identity[name].as_str().map(str::to_owned);
            text.ok_or_else(|| format!("{} has no {name}", joined.display()))
        };
        Ok((text("cert_pem")?, text("key_pem")?))
    }
}

impl Seal {
    fn of(document: &Value, key_pem: &str) -> Result<Self, pki::Error> {
        let chain = Chain::of(document);
        let signature = pki::sign(key_pem, chain.root.as_bytes())?;
        Ok(Self {
            chain,
            scheme: signature.scheme,
            signature: hex(&signature.bytes),
        })
    }
}

/// Checks a sealed document, and against an authority's certificate (PEM) if there is one; returns
/// the common name of the node that signed.
///
/// # Errors
/// [`Broken`], naming the first part that is not as it was signed.
pub fn verify(text: &str, authority: Option<&str>) -> Result<String, Broken> {
    let document: Value = serde_json::from_str(text).map_err(Broken::Json)?;
    let seal = document.get(SEAL).ok_or(Broken::Unsealed)?;
    let seal: Seal = serde_json::from_value(seal.clone()).map_err(Broken::Seal)?;
    seal.chain.check(&document)?;
    let signature = pki::Signature {
        scheme: seal.scheme.clone(),
        bytes: unhex(&seal.signature).unwrap_or_default(),
    };
    let certificate = document[SIGNER].as_str().unwrap_or_default();
    let signer = pki::verify(certificate, seal.chain.root.as_bytes(), &signature)
        .map_err(Broken::Signature)?;
    if let Some(authority) = authority {
        pki::issued_to_node(certificate, authority).map_err(Broken::Signer)?;
    }
    // a second value under one key, say: readers may differ in which one they take
    let written = text_of(&document).unwrap_or_default();
    let same = written
        .bytes()
        .zip(text.bytes())
        .take_while(|(a, b)| a == b);
    let at = same.count();
    if at < written.len() || at < text.trim_end().len() {
        return Err(Broken::Text { at });
    }
    Ok(signer)
}

fn text_of(document: &Value) -> Result<String, String> {
    serde_json::to_string_pretty(document).map_err(|error| error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A sealed document of a node, and its authority's certificate.
    fn sealed() -> (String, String) {
        let authority = pki::Authority::generate("lab").unwrap();
        let node = authority
            .issue_node(&["node-1"], pki::Validity::days(1))
            .unwrap();
        let mut document = json!({"verdict": "noisy", "reasons": ["a", "b"]});
        document[SIGNER] = node.cert_pem.into();
        let seal = Seal::of(&document, &node.key_pem).unwrap();
        document[SEAL] = serde_json::to_value(seal).unwrap();
        (text_of(&document).unwrap(), authority.cert_pem().to_owned())
    }

    #[test]
    fn a_sealed_document_holds_and_its_signer_is_known() {
        let (text, authority) = sealed();
        verify(&text, Some(&authority)).unwrap();
        verify(&format!("{text}\n"), None).unwrap();
        let (_, stranger) = sealed();
        assert!(matches!(
            verify(&text, Some(&stranger)),
            Err(Broken::Signer(_))
        ));
    }

    #[test]
    fn every_single_byte_that_is_changed_breaks_it() {
        let (text, authority) = sealed();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(verify(&changed, Some(&authority)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_was_changed_is_named() {
        let (text, _) = sealed();
        let error = |from: &str, to: &str| verify(&text.replacen(from, to, 1), None).unwrap_err();
        assert_eq!(error("noisy", "quiet").to_string(), "/verdict was changed");
        assert_eq!(error("\"a\"", "\"c\"").to_string(), "/reasons was changed");
        let twice = error("\"verdict\"", "\"verdict\": \"quiet\",\n  \"verdict\"");
        assert!(matches!(twice, Broken::Text { .. }), "{twice}");
        assert!(matches!(
            verify("{\"verdict\": \"quiet\"}", None),
            Err(Broken::Unsealed)
        ));
        assert!(matches!(verify("quiet", None), Err(Broken::Json(_))));
    }
}
