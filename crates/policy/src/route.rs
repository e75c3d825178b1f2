//! Decides on method and target, and says what to do with the body.

use crate::denial::{Denial, shown};
use crate::endpoints::{OFFERS, Offer, Touch, why_not};
use crate::target::{Target, parse_query};
use crate::{BodyRule, Endpoint, Role, build, mounts};

/// Longest container, exec, network or volume id or name.
const MAX_ID_BYTES: usize = 255;
/// Longest image reference (a repository name has at most 255, plus tag and digest).
const MAX_IMAGE_BYTES: usize = 512;

/// What to do with a request, apart from its body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Route {
    /// Normalised and re-built from what was checked: forward this, not what came.
    pub target: String,
    pub endpoint: Endpoint,
    pub body: BodyRule,
    /// Containers that must pass [`crate::check_existing`] for this role first.
    pub subjects: Vec<String>,
}

impl Route {
    /// A query parameter as the engine will read it, empty without one; `None`: not UTF-8.
    #[must_use]
    pub fn param(&self, key: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        // what was rebuilt can be read
        let pairs = parse_query(query).ok()?;
        let found = pairs.into_iter().find(|(name, _)| name == key);
        found.map_or(Some(String::new()), |(_, value)| {
            String::from_utf8(value).ok()
        })
    }
}

/// Decides on a request line. `target` is path and query as received.
///
/// # Errors
/// 400 for a target that is malformed or ambiguous, 403 for what the role may not do, 404 for
/// what a node does not offer, 413 for a target that is too long.
pub fn route(role: Role, method: &str, target: &str) -> Result<Route, Denial> {
    let mut target = Target::parse(target)?;
    let found = OFFERS
        .iter()
        .filter(|offer| offer.method == method)
        .find_map(|offer| Some((offer, matches(offer.pattern, &target.segments)?)));
    let Some((offer, name)) = found else {
        let method: String = method
            .chars()
            .filter(char::is_ascii_alphabetic)
            .take(10)
            .collect();
        return Err(Denial::not_offered(
            &method,
            &target.path(),
            why_not(&target.segments),
        ));
    };
    check_name(offer, &name)?;
    check_params(offer, &mut target)?;
    let endpoint = (offer.endpoint)(&name);
    let mut subjects = Vec::new();
    if offer.touch == Touch::Container {
        subjects.push(name);
    }
    check_endpoint(role, &endpoint, &target, &mut subjects)?;
    if role == Role::Admin {
        subjects.clear();
    }
    let body = body_rule(offer, &target);
    Ok(Route {
        target: target.rebuild(),
        endpoint,
        body,
        subjects,
    })
}

/// The name that `{id}` or `{image}` stands for, "" without one; `None` if the path differs.
fn matches(pattern: &str, segments: &[String]) -> Option<String> {
    let parts: Vec<&str> = pattern.split('/').skip(1).collect();
    let Some(hole) = parts.iter().position(|part| part.starts_with('{')) else {
        return (parts == segments).then(String::new);
    };
    let after = parts.len() - hole - 1;
    let end = segments.len().checked_sub(after)?;
    let name = segments.get(hole..end)?;
    let wide = parts[hole] == "{image}";
    let fits = !name.is_empty() && (wide || name.len() == 1);
    (fits && parts[..hole] == segments[..hole] && parts[hole + 1..] == segments[end..])
        .then(|| name.join("/"))
}

fn check_name(offer: &Offer, name: &str) -> Result<(), Denial> {
    if offer.pattern.contains("{id}") {
        return check_id(name);
    }
    if name.len() > MAX_IMAGE_BYTES {
        return Err(Denial::malformed(format!(
            "image reference {} is too long",
            shown(name)
        )));
    }
    Ok(())
}

/// An id or name of a container, exec, network or volume.
pub(crate) fn check_id(id: &str) -> Result<(), Denial> {
    if !id.is_empty() && id.len() <= MAX_ID_BYTES && mounts::is_volume_name(id) {
        return Ok(());
    }
    Err(Denial::malformed(format!(
        "{} is not an id or name: letters, digits and `_.-`, beginning with a letter or digit, at most {MAX_ID_BYTES}",
        shown(id)
    )))
}

/// Only known parameters, each once unless it is a list; an unknown one that says nothing goes.
fn check_params(offer: &Offer, target: &mut Target) -> Result<(), Denial> {
    let mut seen: Vec<String> = Vec::new();
    for (key, value) in &target.query {
        let known = offer
            .params
            .iter()
            .find(|param| param.trim_end_matches('*') == key);
        match known {
            None if says_nothing(value) => {}
            None => {
                return Err(Denial::malformed(format!(
                    "parameter {} of {} {} is unknown to this node: what is not checked is not forwarded; leave it out",
                    shown(key),
                    offer.method,
                    offer.pattern
                )));
            }
            Some(param) if !param.ends_with('*') && seen.contains(key) => {
                return Err(Denial::malformed(format!(
                    "parameter {} comes twice: send it once",
                    shown(key)
                )));
            }
            Some(_) => seen.push(key.clone()),
        }
    }
    target.query.retain(|(key, _)| seen.contains(key));
    Ok(())
}

/// What the engine reads as false, in any case: docker-py sends `link=False`.
fn says_nothing(value: &[u8]) -> bool {
    [&b""[..], b"0", b"no", b"none", b"false"]
        .iter()
        .any(|no| value.eq_ignore_ascii_case(no))
}

fn check_endpoint(
    role: Role,
    endpoint: &Endpoint,
    target: &Target,
    subjects: &mut Vec<String>,
) -> Result<(), Denial> {
    match endpoint {
        Endpoint::Build => build::check(role, target),
        Endpoint::Commit => {
            let container = target.param("container")?;
            check_id(container)?;
            subjects.push(container.to_owned());
            Ok(())
        }
        Endpoint::ContainerCreate => match target.param("name")? {
            "" => Ok(()),
            name => check_id(name.strip_prefix('/').unwrap_or(name)),
        },
        _ => Ok(()),
    }
}

/// A pull has no body; only an import brings its archive.
fn body_rule(offer: &Offer, target: &Target) -> BodyRule {
    let pull = offer.pattern == "/images/create"
        && target
            .query
            .iter()
            .any(|(key, value)| key == "fromImage" && !value.is_empty());
    if pull { BodyRule::Empty } else { offer.body }
}
