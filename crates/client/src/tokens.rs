//! Tokens that let machines join.

use api::fleet::{TokenRequest, TokenView};
use reqwest::Method;

use crate::call::Call;
use crate::connection::Client;
use crate::error::Error;

impl Client {
    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn tokens(&self) -> Result<Vec<TokenView>, Error> {
        let call = Call::new(Method::GET, self.base(), &["v1", "tokens"])?;
        self.json(call).await
    }

    /// Makes a token; its secret is in this answer only.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenView, Error> {
        let call = Call::new(Method::POST, self.base(), &["v1", "tokens"])?;
        self.json(call.json(request)?).await
    }

    /// Makes a token worthless.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_token(&self, id: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.base(), &["v1", "tokens", id])?;
        self.done(call).await
    }
}
