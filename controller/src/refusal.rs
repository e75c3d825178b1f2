//! Why the controller does not do what it was asked: one type, from which the API's problems are made.

use api::problem::Problem;

/// A request that was not carried out. Nothing has changed, unless the kind is
/// [`Kind::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub kind: Kind,
    /// Why, of this one.
    pub detail: String,
    /// The field (JSON pointer) or resource it is about.
    pub instance: Option<String>,
    /// What to do about it.
    pub next: Option<String>,
}

/// What sort of refusal. Each has one HTTP status and one stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request makes no sense.
    Invalid,
    /// Not with this certificate.
    Forbidden,
    /// Without a certificate.
    Unauthenticated,
    NoSuchJob,
    NoSuchNode,
    NoSuchQueue,
    NoSuchBooking,
    NoSuchToken,
    NoSuchImage,
    NoSuchDocument,
    NoSuchRoute,
    WrongMethod,
    /// The queue takes no more, or nothing at all.
    QueueFull,
    QueueDraining,
    /// Another state than the request needs.
    Conflict,
    /// The same idempotency key with another request.
    KeyReused,
    TooLarge,
    /// As much as may be is under way already.
    Busy,
    /// The node is not connected.
    NodeOffline,
    /// The node did something else than answer.
    NodeFailed,
    /// No answer in time.
    Deadline,
    /// The store takes nothing at the moment; nothing was changed.
    StoreUnavailable,
    /// The store's disk is full; nothing was changed.
    StoreFull,
    /// It may or may not have been carried out: ask again with the same idempotency key.
    Unknown,
    /// A fault of this program.
    Internal,
}

impl Kind {
    /// HTTP status, stable name, and title.
    #[must_use]
    pub fn facts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Invalid => (400, "invalid", "the request is not valid"),
            Self::Unauthenticated => (401, "unauthenticated", "a client certificate is needed"),
            Self::Forbidden => (403, "forbidden", "not with this role"),
            Self::NoSuchJob => (404, "no-such-job", "there is no such job"),
            Self::NoSuchNode => (404, "no-such-node", "there is no such node"),
            Self::NoSuchQueue => (404, "no-such-queue", "there is no such queue"),
            Self::NoSuchBooking => (404, "no-such-booking", "there is no such booking"),
            Self::NoSuchToken => (404, "no-such-token", "there is no such token"),
            Self::NoSuchImage => (404, "no-such-image", "there is no such image"),
            Self::NoSuchDocument => (404, "no-such-document", "there is no such document"),
            Self::NoSuchRoute => (404, "no-such-route", "there is no such resource"),
            Self::WrongMethod => (405, "wrong-method", "not offered for this resource"),
            Self::Conflict => (409, "conflict", "not in the present state"),
            Self::QueueDraining => (409, "queue-draining", "the queue takes no new jobs"),
            Self::KeyReused => (
                409,
                "key-reused",
                "the idempotency key belongs to another request",
            ),
            Self::TooLarge => (413, "too-large", "the request is too large"),
            Self::QueueFull => (429, "queue-full", "the queue is full"),
            Self::Busy => (429, "busy", "too much at once"),
            Self::Internal => (500, "internal", "a fault of the controller"),
            Self::NodeFailed => (502, "node-failed", "the node did not answer properly"),
            Self::NodeOffline => (503, "node-offline", "the node is not connected"),
            Self::StoreUnavailable => (503, "store-unavailable", "the store is not available"),
            Self::Unknown => (
                503,
                "outcome-unknown",
                "it is not known whether this was done",
            ),
            Self::Deadline => (504, "deadline", "no answer in time"),
            Self::StoreFull => (507, "store-full", "the store's disk is full"),
        }
    }
}

impl Refusal {
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            instance: None,
            next: None,
        }
    }

    #[must_use]
    pub fn at(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// As the API says it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (status, name, title) = self.kind.facts();
        Problem {
            kind: format!("stillmetal:{name}"),
            title: title.into(),
            status,
            detail: self.detail.clone(),
            instance: self.instance.clone(),
            next: self.next.clone(),
        }
    }
}
