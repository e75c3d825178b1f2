//! Which headers pass to the engine.

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};

/// What a request may tell the engine. Length, framing and host are the proxy's own business, and
/// nothing says who the client is.
const REQUEST: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT];
const REQUEST_REGISTRY: [&str; 2] = ["x-registry-auth", "x-registry-config"];
/// Sent with `POST /session`: name, key and offered methods of a buildkit session.
const REQUEST_SESSION: &str = "x-docker-expose-session-";

/// The headers of a forwarded request.
pub(crate) fn request(from: &HeaderMap) -> HeaderMap {
    let mut to = HeaderMap::new();
    for (name, value) in from {
        let text = name.as_str();
        if REQUEST.contains(name)
            || REQUEST_REGISTRY.contains(&text)
            || text.starts_with(REQUEST_SESSION)
        {
            to.append(name, value.clone());
        }
    }
    to.insert(HOST, HeaderValue::from_static("docker"));
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_request_headers_pass() {
        let mut from = HeaderMap::new();
        for name in [
            "content-type",
            "x-registry-auth",
            "x-docker-expose-session-uuid",
            "x-forwarded-for",
            "authorization",
            "content-length",
            "connection",
            "host",
        ] {
            from.insert(name, HeaderValue::from_static("client"));
        }
        let to = request(&from);
        let mut names: Vec<&str> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-type",
                "host",
                "x-docker-expose-session-uuid",
                "x-registry-auth"
            ]
        );
        assert_eq!(to["host"], "docker");
    }
}
