//! One event of a container in the form of the engine's own (API 1.45, `EventMessage`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// As `Type` and `scope` of all events here.
pub(super) const TYPE: &str = "container";
pub(super) const SCOPE: &str = "local";

const NANOS: i64 = 1_000_000_000;

/// Something that the node has to tell of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// `stillmetal.verdict: quiet`, in the form of Docker's `health_status: healthy`.
    pub action: String,
    /// The container's full id.
    pub container_id: String,
    /// As the engine's: the container's labels, `image` and `name`, and what belongs to the action.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970 (CLOCK_REALTIME): the clock of the engine's `timeNano`.
    pub time_ns: i64,
}

impl ContainerEvent {
    /// What stands before the colon: clients may filter by that alone.
    pub(super) fn kind(&self) -> &str {
        self.action
            .split_once(':')
            .map_or(self.action.as_str(), |(kind, _)| kind)
    }

    /// Of the attributes, "" without it.
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The line in an event stream, with the fields in the engine's order. `status`, `id` and `from`
    /// are what clients of API 1.21 and older read; the engine still sends them.
    pub(super) fn line(&self) -> Bytes {
        let mut line = Map::new();
        line.insert("status".into(), json!(self.action));
        line.insert("id".into(), json!(self.container_id));
        let image = self.attribute("image");
        if !image.is_empty() {
            line.insert("from".into(), json!(image));
        }
        line.insert("Type".into(), json!(TYPE));
        line.insert("Action".into(), json!(self.action));
        line.insert(
            "Actor".into(),
            json!({ "ID": self.container_id, "Attributes": self.attributes }),
        );
        line.insert("scope".into(), json!(SCOPE));
        line.insert("time".into(), json!(self.time_ns.div_euclid(NANOS)));
        line.insert("timeNano".into(), json!(self.time_ns));
        format!("{}\n", Value::Object(line)).into()
    }
}

/// The `timeNano` of an engine's line.
pub(super) fn time_ns(line: &[u8]) -> Option<i64> {
    let event: Value = serde_json::from_slice(line).ok()?;
    event.get("timeNano")?.as_i64()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn verdict(time_ns: i64) -> ContainerEvent {
        let attributes = [
            ("image", "busybox:1"),
            ("name", "job"),
            ("team", "a=b"),
            ("verdict", "quiet"),
        ];
        ContainerEvent {
            action: "stillmetal.verdict: quiet".into(),
            container_id: "66859d6a8b4f".into(),
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            time_ns,
        }
    }

    #[test]
    fn a_line_has_the_engines_fields_in_the_engines_order() {
        // an event of the engine in our words
        let engine = r#"{"status":"create","id":"66859d6a8b4f","from":"job:1","Type":"container","Action":"create","Actor":{"ID":"66859d6a8b4f","Attributes":{"a":"b","image":"job:1","name":"box"}},"scope":"local","time":1795258989,"timeNano":1795258989533267607}"#;
        let attributes = [("a", "b"), ("image", "job:1"), ("name", "box")];
        let event = ContainerEvent {
            action: "create".into(),
            container_id: "66859d6a8b4f".into(),
            attributes: attributes.map(|(n, v)| (n.into(), v.into())).into(),
            time_ns: 1_795_258_989_533_267_607,
        };
        assert_eq!(event.line(), format!("{engine}\n"));
        assert_eq!(time_ns(&event.line()), Some(event.time_ns));
    }

    #[test]
    fn a_line_is_one_line_whatever_the_labels_are() {
        let mut event = verdict(-1);
        event
            .attributes
            .insert("x".into(), "two\nlines \" \u{2028}".into());
        let line = event.line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(read["Actor"]["Attributes"]["x"], "two\nlines \" \u{2028}");
        assert_eq!((&read["time"], &read["timeNano"]), (&json!(-1), &json!(-1)));
    }
}
