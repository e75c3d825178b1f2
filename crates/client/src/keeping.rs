//! How nodes are kept: booked for somebody, and in order.

use api::booking::{BookingRequest, BookingView};
use api::health::{HealthCheck, HealthCheckView};
use reqwest::Method;

use crate::call::Call;
use crate::connection::Client;
use crate::error::Error;

impl Client {
    /// Bookings that are not over.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bookings(&self) -> Result<Vec<BookingView>, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "bookings"])?;
        self.json(call).await
    }

    /// Keeps nodes for users for a time.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn book(&self, request: &BookingRequest) -> Result<BookingView, Error> {
        let call = Call::new(Method::POST, self.base(), &["v1", "bookings"])?;
        self.json(call.json(request)?).await
    }

    /// Ends a booking before its time.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unbook(&self, id: u64) -> Result<(), Error> {
        let id = id.to_string();
        let call = Call::new(Method::DELETE, self.base(), &["v1", "bookings", &id])?;
        self.done(call).await
    }

    /// The job that nodes have to pass, and when each of them did.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn health_check(&self) -> Result<HealthCheckView, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "health-check"])?;
        self.json(call).await
    }

    /// Sets that job; all nodes are due.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_health_check(&self, check: &HealthCheck) -> Result<HealthCheckView, Error> {
        let call = Call::new(Method::PUT, self.base(), &["v1", "health-check"])?;
        self.json(call.json(check)?).await
    }

    /// Ends the checks.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn remove_health_check(&self) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.base(), &["v1", "health-check"])?;
        self.done(call).await
    }
}
