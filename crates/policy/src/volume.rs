//! `POST /volumes/create`.

use serde_json::Value;

use crate::denial::{Denial, shown};
use crate::exec::check_required;
use crate::schema::Read;
use crate::{Checked, Role, mounts, tables};

pub(crate) const MAX_BYTES: usize = 64 << 10;

/// Whether `role` may use the volume of this inspect answer (`GET /volumes/{name}`): only one that
/// the user could have made.
///
/// # Errors
/// 403 naming the driver or option.
pub fn check_volume(role: Role, inspect: &Value) -> Result<(), Denial> {
    if role == Role::Admin {
        return Ok(());
    }
    let Some(volume) = inspect.as_object() else {
        return Err(Denial::role(
            "a volume that cannot be read",
            "it may be a path of the node",
        ));
    };
    let allowed = mounts::user_volume_driver(volume.text("Driver")).and_then(|()| {
        volume
            .object("Options")
            .map_or(Ok(()), mounts::user_volume_options)
    });
    allowed.map_err(|denial| Denial {
        status: 403,
        message: format!(
            "volume {} is not for role user: {denial}",
            shown(volume.text("Name"))
        ),
    })
}

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
