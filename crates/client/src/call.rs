//! One call: what is asked, how, and whether it may be asked twice.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::Serialize;

use crate::error::{Error, Strange};

/// Whether a call that may have arrived can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Only if it certainly did not arrive.
    Never,
}

/// A call with no body, or with one that is in memory.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) repeat: Repeat,
    pub(crate) body: Option<Bytes>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Until the head of the answer is there.
    pub(crate) within: Duration,
}

/// How long the controller may take to begin its answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Call {
    /// `path` is in segments, still to be encoded.
    pub(crate) fn new(method: Method, base: &Url, path: &[&str]) -> Result<Self, Error> {
        let mut url = base.clone();
        for segment in path {
            // the URL library would drop them, and another resource would be meant
            if matches!(*segment, "" | "." | "..") {
                return Err(Error::Name((*segment).to_owned()));
            }
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        let repeat = if method == Method::POST {
            Repeat::Never
        } else {
            Repeat::Safe
        };
        Ok(Self {
            method,
            url,
            repeat,
            body: None,
            headers: Vec::new(),
            within: ANSWER_WITHIN,
        })
    }

    /// Adds `?name=value` if there is a value.
    pub(crate) fn query<T: ToString>(mut self, name: &str, value: Option<T>) -> Self {
        if let Some(value) = value {
            self.url
                .query_pairs_mut()
                .append_pair(name, &value.to_string());
        }
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json<T: Serialize + ?Sized>(mut self, body: &T) -> Result<Self, Error> {
        let json = serde_json::to_vec(body).map_err(|error| Error::Protocol {
            call: self.name(),
            source: Strange::Json(error),
        })?;
        self.body = Some(json.into());
        Ok(self.header("content-type", "application/json"))
    }

    pub(crate) fn safe(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }

    pub(crate) fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// For messages: `GET /v1/jobs`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller_address;

    #[test]
    fn names_stay_in_their_segment() {
        let base = controller_address("lab").unwrap();
        let url = |path: &[&str]| Call::new(Method::GET, &base, path).map(|call| call.url);
        let made = url(&["v1", "nodes", "a/b?c#d e"]).unwrap();
        assert_eq!(made.path(), "/v1/nodes/a%2Fb%3Fc%23d%20e");
        assert_eq!(made.query(), None);
        for name in ["", ".", ".."] {
            assert!(matches!(url(&["v1", "nodes", name]), Err(Error::Name(_))));
        }
    }
}
