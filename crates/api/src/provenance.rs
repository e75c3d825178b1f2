//! What a part's `provenance.json` must say. The node writes it, whoever hands a result on refuses it
//! if a field is missing.

use serde_json::Value;

/// The document's name.
pub const DOCUMENT: &str = "provenance.json";
/// Changes with every change of meaning.
pub const SCHEMA: &str = "stillmetal-provenance/1";
/// What a value begins with that could not be had; the reason follows. It says what is not known, so
/// the field is there.
pub const NOT_OBSERVABLE: &str = "not observable: ";
/// Of a job that ran an image, and of one that ran a program of the node: one of the two is there.
pub const IMAGE: &str = "image";
/// See [`IMAGE`].
pub const COMMAND: &str = "command";
/// Fields of every job.
pub const REQUIRED: [&str; 17] = [
    "schema",
    "job",
    "cpus",
    "hostname",
    "boot_id",
    "kernel",
    "kernel_build",
    "cmdline",
    "virtual_machine",
    "processor",
    "mitigations",
    "firmware",
    "memory_bytes",
    "tuning",
    "agent_version",
    "engine_versions",
    "manifest",
];

/// The required fields that are not there or null: all of them if it is no object.
#[must_use]
pub fn missing(provenance: &Value) -> Vec<String> {
    let is_there = |name: &str| provenance.get(name).is_some_and(|value| !value.is_null());
    let fields = REQUIRED.iter().filter(|name| !is_there(name));
    let mut missing: Vec<String> = fields.map(|name| (*name).to_owned()).collect();
    if !is_there(IMAGE) && !is_there(COMMAND) {
        missing.push(format!("{IMAGE} or {COMMAND}"));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whole() -> Value {
        let mut all = json!({ IMAGE: { "name": "x" } });
        for name in REQUIRED {
            all[name] = json!(name);
        }
        all["virtual_machine"] = json!(false);
        all["memory_bytes"] = json!(0);
        all
    }

    #[test]
    fn each_missing_field_is_named() {
        assert_eq!(missing(&whole()), Vec::<String>::new());
        for name in REQUIRED {
            for nothing in [None, Some(Value::Null)] {
                let mut some = whole();
                match nothing {
                    Some(nothing) => some[name] = nothing,
                    None => drop(some.as_object_mut().unwrap().remove(name)),
                }
                assert_eq!(missing(&some), [name]);
            }
        }
        let mut nothing_ran = whole();
        nothing_ran.as_object_mut().unwrap().remove(IMAGE);
        assert_eq!(missing(&nothing_ran), ["image or command"]);
        nothing_ran[COMMAND] = json!(["/bin/true"]);
        assert_eq!(missing(&nothing_ran), Vec::<String>::new());
        for other in [json!([]), json!("x"), Value::Null] {
            assert_eq!(missing(&other).len(), REQUIRED.len() + 1);
        }
    }

    #[test]
    fn what_could_not_be_observed_is_not_missing() {
        let mut some = whole();
        some["firmware"] = json!(format!("{NOT_OBSERVABLE}no DMI here"));
        assert_eq!(missing(&some), Vec::<String>::new());
    }
}
