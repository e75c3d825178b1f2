//! `/v1/bookings`.

use api::booking::BookingRequest;
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
    pub(crate) async fn bookings(&self, _call: Call) -> Answer {
        ok(&self.desk.bookings().await?)
    }

    pub(crate) async fn book(&self, call: Call) -> Answer {
        let caller = call.caller()?.clone();
        let request: BookingRequest = call.json().await?;
        check::booking(&request)?;
        let booking = self.desk.book(&caller, request).await?;
        let subject = format!("booking:{}", booking.id);
        Ok(about(json(StatusCode::CREATED, &booking)?, subject))
    }

    pub(crate) async fn unbook(&self, call: Call) -> Answer {
        let id = call.part("id");
        let digits = id.len() <= 18 && id.bytes().all(|b| b.is_ascii_digit());
        let Some(number) = id.parse().ok().filter(|_| digits) else {
            let id = super::audit::escape(id);
            let detail = format!("there is no booking {id}");
            return Err(Fault::new(Kind::NoSuchBooking, detail));
        };
        self.desk.unbook(call.caller()?, number).await?;
        Ok(about(nothing(), format!("booking:{number}")))
    }
}
