//! The controller itself.

use reqwest::Method;

use crate::answers::Version;
use crate::call::Call;
use crate::connection::Client;
use crate::error::Error;

impl Client {
    /// `GET /healthz`: whether it takes calls.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn healthy(&self) -> Result<(), Error> {
        let call = Call::new(Method::GET, self.base(), &["healthz"])?;
        self.done(call).await
    }

    /// `GET /healthz`, asked once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn healthy_now(&self) -> Result<(), Error> {
        let call = Call::new(Method::GET, self.base(), &["healthz"])?;
        let answer = self.send_once(&call).await;
        answer.map(drop).map_err(|failure| failure.error)
    }

    /// `GET /v1/version`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn version(&self) -> Result<Version, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "version"])?;
        self.json(call).await
    }
}
