//! How machines join, and how nodes renew their certificates.

use api::fleet::{EnrolAnswer, EnrolRequest, RenewRequest};
use axum::http::StatusCode;

use super::answer::{about, json, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::history::History;
use super::peer::Peer;
use crate::check;
use crate::desk::Desk;
use crate::refusal::Kind;

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn enrol(&self, call: Call) -> Answer {
        let address = call.peer.address();
        let request: EnrolRequest = call.json().await?;
        check::enrolment(&request)?;
        // anybody may call this: only so many at once
        let _permit = self
            .enrolments
            .try_acquire()
            .map_err(|_| Fault::too_many("enrolments"))?;
        let answer = self.desk.enrol(address, request).await?;
        let (status, subject) = match &answer {
            EnrolAnswer::Admitted { id, .. } => (StatusCode::OK, format!("node:{id}")),
            EnrolAnswer::Pending { fingerprint, .. } => {
                (StatusCode::ACCEPTED, format!("fingerprint:{fingerprint}"))
            }
        };
        Ok(about(json(status, &answer)?, subject))
    }

    pub(crate) async fn renew(&self, call: Call) -> Answer {
        let Peer::Node { id, .. } = call.peer.clone() else {
            // the table of calls admits nobody else
            return Err(Fault::new(Kind::Forbidden, "this is for nodes"));
        };
        let RenewRequest { csr_pem } = call.json().await?;
        if !(1..=16_384).contains(&csr_pem.chars().count()) {
            return Err(Fault::invalid(
                "/csr_pem",
                "not 1 to 16384 characters",
                "send one PKCS#10 request as PEM",
            ));
        }
        let renewed = self.desk.renew(&id, &csr_pem).await?;
        Ok(about(ok(&renewed)?, format!("node:{id}")))
    }
}
