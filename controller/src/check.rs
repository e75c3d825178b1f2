//! What a request may say, as far as the controller's state does not matter.
//!
//! Pure: the bounds here are those of the OpenAPI document (`api`'s schemas), and a test compares the
//! two. Each refusal names the field as a JSON pointer, and what to write instead.

use std::collections::BTreeMap;
use std::io::{self, Write};

use api::booking::BookingRequest;
use api::fleet::{EnrolRequest, NodeChange, TokenRequest};
use api::health::HealthCheck;
use api::job::{JobLimits, JobRequest, Measure, OnLoss, Place};
use api::queue::QueueSettings;
use policy::Role;

use crate::refusal::{Kind, Refusal};

/// Longest request of one job, as compact JSON, bytes: it has to fit into a frame to its node.
pub const REQUEST_BYTES: usize = 256 * 1024;
/// Jobs of one submission.
pub const BATCH: usize = 10_000;

/// Longest argument, and value of a variable, in characters.
const TEXT: usize = 32_000;
const ARGUMENTS: usize = 4096;
const VARIABLES: usize = 1000;
const LABELS: usize = 64;
const DEVICES: usize = 64;
const YEAR: u64 = 31_536_000;

type Checked = Result<(), Refusal>;

fn bad(at: String, detail: impl Into<String>, next: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Invalid, detail).at(at).next(next)
}

/// A job. `at` is the JSON pointer of the request itself: empty, or `/3` in a batch.
///
/// # Errors
/// [`Kind::Invalid`]; [`Kind::Forbidden`] for what only an admin may ask.
pub fn job(request: &JobRequest, role: Role, at: &str) -> Checked {
    if let Some(name) = &request.name {
        plain(&format!("{at}/name"), name, 1, 200)?;
    }
    queue_name(&format!("{at}/queue"), &request.queue)?;
    program(request, role, at)?;
    environment(&request.env, at)?;
    place(&request.place, at)?;
    measure(&request.measure, role, at)?;
    limits(&request.limits, at)?;
    outputs(request, at)?;
    if let OnLoss::Requeue { attempts } = request.on_loss {
        within(&format!("{at}/on_loss/attempts"), attempts, 1, 100)?;
    }
    let bytes = json_bytes(request);
    if bytes > REQUEST_BYTES {
        return Err(bad(
            format!("{at}/"),
            format!("the request has {bytes} bytes as JSON, and {REQUEST_BYTES} are the limit"),
            "put large inputs into the image, not into arguments or variables",
        ));
    }
    Ok(())
}

/// Image or command, and arguments.
fn program(request: &JobRequest, role: Role, at: &str) -> Checked {
    match (&request.image, &request.command) {
        (None, None) => {
            return Err(bad(
                format!("{at}/image"),
                "neither `image` nor `command` is given",
                "name the image to run, such as \"bench/nginx:1.27\"",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(bad(
                format!("{at}/command"),
                "`image` and `command` exclude each other",
                "leave one of them out: a container, or a program of the node itself",
            ));
        }
        (Some(image), None) => image_name(&format!("{at}/image"), image)?,
        (None, Some(command)) => {
            if role != Role::Admin {
                return Err(Refusal::new(
                    Kind::Forbidden,
                    "a program of the node itself runs with role admin only",
                )
                .at(format!("{at}/command"))
                .next("put the program into an image, or use an admin's certificate"));
            }
            node_program(command, at)?;
            if !request.argv.is_empty() {
                return Err(bad(
                    format!("{at}/argv"),
                    "`argv` belongs to an image",
                    "put the arguments behind the program in `command`",
                ));
            }
        }
    }
    texts(&format!("{at}/argv"), &request.argv, ARGUMENTS)
}

fn node_program(command: &[String], at: &str) -> Checked {
    let at = format!("{at}/command");
    let Some(program) = command.first() else {
        return Err(bad(
            at,
            "`command` is empty",
            "name the program by its absolute path, then its arguments",
        ));
    };
    if !program.starts_with('/') || program.chars().count() > 4096 {
        return Err(bad(
            format!("{at}/0"),
            "not an absolute path of at most 4096 characters",
            "name the program by its absolute path: a node has no shell and no PATH",
        ));
    }
    texts(&at, command, ARGUMENTS)
}

fn image_name(at: &str, name: &str) -> Checked {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:@+-".contains(&byte);
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !begins || name.len() > 512 || !name.bytes().all(known) {
        return Err(bad(
            at.into(),
            "not the name of an image: 1 to 512 letters, digits and `._/:@+-`, beginning with a letter or digit",
            "write it as REPOSITORY:TAG, REPOSITORY@sha256:DIGEST or sha256:DIGEST",
        ));
    }
    Ok(())
}

/// The name of a queue.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn queue_name(at: &str, name: &str) -> Checked {
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let known = |b: u8| first(b) || b"._-".contains(&b);
    if name.len() > 64 || !name.bytes().next().is_some_and(first) || !name.bytes().all(known) {
        return Err(bad(
            at.into(),
            "not the name of a queue: 1 to 64 lower-case letters, digits and `._-`, beginning with a letter or digit",
            "GET /v1/queues lists the queues that there are",
        ));
    }
    Ok(())
}

fn environment(env: &BTreeMap<String, String>, at: &str) -> Checked {
    let at = format!("{at}/env");
    most(&at, env.len(), VARIABLES, "variables")?;
    for (name, value) in env {
        let at = format!("{at}/{}", escaped(name));
        let known = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
        if name.is_empty() || name.len() > 256 || !name.bytes().all(known) {
            return Err(bad(
                at,
                "not the name of a variable: 1 to 256 printable characters without space and `=`",
                "write NAME and value as the object's key and value",
            ));
        }
        text(&at, value)?;
    }
    Ok(())
}

fn place(place: &Place, at: &str) -> Checked {
    let at = format!("{at}/place");
    within(&format!("{at}/nodes"), place.nodes, 1, 4096)?;
    within(&format!("{at}/cpus"), place.cpus, 1, 4096)?;
    if let Some(bytes) = place.memory_bytes {
        within(&format!("{at}/memory_bytes"), bytes, 6 << 20, 1 << 50)?;
    }
    if let Some(glob) = &place.node {
        plain(&format!("{at}/node"), glob, 1, 256)?;
    }
    if let Some(glob) = &place.class {
        plain(&format!("{at}/class"), glob, 1, 256)?;
    }
    labels(&place.labels, &at)?;
    let at = format!("{at}/devices");
    most(&at, place.devices.len(), DEVICES, "devices")?;
    for (index, glob) in place.devices.iter().enumerate() {
        plain(&format!("{at}/{index}"), glob, 1, 256)?;
    }
    Ok(())
}

fn labels(labels: &BTreeMap<String, String>, at: &str) -> Checked {
    let at = format!("{at}/labels");
    most(&at, labels.len(), LABELS, "labels")?;
    for (name, value) in labels {
        let at = format!("{at}/{}", escaped(name));
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
        let begins = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if !begins || name.len() > 128 || !name.bytes().all(known) {
            return Err(bad(
                at,
                "not the name of a label: 1 to 128 letters, digits and `._/-`, beginning with a letter or digit",
                "such as \"nic\": \"100g\"",
            ));
        }
        plain(&at, value, 0, 256)?;
    }
    Ok(())
}

fn measure(measure: &Measure, role: Role, at: &str) -> Checked {
    let at = format!("{at}/measure");
    within(&format!("{at}/repetitions"), measure.repetitions, 1, 1000)?;
    within(&format!("{at}/warmups"), measure.warmups, 0, 100)?;
    within(&format!("{at}/attempts"), measure.attempts, 1, 20)?;
    within(
        &format!("{at}/canary_seconds"),
        measure.canary_seconds,
        0,
        3600,
    )?;
    if let Some(nice) = measure.nice {
        within(&format!("{at}/nice"), nice, -20, 19)?;
    }
    if let Some(fifo) = measure.fifo {
        let at = format!("{at}/fifo");
        within(&at, fifo, 1, 99)?;
        if measure.nice.is_some() {
            return Err(bad(
                at,
                "`fifo` and `nice` exclude each other: SCHED_FIFO knows no nice value",
                "leave one of them out",
            ));
        }
        if role != Role::Admin {
            return Err(
                Refusal::new(Kind::Forbidden, "SCHED_FIFO is for role admin only")
                    .at(at)
                    .next("leave `fifo` out: jobs have their CPUs for themselves anyway"),
            );
        }
    }
    Ok(())
}

fn limits(limits: &JobLimits, at: &str) -> Checked {
    let at = format!("{at}/limits");
    let all = [
        ("run_seconds", Some(limits.run_seconds)),
        ("total_seconds", limits.total_seconds),
        ("output_seconds", limits.output_seconds),
        ("queued_seconds", limits.queued_seconds),
    ];
    for (name, seconds) in all {
        if let Some(seconds) = seconds {
            within(&format!("{at}/{name}"), u64::from(seconds), 1, YEAR)?;
        }
    }
    Ok(())
}

/// Metrics, artifacts and tools, by the rules of whoever takes them.
fn outputs(request: &JobRequest, at: &str) -> Checked {
    let fault = |field: &str, fault: metric::Fault| {
        bad(format!("{at}/{field}{}", fault.at), fault.why, fault.next)
    };
    metric::extractors(&request.metrics).map_err(|wrong| fault("metrics", wrong))?;
    metric::artifacts(&request.artifacts).map_err(|wrong| fault("artifacts", wrong))?;
    let wrong = collect::asked(&request.tools).err();
    if let Some(collect::Fault {
        at: below,
        why,
        next,
    }) = wrong
    {
        return Err(bad(format!("{at}/tools{below}"), why, next));
    }
    if request.command.is_some() && !request.artifacts.is_empty() {
        return Err(bad(
            format!("{at}/artifacts"),
            "`artifacts` belong to an image: a program of the node leaves its files on the node",
            "put the program into an image, or have it write what you need to stdout",
        ));
    }
    Ok(())
}

/// A queue's settings.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn queue(settings: &QueueSettings) -> Checked {
    within("/priority", settings.priority, -1_000_000, 1_000_000)?;
    within("/capacity", settings.capacity, 0, 10_000_000)?;
    within("/limit_seconds", settings.limit_seconds, 1, YEAR)?;
    if let Some(users) = &settings.users {
        most("/users", users.len(), 10_000, "users")?;
        for (index, user) in users.iter().enumerate() {
            plain(&format!("/users/{index}"), user, 1, 256)?;
        }
    }
    Ok(())
}

/// A wish for nodes.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn booking(request: &BookingRequest) -> Checked {
    for (field, names, least) in [("nodes", &request.nodes, 1), ("users", &request.users, 0)] {
        let at = format!("/{field}");
        within(&at, names.len(), least, 1000)?;
        for (index, name) in names.iter().enumerate() {
            plain(&format!("{at}/{index}"), name, 1, 256)?;
        }
    }
    within("/in_seconds", request.in_seconds, 0, YEAR)?;
    within("/for_seconds", request.for_seconds, 1, YEAR)
}

/// A health check.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn health(check: &HealthCheck, role: Role) -> Checked {
    within("/every_seconds", check.every_seconds, 60, YEAR)?;
    job(&check.job, role, "/job")
}

/// What an operator wants of a node.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn node_change(change: &NodeChange) -> Checked {
    labels(&change.labels, "")
}

/// A wish for a token.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn token(request: &TokenRequest) -> Checked {
    within("/valid_seconds", request.valid_seconds, 1, 2_592_000)?;
    match &request.machine {
        Some(machine) => hexadecimal("/machine", machine, b":-"),
        None => Ok(()),
    }
}

/// What a machine that nobody knows says of itself.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn enrolment(request: &EnrolRequest) -> Checked {
    let csr = request.csr_pem.chars().count();
    if !(1..=16_384).contains(&csr) {
        return Err(bad(
            "/csr_pem".into(),
            format!("{csr} characters: 1 to 16384 are allowed"),
            "send one PKCS#10 request as PEM",
        ));
    }
    if let Some(token) = &request.token {
        let known = token.bytes().all(|b| b.is_ascii_graphic());
        if token.is_empty() || token.len() > 512 || !known {
            return Err(bad(
                "/token".into(),
                "not a token: 1 to 512 printable characters without space",
                "write it as `still token create` printed it",
            ));
        }
    }
    let machine = &request.machine;
    plain("/machine/hostname", &machine.hostname, 0, 255)?;
    if let Some(uuid) = &machine.uuid {
        hexadecimal("/machine/uuid", uuid, b"-")?;
    }
    if let Some(boot) = &machine.boot_id {
        hexadecimal("/machine/boot_id", boot, b"-")?;
    }
    most("/machine/macs", machine.macs.len(), 64, "addresses")?;
    for (index, mac) in machine.macs.iter().enumerate() {
        let parts = mac.split(':').map(|part| {
            let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            part.len() == 2 && part.bytes().all(digit)
        });
        let parts: Vec<bool> = parts.collect();
        if parts.len() != 6 || parts.contains(&false) {
            return Err(bad(
                format!("/machine/macs/{index}"),
                "not a MAC address in lower case with colons",
                "such as 52:54:00:12:34:56",
            ));
        }
    }
    Ok(())
}

/// Lower-case hexadecimal digits and what joins them.
fn hexadecimal(at: &str, text: &str, joints: &[u8]) -> Checked {
    let known = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f') || joints.contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(known) {
        return Err(bad(
            at.into(),
            "not 1 to 64 lower-case hexadecimal digits and their separators",
            "write it in lower case, as the machine's firmware or `ip link` says it",
        ));
    }
    Ok(())
}

fn within<T: PartialOrd + std::fmt::Display>(at: &str, number: T, least: T, last: T) -> Checked {
    if number < least || number > last {
        return Err(bad(
            at.into(),
            format!("{number} is not between {least} and {last}"),
            format!("give {least} to {last}"),
        ));
    }
    Ok(())
}

fn most(at: &str, count: usize, limit: usize, what: &str) -> Checked {
    if count > limit {
        return Err(bad(
            at.into(),
            format!("{count} {what}, and {limit} are the limit"),
            format!("give at most {limit}"),
        ));
    }
    Ok(())
}

/// Text for people and globs: no control characters.
fn plain(at: &str, text: &str, least: usize, longest: usize) -> Checked {
    let count = text.chars().count();
    if count < least || count > longest {
        return Err(bad(
            at.into(),
            format!("{count} characters: {least} to {longest} are allowed"),
            "shorten it, or leave the field out",
        ));
    }
    if text.chars().any(|c| c < ' ' || c == '\u{7f}') {
        return Err(bad(
            at.into(),
            "control characters are not allowed",
            "write it on one line",
        ));
    }
    Ok(())
}

/// Text for programs: anything but NUL.
fn text(at: &str, text: &str) -> Checked {
    let count = text.chars().count();
    if count > TEXT {
        return Err(bad(
            at.into(),
            format!("{count} characters: {TEXT} are the limit"),
            "put large inputs into the image",
        ));
    }
    if text.contains('\0') {
        return Err(bad(
            at.into(),
            "a NUL character cannot be handed to a program",
            "leave it out",
        ));
    }
    Ok(())
}

fn texts(at: &str, list: &[String], limit: usize) -> Checked {
    most(at, list.len(), limit, "arguments")?;
    for (index, item) in list.iter().enumerate() {
        text(&format!("{at}/{index}"), item)?;
    }
    Ok(())
}

/// A key as part of a JSON pointer (RFC 6901).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// How long it is as compact JSON.
fn json_bytes(request: &JobRequest) -> usize {
    #[derive(Debug)]
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, request) {
        Ok(()) => count.0,
        // its keys are strings and the writer takes everything; if not, it is not to be stored either
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests;
