//! A new certificate for a new key, from the old one.

use std::time::SystemTime;

use api::fleet::{RenewAnswer, RenewRequest};
use pki::{Protocol, csr};

use crate::call::post;
use crate::error::AttemptError;
use crate::identity::{Identity, Papers};
use crate::lifetime::millis;
use crate::options::JoinOptions;

/// Asks once, over a connection of its own.
pub(crate) async fn ask(options: &JoinOptions, old: &Identity) -> Result<Identity, AttemptError> {
    let config = old.config(Protocol::Http).map_err(AttemptError::Config)?;
    let (key_pem, csr_pem) = csr::generate().map_err(AttemptError::Key)?;
    let request = RenewRequest { csr_pem };
    let answer: RenewAnswer = post(options, &config, "/v1/renew", &request)
        .await
        .map_err(AttemptError::Renew)?;
    let now = SystemTime::now();
    let papers = Papers {
        id: old.papers.id.clone(),
        key_pem,
        cert_pem: answer.cert_pem,
        ca_pem: old.papers.ca_pem.clone(),
        obtained_ms: millis(now),
    };
    Identity::check(papers, options.pin, now).map_err(AttemptError::Answer)
}
