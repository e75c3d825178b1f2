//! Images that the controller keeps: `/v1/images`.

use serde::{Deserialize, Serialize};

/// An image, ready to be sent to nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageView {
    /// As it was pushed under; empty: only the digest names it.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits; jobs may name it so.
    pub digest: String,
    pub bytes: u64,
    /// Milliseconds since the epoch.
    pub pushed_ms: u64,
    /// Who pushed it, by the certificate's name.
    pub user: String,
}
