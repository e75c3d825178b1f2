//! What happens to a request's body before it is forwarded.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use policy::{BodyRule, Checked, Endpoint, Role};
use tokio::time::timeout;

use crate::respond::{Refusal, full};
use crate::service::Shared;
use crate::traits::{Body, BodyError};

/// A raw body before a hijack; the engine's API has none that is longer.
const BEFORE_HIJACK_BYTES: usize = 64 * 1024;

/// A body that may be forwarded.
pub(crate) enum Prepared {
    /// Forwarded as it comes.
    Stream(Body),
    /// Buffered, since nothing may follow it or a hijack does.
    Whole(Bytes),
    /// Judged. Only the value goes on; of the bytes received, only whether there were any counts.
    Judged(Box<Checked>, Bytes),
}

impl Prepared {
    pub(crate) fn checked(&self) -> Option<&Checked> {
        match self {
            Self::Judged(checked, _) => Some(checked),
            Self::Stream(_) | Self::Whole(_) => None,
        }
    }

    /// What the engine gets.
    pub(crate) fn into_body(self) -> Body {
        match self {
            Self::Stream(body) => body,
            Self::Whole(bytes) => full(bytes),
            // Nothing was sent, so nothing is made up.
            Self::Judged(_, bytes) if bytes.is_empty() => full(bytes),
            Self::Judged(checked, _) => full(checked.body.to_string()),
        }
    }
}

/// Applies the rule that `policy` gave for this request.
pub(crate) async fn prepare(
    shared: &Shared,
    role: Role,
    endpoint: &Endpoint,
    rule: &BodyRule,
    hijack: bool,
    body: Incoming,
) -> Result<Prepared, Refusal> {
    match rule {
        BodyRule::Empty => {
            let bytes = collect(shared, body, 1)
                .await
                .map_err(|error| match error {
                    Collect::TooLong { .. } => not_empty(),
                    other => other.into(),
                })?;
            if bytes.is_empty() {
                Ok(Prepared::Whole(bytes))
            } else {
                Err(not_empty())
            }
        }
        BodyRule::Json { max_bytes } => {
            let bytes = collect(shared, body, *max_bytes).await?;
            let facts = shared.parts.placement.facts();
            let checked = policy::check_body(role, endpoint, &facts, &bytes)?;
            Ok(Prepared::Judged(Box::new(checked), bytes))
        }
        // The engine must have the whole of it before the connection changes hands.
        BodyRule::Stream if hijack => Ok(Prepared::Whole(
            collect(shared, body, BEFORE_HIJACK_BYTES).await?,
        )),
        BodyRule::Stream => Ok(Prepared::Stream(body.map_err(BodyError::from).boxed())),
    }
}

fn not_empty() -> Refusal {
    Refusal::bad_request("this request takes no body; send it without one")
}

enum Collect {
    TooLong { limit: usize },
    Slow { seconds: u64 },
    Broken,
}

impl From<Collect> for Refusal {
    fn from(error: Collect) -> Self {
        match error {
            Collect::TooLong { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {limit} bytes, the most that this request takes"),
            ),
            Collect::Slow { seconds } => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body was not complete within {seconds} s"),
            ),
            Collect::Broken => Self::bad_request("the body broke off or is not framed correctly"),
        }
    }
}

async fn collect(shared: &Shared, body: Incoming, limit: usize) -> Result<Bytes, Collect> {
    // What is announced as too long need not be read, nor a client be told to continue.
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(Collect::TooLong { limit });
    }
    let deadline = shared.limits.body_deadline;
    match timeout(deadline, Limited::new(body, limit).collect()).await {
        Err(_) => Err(Collect::Slow {
            seconds: deadline.as_secs(),
        }),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Collect::TooLong { limit }),
        Ok(Err(_)) => Err(Collect::Broken),
    }
}
