//! `POST /containers/{id}/update`: memory, weights and restart policy may change, CPUs may not.

use crate::denial::Denial;
use crate::schema::{Read, check_struct};
use crate::{Checked, Role, hostconfig, json, tables};

pub(crate) const MAX_BYTES: usize = 64 << 10;

pub(crate) fn check(role: Role, body: &[u8]) -> Result<Checked, Denial> {
    let mut body = json::read_object(body, MAX_BYTES)?;
    check_struct(&mut body, tables::UPDATE, "")?;
    if let Some(config) = body.as_object() {
        hostconfig::resources_for_everybody(config)?;
        for key in ["CpusetCpus", "CpusetMems"] {
            if !config.text(key).is_empty() {
                return Err(Denial::malformed(format!(
                    "changing {key} of a container is refused: its CPUs were placed when it was created; remove it and create it with the CPUs wanted"
                )));
            }
        }
        if role == Role::User {
            hostconfig::user(config)?;
        }
    }
    Ok(Checked {
        body,
        placement: None,
        subjects: Vec::new(),
        volumes: Vec::new(),
    })
}
