//! Asking to be let in.

use std::time::{Duration, SystemTime};

use api::fleet::{EnrolAnswer, EnrolRequest};
use pki::{Protocol, Trust, node_client_config};

use crate::call::post;
use crate::error::{AttemptError, CallError};
use crate::identity::{Identity, Papers};
use crate::keep::Enrolment;
use crate::lifetime::millis;
use crate::options::JoinOptions;

/// The controller may name the time after which it is asked again, within these bounds.
const ASK_AGAIN: std::ops::RangeInclusive<u32> = 1..=300;

/// What became of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Admitted(Identity),
    /// Somebody has to approve.
    Pending {
        ask_again: Duration,
    },
}

/// Asks once. Nothing is sent before the controller has shown the pinned authority.
pub(crate) async fn ask(
    options: &JoinOptions,
    enrolment: &Enrolment,
) -> Result<Answer, AttemptError> {
    let config = node_client_config(&Trust::Pin(options.pin), None, Protocol::Http);
    let config = config.map_err(AttemptError::Config)?;
    let request = EnrolRequest {
        csr_pem: enrolment.csr_pem.clone(),
        token: enrolment.token.clone(),
        machine: options.machine.clone(),
    };
    let answer = post(options, &config, "/v1/enrol", &request).await;
    match answer.map_err(AttemptError::Enrol)? {
        EnrolAnswer::Admitted {
            id,
            cert_pem,
            ca_pem,
        } => {
            let now = SystemTime::now();
            let papers = Papers {
                id: id.into(),
                key_pem: enrolment.key_pem.clone(),
                cert_pem,
                ca_pem,
                obtained_ms: millis(now),
            };
            let checked = Identity::check(papers, options.pin, now);
            Ok(Answer::Admitted(checked.map_err(AttemptError::Answer)?))
        }
        EnrolAnswer::Pending {
            ask_again_seconds, ..
        } => {
            let seconds = ask_again_seconds.clamp(*ASK_AGAIN.start(), *ASK_AGAIN.end());
            Ok(Answer::Pending {
                ask_again: Duration::from_secs(seconds.into()),
            })
        }
    }
}

/// Whether it is the token that the controller does not want. One that is used, late or another
/// machine's never becomes good again.
pub(crate) fn is_about_the_token(error: &AttemptError) -> bool {
    matches!(
        error,
        AttemptError::Enrol(CallError::Refused {
            status: 401 | 403,
            ..
        })
    )
}
