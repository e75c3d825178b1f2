//! Queues.

use api::queue::{QueueSettings, QueueView};
use reqwest::Method;

use crate::call::Call;
use crate::connection::Client;
use crate::error::Error;

impl Client {
    /// All queues.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn queues(&self) -> Result<Vec<QueueView>, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "queues"])?;
        self.json(call).await
    }

    /// Makes a queue, or replaces the settings of one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_queue(
        &self,
        name: &str,
        settings: &QueueSettings,
    ) -> Result<QueueView, Error> {
        let call = Call::new(Method::PUT, self.base(), &["v1", "queues", name])?;
        self.json(call.json(settings)?).await
    }

    /// Removes an empty queue.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_queue(&self, name: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.base(), &["v1", "queues", name])?;
        self.done(call).await
    }
}
