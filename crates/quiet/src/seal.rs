//! Makes a document tell where it was changed: a digest for each of its parts, chained into one
//! that is signed.
//!
//! A part is a value whose JSON text is short, or that has no parts; its name is a JSON pointer
//! (RFC 6901). In the order of their paths they make a chain: `h₀ = sha256("stillmetal-seal/1")`,
//! `hₙ = sha256(hₙ₋₁ ‖ sha256(pathₙ) ‖ sha256(digestₙ))`, where `digestₙ` is the part's in
//! hexadecimal; the last link is the root. The text that a digest is of has its keys sorted and no
//! blanks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where the seal stands in the document; it is no part of what it seals.
pub const SEAL: &str = "seal";
/// Changes with every change of the rules above.
pub const SEAL_SCHEMA: &str = "stillmetal-seal/1";
/// Values with a longer text are taken apart.
const PART_BYTES: usize = 256;

/// Digests of all parts, and what they come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub schema: String,
    /// Path → sha256, hexadecimal, in the order of the chain.
    pub parts: BTreeMap<String, String>,
    /// Hexadecimal; this is signed, as these 64 characters.
    pub root: String,
}

/// The first thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tampering {
    Changed {
        path: String,
    },
    Added {
        path: String,
    },
    Removed {
        path: String,
    },
    /// The seal's own parts do not come to its root.
    Seal,
}

impl std::fmt::Display for Tampering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed { path } => write!(f, "{path} was changed"),
            Self::Added { path } => write!(f, "{path} was added"),
            Self::Removed { path } => write!(f, "{path} was removed"),
            Self::Seal => f.write_str("/seal was changed"),
        }
    }
}

impl std::error::Error for Tampering {}

impl Chain {
    /// Of a document, its seal left out.
    #[must_use]
    pub fn of(document: &Value) -> Self {
        let mut parts = BTreeMap::new();
        match document {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| *key != SEAL) {
                    collect(&format!("/{}", escaped(key)), value, &mut parts);
                }
            }
            other => collect("", other, &mut parts),
        }
        let root = root(&parts);
        Self {
            schema: SEAL_SCHEMA.to_owned(),
            parts,
            root,
        }
    }

    /// Whether `document` is still what this chain was made of.
    ///
    /// # Errors
    /// The first difference, in the order of the chain.
    pub fn check(&self, document: &Value) -> Result<(), Tampering> {
        if root(&self.parts) != self.root || self.schema != SEAL_SCHEMA {
            return Err(Tampering::Seal);
        }
        let now = Self::of(document);
        let paths = self.parts.keys().chain(now.parts.keys());
        let mut all: Vec<&String> = paths.collect();
        all.sort();
        for path in all {
            let path = path.clone();
            // a part may have been taken apart, or have become one, by the change
            let below = |parts: &BTreeMap<String, String>| {
                parts
                    .keys()
                    .any(|other| other.starts_with(&format!("{path}/")))
            };
            match (self.parts.get(&path), now.parts.get(&path)) {
                (Some(then), Some(now)) if then == now => {}
                (Some(_), Some(_)) => return Err(Tampering::Changed { path }),
                (None, _) if below(&self.parts) => return Err(Tampering::Changed { path }),
                (_, None) if below(&now.parts) => return Err(Tampering::Changed { path }),
                (None, _) => return Err(Tampering::Added { path }),
                (_, None) => return Err(Tampering::Removed { path }),
            }
        }
        Ok(())
    }
}

fn collect(path: &str, value: &Value, parts: &mut BTreeMap<String, String>) {
    let text = canonical(value);
    match value {
        Value::Object(map) if text.len() > PART_BYTES => {
            for (key, value) in map {
                collect(&format!("{path}/{}", escaped(key)), value, parts);
            }
        }
        Value::Array(list) if text.len() > PART_BYTES => {
            for (index, value) in list.iter().enumerate() {
                collect(&format!("{path}/{index}"), value, parts);
            }
        }
        _ => {
            parts.insert(path.to_owned(), hex(&Sha256::digest(text.as_bytes())));
        }
    }
}

/// RFC 6901, section 3.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let members: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(list) => {
            let elements: Vec<String> = list.iter().map(canonical).collect();
            format!("[{}]", elements.join(","))
        }
        scalar => scalar.to_string(),
    }
}

fn root(parts: &BTreeMap<String, String>) -> String {
    let start = Sha256::digest(SEAL_SCHEMA.as_bytes());
    let end = parts.iter().fold(start, |link, (path, digest)| {
        Sha256::new()
            .chain_update(link)
            .chain_update(Sha256::digest(path.as_bytes()))
            .chain_update(Sha256::digest(digest.as_bytes()))
            .finalize()
    });
    hex(&end)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "verdict": "quiet",
            "evidence": {
                "argv": ["a", "b"],
                "windows": [
                    {"name": "job", "cpus": {"1": {"LOC": 0, "RES": 1}}, "note": "x".repeat(300)},
                    {"name": "exit", "a/b~c": "y".repeat(300)}
                ]
            }
        })
    }

    #[test]
    fn the_part_that_was_changed_is_named() {
        let chain = Chain::of(&document());
        assert_eq!(chain.check(&document()), Ok(()));
        let changed = |pointer: &str, to: Value| {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = to;
            chain.check(&document).unwrap_err().to_string()
        };
        assert_eq!(changed("/verdict", json!("noisy")), "/verdict was changed");
        assert_eq!(
            changed("/evidence/windows/0/cpus/1/LOC", json!(1)),
            "/evidence/windows/0/cpus was changed"
        );
        assert_eq!(
            changed("/evidence/windows/1/a~1b~0c", json!("")),
            // the window has become short enough to be a part itself
            "/evidence/windows/1 was changed"
        );
    }

    #[test]
    fn what_was_added_or_removed_is_named_and_the_seal_itself_watched() {
        let chain = Chain::of(&document());
        let mut more = document();
        more["comment"] = json!("trust me");
        assert_eq!(
            chain.check(&more),
            Err(Tampering::Added {
                path: "/comment".into()
            })
        );
        let mut less = document();
        less.as_object_mut().unwrap().remove("verdict");
        assert_eq!(
            chain.check(&less),
            Err(Tampering::Removed {
                path: "/verdict".into()
            })
        );
        let mut forged = chain.clone();
        forged.parts.insert("/verdict".into(), "0".repeat(64));
        assert_eq!(forged.check(&document()), Err(Tampering::Seal));
        let mut sealed = document();
        sealed[SEAL] = json!({"anything": 1});
        assert_eq!(chain.check(&sealed), Ok(()), "the seal is no part of it");
    }

    #[test]
    fn the_order_of_keys_means_nothing() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).unwrap();
        assert_eq!(Chain::of(&one), Chain::of(&two));
    }

    proptest! {
        #[test]
        fn no_other_text_passes(keys in prop::collection::vec("[a-c/~]{0,3}", 1..6), n in 0u64..9, at in 0usize..6) {
            let mut document = json!({});
            for (index, key) in keys.iter().enumerate() {
                document[key.as_str()] = json!(index);
            }
            let chain = Chain::of(&document);
            let mut other = document.clone();
            other[keys[at % keys.len()].as_str()] = json!([n]);
            prop_assert!(chain.check(&other).is_err());
        }
    }
}
