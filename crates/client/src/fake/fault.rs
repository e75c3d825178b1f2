//! What can go wrong between a client and its controller.

use api::problem::Problem;

/// Something that happens to one call, the next whose path begins with `path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and nothing is done.
    Refuse {
        path: String,
        problem: Problem,
        retry_after_seconds: Option<u32>,
    },
    /// It is answered by something that is no controller.
    Answer {
        path: String,
        status: u16,
        body: String,
    },
    /// It is carried out, and the connection breaks before the answer.
    LoseAnswer { path: String },
    /// It is carried out, and never answered.
    Silence { path: String },
    /// The connection breaks after so many bytes of the answer's body.
    Cut { path: String, after: u64 },
}

impl Fault {
    pub(crate) fn hits(&self, called: &str) -> bool {
        let (Self::Refuse { path, .. }
        | Self::Answer { path, .. }
        | Self::LoseAnswer { path }
        | Self::Silence { path }
        | Self::Cut { path, .. }) = self;
        called.starts_with(path.as_str())
    }
}
