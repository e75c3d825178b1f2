//! Schemas that cannot be derived: maps with rules for their keys, and types of other packages.

use quiet::{JobClass, TickMode, Verdict};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ArrayItems, Object, ObjectBuilder, OneOfBuilder, Schema,
    SchemaType, Type,
};

/// Longest argument, and value of a variable, in characters: with four bytes each it is still below
/// the kernel's limit for one string.
const TEXT: usize = 32_000;
/// No NUL: a C string cannot hold it.
const NO_NUL: &str = r"^[^\u0000]*$";
/// No control characters.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f]*$";

fn text(longest: usize, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(longest))
        .pattern(Some(pattern))
}

fn map(keys: ObjectBuilder, values: ObjectBuilder, most: usize) -> Schema {
    let mut object = Object::new();
    object.property_names = Some(Box::new(Schema::Object(keys.build())));
    object.additional_properties = Some(Box::new(AdditionalProperties::RefOr(
        Schema::Object(values.build()).into(),
    )));
    object.max_properties = Some(most);
    object.default = Some(Value::Object(serde_json::Map::new()));
    Schema::Object(object)
}

fn list(items: ObjectBuilder, most: usize) -> ArrayBuilder {
    ArrayBuilder::new()
        .items(ArrayItems::RefOrSchema(Box::new(
            Schema::Object(items.build()).into(),
        )))
        .max_items(Some(most))
}

/// The values as they are written in JSON.
fn one_of<T: Serialize>(values: impl IntoIterator<Item = T>) -> ObjectBuilder {
    let names = values
        .into_iter()
        .map(|value| serde_json::to_value(value).unwrap_or(Value::Null));
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
}

fn or_null(builder: ObjectBuilder) -> Schema {
    let mut object = builder.build();
    object.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    if let Some(values) = &mut object.enum_values {
        values.push(Value::Null);
    }
    Schema::Object(object)
}

/// Absolute, without empty parts, `.` and `..`.
const PLAIN_PATH: &str = r"^(/([^/.\u0000][^/\u0000]*|\.[^/.\u0000][^/\u0000]*|\.\.[^/\u0000]+))+$";

pub(crate) fn arguments() -> Schema {
    let items = list(text(TEXT, NO_NUL), 4096);
    items
        .description(Some(
            "Arguments of the image's entrypoint, or program and arguments without one.",
        ))
        .default(Some(Value::Array(Vec::new())))
        .build()
        .into()
}

pub(crate) fn command() -> Schema {
    let program = text(4096, r"^/[^\u0000]*$");
    let list = list(text(TEXT, NO_NUL), 4096)
        .prefix_items([Schema::Object(program.build())])
        .min_items(Some(1));
    let mut list = list.build();
    list.description = Some(
        "A program of the node (absolute path) and its arguments, without a container. Role admin only."
            .into(),
    );
    list.schema_type = SchemaType::from_iter([Type::Array, Type::Null]);
    list.into()
}

pub(crate) fn environment() -> Schema {
    map(
        text(256, "^[!-<>-~]+$").min_length(Some(1)),
        text(TEXT, NO_NUL),
        1000,
    )
}

pub(crate) fn labels() -> Schema {
    let keys = text(128, "^[A-Za-z0-9][A-Za-z0-9._/-]*$");
    map(keys, text(256, PLAIN), 64)
}

pub(crate) fn devices() -> Schema {
    let items = list(text(256, PLAIN).min_length(Some(1)), 64);
    items
        .description(Some("Globs; each is given one device of the node."))
        .default(Some(Value::Array(Vec::new())))
        .build()
        .into()
}

pub(crate) fn artifacts() -> Schema {
    let items = list(text(4095, PLAIN_PATH), crate::metric::ARTIFACTS);
    items
        .description(Some(
            "Files and folders of the container, by absolute path without `..`, that are kept of each run as \
             documents `artifacts/RUN/…`.",
        ))
        .default(Some(Value::Array(Vec::new())))
        .build()
        .into()
}

pub(crate) fn tools() -> Schema {
    let word = text(512, crate::tool::PATTERN);
    let items = list(word, crate::tool::TOOLS);
    items
        .description(Some(
            "What looks at each run while it is measured: tools (`cpu`, `interrupts`, `memory`, `disk`, \
             `network`, `frequency`, `temperature`, `energy`, `perf`), with an interval (`cpu:500ms`) or events \
             (`perf:cycles,instructions`); `energy?` goes on without it; sets of optional ones (`light`, \
             `medium`, `all`). Each tool once. Series are documents `tools/RUN/…`.",
        ))
        .default(Some(Value::Array(Vec::new())))
        .build()
        .into()
}

/// `"stdout"`, `"stderr"` or `{"file": PATH}`.
pub(crate) fn metric_source() -> Schema {
    let streams = one_of(["stdout", "stderr"]);
    let file = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("file", Schema::Object(text(4095, PLAIN_PATH).build()))
        .required("file")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    OneOfBuilder::new()
        .item(Schema::Object(streams.build()))
        .item(Schema::Object(file.build()))
        .description(Some(
            "A stream of the run, or a file by its absolute path without `..`.",
        ))
        .default(Some(Value::String("stdout".into())))
        .build()
        .into()
}

pub(crate) fn users() -> Schema {
    let mut list = list(text(256, PLAIN).min_length(Some(1)), 10_000).build();
    list.description = Some("Who may submit; absent: everybody.".into());
    list.schema_type = SchemaType::from_iter([Type::Array, Type::Null]);
    list.into()
}

pub(crate) fn booked_nodes() -> Schema {
    let items = list(text(256, PLAIN).min_length(Some(1)), 1000).min_items(Some(1));
    items.description(Some("By id or name.")).build().into()
}

pub(crate) fn booking_users() -> Schema {
    let items = list(text(256, PLAIN).min_length(Some(1)), 1000);
    items
        .description(Some(
            "Whose jobs may run there meanwhile; empty: the caller's.",
        ))
        .default(Some(Value::Array(Vec::new())))
        .build()
        .into()
}

pub(crate) fn macs() -> Schema {
    let items = list(text(17, "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"), 64);
    items
        .description(Some("Of its network cards, lower case with colons."))
        .default(Some(Value::Array(Vec::new())))
        .build()
        .into()
}

pub(crate) fn job_class() -> Schema {
    let classes = [
        JobClass::Compute,
        JobClass::Memory,
        JobClass::Syscall,
        JobClass::Forking,
        JobClass::Io,
    ];
    let default = serde_json::to_value(JobClass::default()).ok();
    Schema::Object(one_of(classes).default(default).build())
}

pub(crate) fn tick_mode() -> Schema {
    or_null(one_of([TickMode::NohzFull, TickMode::Tick]))
}

pub(crate) fn verdict() -> Schema {
    or_null(one_of([Verdict::Quiet, Verdict::Noisy, Verdict::Unproven]))
}
