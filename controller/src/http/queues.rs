//! `/v1/queues`.

use api::queue::QueueSettings;

use super::answer::{about, nothing, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::history::History;
use crate::check;
use crate::desk::Desk;

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn queues(&self, _call: Call) -> Answer {
        ok(&self.desk.queues().await?)
    }

    pub(crate) async fn set_queue(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let name = call.part("name").to_owned();
        check::queue_name("path parameter name", &name)?;
        let settings: QueueSettings = call.json().await?;
        check::queue(&settings)?;
        let queue = self.desk.set_queue(&caller, &name, settings).await?;
        Ok(about(ok(&queue)?, format!("queue:{name}")))
    }

    pub(crate) async fn remove_queue(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let name = call.part("name").to_owned();
        check::queue_name("path parameter name", &name)?;
        self.desk.remove_queue(&caller, &name).await?;
        Ok(about(nothing(), format!("queue:{name}")))
    }
}
