//! `/v1/tokens`.

use api::fleet::TokenRequest;
use axum::http::StatusCode;

use super::answer::{about, json, nothing, ok};
use super::app::{Answer, App, Vault};
use super::call::Call;
use super::fault::Fault;
use super::history::History;
use crate::check;
use crate::desk::Desk;
use crate::refusal::Kind;

impl<D: Desk, H: History, V: Vault> App<D, H, V> {
    pub(crate) async fn tokens(&self, call: Call) -> Answer {
        ok(&self.desk.tokens(call.caller()?).await?)
    }

    pub(crate) async fn make_token(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let request: TokenRequest = call.json().await?;
        check::token(&request)?;
        let token = self.desk.make_token(&caller, request).await?;
        // the public part only
        let subject = format!("token:{}", token.id);
        Ok(about(json(StatusCode::CREATED, &token)?, subject))
    }

    pub(crate) async fn revoke_token(&self, call: Call) -> Answer {
        let id = call.part("id");
        if !(1..=256).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_graphic()) {
            let id = super::audit::escape(id);
            let detail = format!("there is no token {id}");
            return Err(Fault::new(Kind::NoSuchToken, detail));
        }
        self.desk.revoke_token(call.caller()?, id).await?;
        Ok(about(nothing(), format!("token:{id}")))
    }
}
