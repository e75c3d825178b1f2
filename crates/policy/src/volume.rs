//! `POST /volumes/create`.

use crate::denial::Denial;
use crate::exec::check_required;
use crate::schema::Read;
use crate::{Checked, Role, mounts, tables};

pub(crate) const MAX_BYTES: usize = 64 << 10;

pub(crate) fn check_create(role: Role, body: &[u8]) -> Result<Checked, Denial> {
    let checked = check_required(tables::VOLUME_CREATE, MAX_BYTES, body)?;
    if let (Role::User, Some(volume)) = (role, checked.body.as_object()) {
        mounts::user_volume_driver(volume.text("Driver"))?;
        if let Some(options) = volume.object("DriverOpts") {
            mounts::user_volume_options(options)?;
        }
    }
    Ok(checked)
}
