//! Which headers pass.

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

/// What a request may tell the engine. Length, framing and host are the proxy's own business, and
/// nothing says who the client is.
const REQUEST: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT];
const REQUEST_REGISTRY: [&str; 2] = ["x-registry-auth", "x-registry-config"];
/// Sent with `POST /session`: name, key and offered methods of a buildkit session.
const REQUEST_SESSION: &str = "x-docker-expose-session-";

/// Meaningful between two neighbours only (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
];

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

/// Takes out of the engine's answer what concerned only the engine's connection.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Says that the connection changes to `protocol` after these headers.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
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

    #[test]
    fn hop_by_hop_answers_are_stripped_including_named_ones() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("te", "x"),
            ("server", "Docker"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_response(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["server"]);
    }
}
