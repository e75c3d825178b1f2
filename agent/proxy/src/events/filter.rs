//! `filters` of `/events`, with the engine's own rules (moby, `daemon/events/filter.go`): each key
//! must hold, and one of its values; of labels, all.

use std::collections::BTreeMap;

use super::event::{ContainerEvent, SCOPE, TYPE};

/// Values by key, as the API writes them: `{"event":{"die":true}}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Filters(BTreeMap<String, BTreeMap<String, bool>>);

impl Filters {
    /// `None`: not readable. Old clients write lists: `{"event":["die"]}`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        if let Ok(sets) = serde_json::from_str(text) {
            return Some(Self(sets));
        }
        let lists: BTreeMap<String, Vec<String>> = serde_json::from_str(text).ok()?;
        let set = |values: Vec<String>| values.into_iter().map(|value| (value, true)).collect();
        let sets = lists.into_iter().map(|(key, values)| (key, set(values)));
        Some(Self(sets.collect()))
    }

    pub(super) fn take(&self, event: &ContainerEvent) -> bool {
        self.0
            .iter()
            .filter(|(_, values)| !values.is_empty())
            .all(|(key, values)| takes(key, values, event))
    }
}

fn takes(key: &str, values: &BTreeMap<String, bool>, event: &ContainerEvent) -> bool {
    let is = |text: &str| values.get(text) == Some(&true);
    let begins = |text: &str| values.keys().any(|value| text.starts_with(value.as_str()));
    match key {
        "type" => is(TYPE),
        "scope" => is(SCOPE),
        // as `event=health_status` is enough for `health_status: healthy`
        "event" => is(&event.action) || is(event.kind()),
        "container" => begins(&event.container_id) || begins(event.attribute("name")),
        "image" => {
            let image = event.attribute("image");
            is(&event.container_id) || is(image) || is(repository(image))
        }
        "label" => values.keys().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => event.attributes.get(name).is_some_and(|has| has == value),
            None => event.attributes.contains_key(wanted),
        }),
        // network, volume, daemon …: events of other things
        _ => false,
    }
}

/// An image's name without tag, digest and what Docker Hub's names begin with.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let image = match image.rsplit_once(':') {
        // a port is no tag
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    };
    let image = image
        .strip_prefix("docker.io/")
        .or_else(|| image.strip_prefix("index.docker.io/"))
        .unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image)
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::verdict;
    use super::*;

    #[test]
    fn each_key_must_hold_and_one_of_its_values() {
        for (filters, taken) in [
            ("", true),
            ("{}", true),
            (r#"{"event":{}}"#, true),
            (r#"{"type":{"container":true}}"#, true),
            (r#"{"type":{"image":true}}"#, false),
            (r#"{"type":{"container":false}}"#, false),
            (r#"{"type":{"image":true,"container":true}}"#, true),
            (r#"{"type":["container"]}"#, true),
            (r#"{"scope":["local"]}"#, true),
            (r#"{"scope":["swarm"]}"#, false),
            (r#"{"event":["stillmetal.verdict"]}"#, true),
            (r#"{"event":["stillmetal.verdict: quiet"]}"#, true),
            (r#"{"event":["stillmetal.verdict: noisy"]}"#, false),
            (r#"{"event":["stillmetal"]}"#, false),
            (r#"{"event":["die","stillmetal.verdict"]}"#, true),
            (r#"{"event":["die"]}"#, false),
            (r#"{"container":["66859"]}"#, true),
            (r#"{"container":["jo"]}"#, true),
            (r#"{"container":["job2"]}"#, false),
            (r#"{"image":["busybox:1"]}"#, true),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"image":["busy"]}"#, false),
            (r#"{"image":["busybox:2"]}"#, false),
            (r#"{"label":["team"]}"#, true),
            (r#"{"label":["team=a=b","verdict=quiet"]}"#, true),
            (r#"{"label":["team=a=b","verdict=noisy"]}"#, false),
            (r#"{"label":["owner"]}"#, false),
            (r#"{"network":["job"]}"#, false),
            (r#"{"volume":["job"]}"#, false),
            (r#"{"daemon":["job"]}"#, false),
            (r#"{"container":["job"],"event":["die"]}"#, false),
        ] {
            let read = Filters::parse(filters).unwrap();
            assert_eq!(read.take(&verdict(0)), taken, "{filters}");
        }
        for unread in ["{", "[]", r#"{"event":"die"}"#] {
            assert_eq!(Filters::parse(unread), None, "{unread}");
        }
    }

    #[test]
    fn an_image_without_its_tag() {
        for (image, name) in [
            ("busybox", "busybox"),
            ("busybox:1.36", "busybox"),
            ("docker.io/library/busybox:1", "busybox"),
            ("me/tool:1@sha256:ab", "me/tool"),
            ("lab:5000/tool", "lab:5000/tool"),
            ("lab:5000/tool:2", "lab:5000/tool"),
        ] {
            assert_eq!(repository(image), name);
        }
    }
}
