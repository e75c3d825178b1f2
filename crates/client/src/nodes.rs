//! Nodes.

use api::fleet::{NodeChange, NodeView, PendingNode};
use api::job::Page;
use reqwest::Method;
use serde_json::json;

use crate::call::Call;
use crate::connection::Client;
use crate::error::Error;

/// Which page of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePage {
    /// A page's `next`.
    pub after: Option<String>,
    pub limit: Option<u32>,
}

/// Pages that are read for one list at most.
const PAGES: usize = 1000;

impl Client {
    fn node_call(&self, method: Method, node: &str, more: &[&str]) -> Result<Call, Error> {
        let path = [&["v1", "nodes", node], more].concat();
        Call::new(method, self.base(), &path)
    }

    /// `GET /v1/nodes`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn nodes(&self, page: &NodePage) -> Result<Page<NodeView>, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "nodes"])?
            .query("after", page.after.as_deref())
            .query("limit", page.limit);
        self.json(call).await
    }

    /// All nodes, page by page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn all_nodes(&self) -> Result<Vec<NodeView>, Error> {
        let mut all = Vec::new();
        let mut page = NodePage::default();
        for _ in 0..PAGES {
            let next = self.nodes(&page).await?;
            all.extend(next.items);
            page.after = next.next;
            if page.after.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// Machines that wait for approval.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn pending_nodes(&self) -> Result<Vec<PendingNode>, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "nodes", "pending"])?;
        self.json(call).await
    }

    /// Lets the machine with this fingerprint in, the next time that it asks.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn approve_node(&self, fingerprint: &str) -> Result<(), Error> {
        let call = Call::new(Method::POST, self.base(), &["v1", "nodes", "approve"])?
            .json(&json!({ "fingerprint": fingerprint }))?;
        self.done(call).await
    }

    /// One node, by id or name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn node(&self, node: &str) -> Result<NodeView, Error> {
        self.json(self.node_call(Method::GET, node, &[])?).await
    }

    /// Changes what an operator may change.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn change_node(&self, node: &str, change: &NodeChange) -> Result<NodeView, Error> {
        let call = self.node_call(Method::PATCH, node, &[])?.json(change)?;
        self.json(call).await
    }

    /// Reboots a node, whatever runs there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn reboot_node(&self, node: &str) -> Result<(), Error> {
        // the node's own API, through the controller
        let path = ["nodes", node, "stillmetal", "v1", "power"];
        let call = Call::new(Method::POST, self.base(), &path)?;
        self.done(call.json(&json!({ "action": "reboot" }))?).await
    }

    /// Takes a node's right to connect away.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke_node(&self, node: &str) -> Result<(), Error> {
        let call = self.node_call(Method::POST, node, &["revoke"])?;
        self.done(call.safe()).await
    }
}
