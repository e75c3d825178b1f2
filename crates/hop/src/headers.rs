//! Headers that end at the next hop.

use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Meaningful between two neighbours only (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    UPGRADE,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what concerned only the connection that the message came by, including what its
/// `Connection` header names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers)
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The protocol that the connection is to change to, if the client asks for that.
#[must_use]
pub fn asked_upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    tokens(headers)
        .any(|token| token.eq_ignore_ascii_case("upgrade"))
        .then(|| headers.get(UPGRADE))?
}

/// Says that the connection changes to `protocol` after these headers.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        of.iter().copied().map(pair).collect()
    }

    #[test]
    fn hop_by_hop_headers_are_stripped_including_named_ones() {
        let mut headers = headers(&[
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("te", "x"),
            ("transfer-encoding", "chunked"),
            ("server", "Docker"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["server"]);
    }

    #[test]
    fn an_upgrade_is_asked_for_by_two_headers() {
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "tcp")]);
        assert_eq!(asked_upgrade(&both).unwrap(), "tcp");
        assert!(asked_upgrade(&headers(&[("upgrade", "tcp")])).is_none());
        assert!(asked_upgrade(&headers(&[("connection", "upgrade")])).is_none());
    }
}
