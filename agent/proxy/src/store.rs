//! The image store lies in the node's memory. When it is full the engine says "no space left on
//! device", and not how much there is: that is added here.

use bytes::Bytes;
use hop::Answer;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use policy::Endpoint;

use crate::forward;
use crate::traits::{Body, StoreSpace};

/// `strerror(ENOSPC)` as Go writes it.
const FULL: &[u8] = b"no space left on device";

/// Whether a request puts an image into the store.
pub(crate) fn is_filled_by(endpoint: &Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::ImageCreate | Endpoint::ImageLoad | Endpoint::Build | Endpoint::Commit
    )
}

/// The answer as it comes, with bytes beside the engine's words. The engine writes each JSON
/// message at once, so its words are looked for in each piece alone.
pub(crate) fn explain(
    response: Response<Answer>,
    space: impl Fn() -> Option<StoreSpace> + Send + Sync + 'static,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let is_json = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        return forward::stream(Response::from_parts(parts, body));
    }
    parts.headers.remove(CONTENT_LENGTH);
    let body = body.map_frame(move |frame| frame.map_data(|data| explained(data, &space)));
    forward::stream(Response::from_parts(parts, body))
}

fn explained(data: Bytes, space: &impl Fn() -> Option<StoreSpace>) -> Bytes {
    let Some(at) = data.windows(FULL.len()).position(|words| words == FULL) else {
        return data;
    };
    let Some(StoreSpace { free, total }) = space() else {
        return data;
    };
    // inside a JSON string: nothing here needs escaping
    let more = format!(
        " (this node keeps images in memory: {total} bytes in all, {free} free now; \
         remove images with docker system prune, or give the node more memory)"
    );
    let (before, after) = data.split_at(at + FULL.len());
    [before, more.as_bytes(), after].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: fn() -> Option<StoreSpace> = || {
        Some(StoreSpace {
            free: 7,
            total: 300,
        })
    };

    #[test]
    fn the_bytes_stand_beside_the_words_in_sound_json() {
        let line = br#"{"error":"write /x: no space left on device","n":1}"#;
        let told = explained(Bytes::from_static(line), &SPACE);
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let error = told["error"].as_str().unwrap();
        assert!(
            error.starts_with("write /x: no space left on device (this node"),
            "{error}"
        );
        assert!(error.contains("300 bytes in all, 7 free now"), "{error}");
        assert_eq!(told["n"], 1);
    }

    #[test]
    fn everything_else_and_an_unknown_space_pass_unchanged() {
        let other = Bytes::from_static(b"{\"stream\":\"Loaded\"}");
        assert_eq!(explained(other.clone(), &SPACE), other);
        let full = Bytes::from_static(b"{\"error\":\"no space left on device\"}");
        assert_eq!(explained(full.clone(), &|| None), full);
    }
}
