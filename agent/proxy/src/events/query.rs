//! What a client of `/events` asked for, read as the engine reads it (moby,
//! `api/server/router/system`): instants are whole seconds since 1970 with or without a fraction;
//! durations and dates are made into that by the client.

use policy::Route;

use super::event::ContainerEvent;
use super::filter::Filters;
use super::log::Past;

const NANOS: i128 = 1_000_000_000;
/// Digits of a fraction that is in nanoseconds.
const DIGITS: usize = 9;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query {
    /// Nanoseconds since 1970.
    since: Option<i128>,
    until: Option<i128>,
    filters: Filters,
}

impl Query {
    /// `None`: it is in no form that is known here.
    pub(super) fn of(route: &Route) -> Option<Self> {
        Self::parse(
            &route.param("since")?,
            &route.param("until")?,
            &route.param("filters")?,
        )
    }

    fn parse(since: &str, until: &str, filters: &str) -> Option<Self> {
        Some(Self {
            since: instant(since)?,
            until: instant(until)?,
            filters: Filters::parse(filters)?,
        })
    }

    /// The engine tells its past as soon as one end of the time is given.
    pub(super) fn past(&self) -> Past {
        if self.since.is_some() || self.until.is_some() {
            Past::Wanted
        } else {
            Past::Unwanted
        }
    }

    /// Whether an event of the past is wanted.
    pub(super) fn takes_past(&self, event: &ContainerEvent) -> bool {
        let time = i128::from(event.time_ns);
        let after = self.since.is_none_or(|since| time >= since);
        // to the engine an end at 0 is none
        let before = self.until.is_none_or(|until| until <= 0 || time <= until);
        after && before && self.takes(event)
    }

    /// Whether an event that happens now is wanted: the engine itself ends the stream in time.
    pub(super) fn takes(&self, event: &ContainerEvent) -> bool {
        self.filters.take(event)
    }
}

/// Nanoseconds since 1970; the engine takes -1 for "not given" (`Some(None)`). `None`: not readable.
fn instant(text: &str) -> Option<Option<i128>> {
    if text.is_empty() {
        return Some(None);
    }
    let (seconds, fraction) = match text.split_once('.') {
        Some((seconds, fraction)) => (seconds, nanos(fraction)?),
        None => (text, 0),
    };
    let seconds: i64 = seconds.parse().ok()?;
    if seconds == -1 {
        return Some(None);
    }
    Some(Some(i128::from(seconds) * NANOS + fraction))
}

fn nanos(fraction: &str) -> Option<i128> {
    let value: i64 = fraction.parse().ok()?;
    let power = |digits: usize| 10_i128.checked_pow(u32::try_from(digits).ok()?);
    let value = i128::from(value);
    match DIGITS.checked_sub(fraction.len()) {
        Some(missing) => Some(value * power(missing)?),
        None => Some(value / power(fraction.len() - DIGITS)?),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Role, route};

    use super::super::event::tests::verdict;
    use super::*;

    #[test]
    fn instants_are_read_as_the_engine_reads_them() {
        for (text, read) in [
            ("", Some(None)),
            ("-1", Some(None)),
            ("0", Some(Some(0))),
            ("12", Some(Some(12_000_000_000))),
            ("12.5", Some(Some(12_500_000_000))),
            ("12.000000005", Some(Some(12_000_000_005))),
            ("12.0000000059", Some(Some(12_000_000_005))),
            ("-5", Some(Some(-5_000_000_000))),
            // the client makes these into the above; the engine answers "invalid syntax"
            ("10m", None),
            ("2024-01-02T00:00:00Z", None),
            ("2.5.3", None),
            ("5.", None),
            (".5", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(instant(text), read, "{text}");
        }
    }

    #[test]
    fn past_events_have_their_time_and_new_ones_do_not() {
        for (since, until, taken) in [
            ("5", "", true),
            ("5.000000001", "", false),
            ("", "5", true),
            ("", "4.999999999", false),
            ("4", "6", true),
            // as measured on an engine
            ("", "0", true),
        ] {
            let query = Query::parse(since, until, "").unwrap();
            assert_eq!(query.past(), Past::Wanted);
            let event = verdict(5_000_000_000);
            assert_eq!(query.takes_past(&event), taken, "{since} to {until}");
            assert!(query.takes(&event));
        }
        assert_eq!(Query::default().past(), Past::Unwanted);
    }

    #[test]
    fn a_request_as_the_client_writes_it() {
        let target = "/v1.45/events?filters=%7B%22event%22%3A%7B%22stillmetal.verdict%22%3Atrue%7D%7D&since=1795258889.000000001";
        let query = Query::of(&route(Role::User, "GET", target).unwrap()).unwrap();
        assert_eq!(query.since, Some(1_795_258_889_000_000_001));
        assert_eq!(query.until, None);
        assert!(query.takes(&verdict(1)));
        assert_ne!(query.filters, Filters::default());
        for unread in ["since=10m", "filters=%7B", "until=%FF"] {
            let route = route(Role::User, "GET", &format!("/events?{unread}")).unwrap();
            assert_eq!(Query::of(&route), None, "{unread}");
        }
    }
}
