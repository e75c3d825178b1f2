//! `/v1/nodes`.

use api::fleet::{NodeChange, NodeId};
use api::job::Page;
use serde::Deserialize;

use super::answer::{about, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::history::History;
use super::operation::{LONGEST_PAGE, NODE_TOKEN};
use crate::check;
use crate::desk::Desk;
use crate::refusal::{Kind, Refusal};

/// `POST /v1/nodes/approve`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveRequest {
    /// As `GET /v1/nodes/pending` and the machine's own console show it.
    #[schema(pattern = r"^[!-~]{1,256}$")]
    pub(crate) fingerprint: String,
}

/// In the order of the ids themselves.
fn token(id: &NodeId) -> String {
    let mut token = String::from(NODE_TOKEN);
    token.extend(id.as_str().bytes().map(|byte| format!("{byte:02x}")));
    token
}

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn nodes(&self, call: Call) -> Answer {
        let limit = call.query.integer("limit").unwrap_or(LONGEST_PAGE);
        let limit = usize::try_from(limit).unwrap_or_default();
        let mut nodes = self.desk.nodes().await?;
        if let Some(after) = call.query.text("after") {
            nodes.retain(|node| token(&node.id).as_str() > after);
        }
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        let more = nodes.len() > limit;
        nodes.truncate(limit);
        let next = nodes.last().filter(|_| more).map(|node| token(&node.id));
        let size = nodes.len() * 1024;
        super::call::heavy(size, move || ok(&Page { items: nodes, next })).await?
    }

    pub(crate) async fn pending_nodes(&self, _call: Call) -> Answer {
        ok(&self.desk.pending().await?)
    }

    pub(crate) async fn approve(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let ApproveRequest { fingerprint } = call.json().await?;
        let known = |b: u8| b.is_ascii_graphic();
        if !(1..=256).contains(&fingerprint.len()) || !fingerprint.bytes().all(known) {
            return Err(Fault::invalid(
                "/fingerprint",
                "not 1 to 256 printable characters without space",
                "copy it from GET /v1/nodes/pending",
            ));
        }
        let node = self.desk.approve(&caller, &fingerprint).await?;
        Ok(about(ok(&node)?, format!("fingerprint:{fingerprint}")))
    }

    pub(crate) async fn node(&self, call: Call) -> Answer {
        ok(&self.desk.node(called(&call)?).await?)
    }

    pub(crate) async fn change_node(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let name = called(&call)?.to_owned();
        let change: NodeChange = call.json().await?;
        check::node_change(&change)?;
        let id = self.desk.node(&name).await?.id;
        let node = self.desk.change_node(&caller, &id, change).await?;
        Ok(about(ok(&node)?, format!("node:{id}")))
    }

    pub(crate) async fn revoke_node(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let id = self.desk.node(called(&call)?).await?.id;
        let node = self.desk.revoke(&caller, &id).await?;
        Ok(about(ok(&node)?, format!("node:{id}")))
    }
}

/// The node's id or name, as the path has it.
fn called(call: &Call) -> Result<&str, Fault> {
    let name = call.part("id");
    if speakable(name) {
        return Ok(name);
    }
    Err(no_such(name).into())
}

/// What no node can be called is not asked for.
fn speakable(name: &str) -> bool {
    let count = name.chars().count();
    (1..=256).contains(&count) && !name.chars().any(char::is_control)
}

fn no_such(name: &str) -> Refusal {
    let name = super::audit::escape(name);
    Refusal::new(Kind::NoSuchNode, format!("there is no node {name}"))
}

/// Of a node by id or name. An id may be that of a node that is gone: it has a history all the same.
pub(crate) async fn node_id<D: Desk>(desk: &D, name: &str) -> Result<NodeId, Refusal> {
    match desk.node(name).await {
        Ok(node) => Ok(node.id),
        Err(refusal) if refusal.kind == Kind::NoSuchNode => {
            NodeId::try_from(name.to_owned()).map_err(|_| no_such(name))
        }
        Err(refusal) => Err(refusal),
    }
}
