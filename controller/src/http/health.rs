//! `/v1/health-check`.

use api::health::HealthCheck;

use super::answer::{about, nothing, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::history::History;
use crate::check;
use crate::desk::Desk;

const SUBJECT: &str = "health-check";

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn health_check(&self, _call: Call) -> Answer {
        ok(&self.desk.health_check().await?)
    }

    pub(crate) async fn set_health_check(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let wanted: HealthCheck = call.json().await?;
        check::health(&wanted, caller.role)?;
        let view = self.desk.set_health_check(&caller, Some(wanted)).await?;
        Ok(about(ok(&view)?, SUBJECT.into()))
    }

    pub(crate) async fn remove_health_check(&self, call: Call) -> Answer {
        self.desk.set_health_check(call.caller()?, None).await?;
        Ok(about(nothing(), SUBJECT.into()))
    }
}
