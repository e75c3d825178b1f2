//! `POST /networks/create`, `…/connect` and `…/disconnect`.

use serde_json::{Map, Value};

use crate::denial::{Denial, shown};
use crate::exec::{check_required, plain};
use crate::schema::{Fields, Read};
use crate::{Checked, Role, route, tables};

pub(crate) const MAX_BYTES: usize = 64 << 10;

pub(crate) fn check_create(role: Role, body: &[u8]) -> Result<Checked, Denial> {
    let checked = check_required(tables::NETWORK_CREATE, MAX_BYTES, body)?;
    if let (Role::User, Some(network)) = (role, checked.body.as_object()) {
        user_create(network)?;
    }
    Ok(checked)
}

fn user_create(network: &Map<String, Value>) -> Result<(), Denial> {
    if !matches!(network.text("Driver"), "" | "bridge" | "null") {
        let what = format!("network driver {}", shown(network.text("Driver")));
        return Err(Denial::role(
            what,
            "it uses the node's own interfaces; use `bridge`",
        ));
    }
    let ipam = network
        .object("IPAM")
        .map_or("", |ipam| ipam.text("Driver"));
    if !matches!(ipam, "" | "default" | "null") {
        let what = format!("address driver {}", shown(ipam));
        return Err(Denial::role(what, "it speaks on the node's own network"));
    }
    for (key, _) in network.object("Options").into_iter().flatten() {
        let harmless = key.starts_with("com.docker.network.") && !key.ends_with("bridge.name");
        if !harmless {
            let what = format!("network option {}", shown(key));
            return Err(Denial::role(what, "it names an interface of the node"));
        }
    }
    Ok(())
}

/// Connect and disconnect: the container named in the body is what the user touches.
pub(crate) fn check_membership(role: Role, fields: Fields, body: &[u8]) -> Result<Checked, Denial> {
    let mut checked = plain(check_required(fields, MAX_BYTES, body)?.body);
    let container = checked
        .body
        .as_object()
        .map_or("", |body| body.text("Container"));
    route::check_id(container)?;
    if role == Role::User {
        checked.subjects = vec![container.to_owned()];
    }
    Ok(checked)
}
