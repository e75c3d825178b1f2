//! What each hop between a Docker client and an engine needs: the node's proxy and the controller's
//! relay are such hops.
//!
//! HTTP/1.1 is forwarded request by request, each over a connection of its own ([`ask`]), without the
//! headers that concern two neighbours only ([`headers`]). After an upgrade raw bytes are passed on,
//! and either half ends by itself ([`Hijack`]). A client's connection has a deadline for headers that
//! have begun to arrive and a longer one between requests ([`Timed`]), and somebody notices that its
//! peer has vanished ([`SocketWatch`]).
//!
//! It decides nothing: who may ask what is its users' business.

pub mod headers;

mod answer;
mod clock;
mod hijack;
mod join;
mod socket;

pub use answer::{Answer, BoxError, ask};
pub use clock::{Busy, BusyGuard, Held, Timed};
pub use hijack::{Hijack, HijackError};
pub use join::{Resets, Traffic};
pub use socket::{SocketWatch, tend};

/// A request's target without the values of its query, for logs: they may be secrets.
#[must_use]
pub fn without_values(target: &str) -> String {
    match target.split_once('?') {
        None => target.to_owned(),
        Some((path, query)) => {
            let keys: Vec<&str> = query
                .split('&')
                .map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key))
                .collect();
            format!("{path}?{}", keys.join("&"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_left_out() {
        assert_eq!(without_values("/a?t=secret&b&c=1"), "/a?t&b&c");
        assert_eq!(without_values("/a"), "/a");
    }
}
