//! The one way this crate says no: a status and one line with what, why and the next step.

use std::fmt;

/// A refused request, in the shape that Docker clients print (`{"message": …}`).
///
/// Statuses: 400 malformed or impossible on a node, 403 not for this role, 404 not offered,
/// 409 the node cannot place it now, 413 too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denial {
    /// HTTP status to answer with.
    pub status: u16,
    /// What was refused, why, and what to do instead, in one line.
    pub message: String,
}

impl Denial {
    /// The answer's JSON body, the shape that every Docker client prints.
    #[must_use]
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({ "message": self.message })
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
        }
    }

    /// 403. `what` is the property, `why` what it would allow.
    pub(crate) fn role(what: impl fmt::Display, why: &str) -> Self {
        let message = format!(
            "{what} is refused for role user: {why}; leave it out, or use an admin certificate"
        );
        Self {
            status: 403,
            message,
        }
    }

    pub(crate) fn not_offered(method: &str, path: &str, why: &str) -> Self {
        let message = format!(
            "{method} {} is not offered by a Stillmetal node: {why}; see docs/api-differences.md",
            shown(path)
        );
        Self {
            status: 404,
            message,
        }
    }

    pub(crate) fn placement(message: impl Into<String>) -> Self {
        Self {
            status: 409,
            message: message.into(),
        }
    }

    pub(crate) fn too_large(what: &str, max_bytes: usize) -> Self {
        let message = format!("{what} is larger than {max_bytes} bytes: send less in one request");
        Self {
            status: 413,
            message,
        }
    }
}

/// A text of the peer made harmless for a message: quoted, escaped, at most 80 characters.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    let escaped: String = short.chars().flat_map(escape).collect();
    format!("`{escaped}`")
}

/// Control characters could alter a terminal or a log line; everything else stays readable.
fn escape(character: char) -> Vec<char> {
    if character.is_control() {
        character.escape_default().collect()
    } else {
        vec![character]
    }
}
