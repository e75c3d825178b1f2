//! Bodies of exec create and start, commit, auth and push.

use serde_json::{Map, Value};

use crate::denial::Denial;
use crate::schema::{Fields, Read, check_struct};
use crate::{Checked, Role, json, tables};

pub(crate) const CREATE_MAX_BYTES: usize = 256 << 10;
/// `{Detach, Tty, ConsoleSize}`; the hijacked stream follows only after the upgrade.
pub(crate) const START_MAX_BYTES: usize = 4 << 10;
pub(crate) const COMMIT_MAX_BYTES: usize = 1 << 20;
/// Identity tokens of registries run to some KiB.
pub(crate) const AUTH_MAX_BYTES: usize = 64 << 10;

pub(crate) fn check_create(role: Role, body: &[u8]) -> Result<Checked, Denial> {
    let mut body = json::read_object(body, CREATE_MAX_BYTES)?;
    check_struct(&mut body, tables::EXEC_CREATE, "")?;
    let privileged = body.as_object().is_some_and(|exec| exec.flag("Privileged"));
    if role == Role::User && privileged {
        let why = "it gives the process every capability on the node";
        return Err(Denial::role("exec --privileged", why));
    }
    Ok(plain(body))
}

/// A body that may be absent, and may be `null` (clients encode a missing struct so).
pub(crate) fn check_optional(
    fields: Fields,
    max_bytes: usize,
    body: &[u8],
) -> Result<Checked, Denial> {
    let empty = || Value::Object(Map::new());
    let mut body = if body.is_empty() {
        empty()
    } else {
        json::read(body, max_bytes)?
    };
    if body.is_null() {
        body = empty();
    }
    check_struct(&mut body, fields, "")?;
    Ok(plain(body))
}

pub(crate) fn check_required(
    fields: Fields,
    max_bytes: usize,
    body: &[u8],
) -> Result<Checked, Denial> {
    let mut body = json::read_object(body, max_bytes)?;
    check_struct(&mut body, fields, "")?;
    Ok(plain(body))
}

pub(crate) fn plain(body: Value) -> Checked {
    Checked {
        body,
        placement: None,
        subjects: Vec::new(),
        volumes: Vec::new(),
    }
}
