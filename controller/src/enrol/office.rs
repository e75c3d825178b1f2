//! Lets machines in: looks at them, signs their certificates, and has it written down.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use api::fleet::{EnrolAnswer, EnrolRequest, NodeId, PendingNode, TokenRequest, TokenView};
use pki::{Authority, NodeIdentity, SignedCert, Token, Validity, csr};
use store::{Change, TokenRecord};

use super::desk::{Admission, Admitted};
use super::identity::{Identity, Known, identify};
use crate::authority::Revoked;
use crate::desk::Caller;
use crate::dispatch::Dispatch;
use crate::lifecycle::{Certificate, Core};
use crate::refusal::{Kind, Refusal};

/// A machine that waits asks again after this, seconds.
const ASK_AGAIN: u32 = 5;

/// What becomes of a machine without a token that was let in before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reenrol {
    /// Somebody has to approve it again.
    Approve,
    /// It is let in again while its node is not connected. Whoever can forge a machine's UUID and
    /// card address can take its place then.
    Auto,
}

/// The office.
pub struct Enrolment {
    authority: Authority,
    admission: Mutex<Admission>,
    dispatch: Dispatch,
    revoked: Arc<Revoked>,
    reenrol: Reenrol,
    /// Of nodes' certificates.
    life: Duration,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}

impl Enrolment {
    #[must_use]
    pub fn new(
        authority: Authority,
        tokens: Vec<TokenRecord>,
        dispatch: Dispatch,
        revoked: Arc<Revoked>,
        reenrol: Reenrol,
        life: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            authority,
            admission: Mutex::new(Admission::new(tokens)),
            dispatch,
            revoked,
            reenrol,
            life,
        })
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .expect("nothing panics while it holds it")
    }

    /// A machine asks to be let in.
    ///
    /// # Errors
    /// Invalid requests, tokens that are worth nothing, store.
    pub async fn enrol(
        &self,
        address: SocketAddr,
        request: EnrolRequest,
    ) -> Result<EnrolAnswer, Refusal> {
        let fingerprint = csr::fingerprint(&request.csr_pem)
            .map_err(|error| Refusal::new(Kind::Invalid, error.to_string()).at("/csr_pem"))?;
        let (id, known_and_away) = self.identify(&request).await?;
        let now = self.dispatch.clock().now();
        let by = self
            .admission()
            .look(now, &request, &fingerprint, &address.to_string())?;
        let by = match by {
            Admitted::Not if self.reenrol == Reenrol::Auto && known_and_away => {
                Admitted::ByApproval
            }
            by => by,
        };
        let mut changes = Vec::new();
        let mut first_use = false;
        match &by {
            Admitted::Not => {
                return Ok(EnrolAnswer::Pending {
                    fingerprint,
                    ask_again_seconds: ASK_AGAIN,
                });
            }
            Admitted::ByApproval => {}
            Admitted::ByToken { token } => {
                let used = self.admission().use_up(token, &id, &fingerprint)?;
                first_use = used.first;
                changes.push(Change::Token(used.record));
            }
        }
        let signed = self.sign(&id, &request.csr_pem);
        let admitted = match signed {
            Ok(signed) => self
                .write_down(&id, request, &signed, changes)
                .await
                .map(|()| signed),
            Err(refusal) => Err(refusal),
        };
        match admitted {
            Ok(signed) => {
                self.admission().forget_pending(&fingerprint);
                Ok(EnrolAnswer::Admitted {
                    id,
                    cert_pem: signed.cert_pem,
                    ca_pem: self.authority.cert_pem().to_owned(),
                })
            }
            Err(refusal) => {
                // what may have been written down stays used
                if let Admitted::ByToken { token } = &by
                    && first_use
                    && refusal.kind != Kind::Unknown
                {
                    self.admission().give_back(token);
                }
                Err(refusal)
            }
        }
    }

    async fn identify(&self, request: &EnrolRequest) -> Result<(NodeId, bool), Refusal> {
        let machine = request.machine.clone();
        let spare = getrandom::u64()
            .map_err(|error| Refusal::new(Kind::Internal, format!("random numbers: {error}")))?;
        let spare = format!("{spare:016x}");
        let look = move |core: &mut Core, _now| {
            let nodes = core.machines().map(|(id, machine)| Known { id, machine });
            let identity = identify(nodes, &machine, &spare);
            let away = match &identity {
                Identity::Known(id) => core.may_return(id),
                Identity::New(_) => false,
            };
            (identity.id().clone(), away)
        };
        self.dispatch.ask(look).await
    }

    async fn write_down(
        &self,
        id: &NodeId,
        request: EnrolRequest,
        signed: &SignedCert,
        changes: Vec<Change>,
    ) -> Result<(), Refusal> {
        let (id, certificate) = (id.clone(), certificate(signed));
        let revoked = Arc::clone(&self.revoked);
        let mut changes = changes;
        let act = move |core: &mut Core, now| {
            // whoever has an older key of this node is not this node
            let former = core.admit(now, &id, request.machine, certificate);
            changes.extend(revoked.take_back(now, &id, former, "enrolled anew"));
            ((), changes)
        };
        self.dispatch.ask_with(act).await
    }

    fn sign(&self, id: &NodeId, csr_pem: &str) -> Result<SignedCert, Refusal> {
        let identity = NodeIdentity { id: id.as_str() };
        let validity = Validity::for_the_next(self.life);
        let signed = self
            .authority
            .issue_joined_node(csr_pem, &identity, validity);
        signed.map_err(|error| Refusal::new(Kind::Invalid, crate::chain(&error)).at("/csr_pem"))
    }

    /// A new certificate for a node that shows its present one.
    ///
    /// # Errors
    /// Invalid request, no such node, revoked, store.
    pub async fn renew(&self, node: &NodeId, csr_pem: &str) -> Result<String, Refusal> {
        let signed = self.sign(node, csr_pem)?;
        let (id, certificate) = (node.clone(), certificate(&signed));
        let act = move |core: &mut Core, now| core.renew(now, &id, certificate);
        let renewed = self.dispatch.ask(act).await?;
        if renewed {
            return Ok(signed.cert_pem);
        }
        let detail = format!("node {node} is not known here, or was revoked");
        Err(Refusal::new(Kind::Forbidden, detail).next("enrol it anew"))
    }

    #[must_use]
    pub fn pending(&self) -> Vec<PendingNode> {
        self.admission().pending()
    }

    /// # Errors
    /// No such machine, or several.
    pub fn approve(&self, caller: &Caller, fingerprint: &str) -> Result<PendingNode, Refusal> {
        let approved = self.admission().approve(fingerprint)?;
        tracing::info!(target: "audit", user = caller.user, fingerprint, "machine approved");
        Ok(approved)
    }

    #[must_use]
    pub fn tokens(&self) -> Vec<TokenView> {
        let now = self.dispatch.clock().now();
        self.admission().tokens(now)
    }

    /// # Errors
    /// Invalid request, store.
    pub async fn make_token(
        &self,
        caller: &Caller,
        request: TokenRequest,
    ) -> Result<TokenView, Refusal> {
        let token = Token::generate()
            .map_err(|error| Refusal::new(Kind::Internal, crate::chain(&error)))?;
        let now = self.dispatch.clock().now();
        let record = TokenRecord {
            id: token.id(),
            verifier: token.verifier().to_string(),
            machine: request.machine.map(|machine| machine.to_ascii_lowercase()),
            made_by: caller.user.clone(),
            made_ms: now,
            expires_ms: now.saturating_add(u64::from(request.valid_seconds) * 1000),
            used_by: None,
        };
        let stored = Change::Token(record.clone());
        self.dispatch
            .ask_with(move |_core, _now| ((), vec![stored]))
            .await?;
        let view = TokenView {
            id: record.id.clone(),
            token: Some(token.expose()),
            machine: record.machine.clone(),
            expires_ms: record.expires_ms,
            used_by: None,
        };
        self.admission().add_token(record);
        Ok(view)
    }

    /// # Errors
    /// No such token, store.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Refusal> {
        // first here: it is worth nothing from now on, whatever the store says
        let removed = self.admission().remove_token(id);
        let Some(removed) = removed else {
            let detail = format!("there is no token {id:?}");
            return Err(Refusal::new(Kind::NoSuchToken, detail).next("still token list"));
        };
        let change = Change::TokenRemoved { id: removed.id };
        self.dispatch
            .ask_with(move |_core, _now| ((), vec![change]))
            .await
    }
}

fn certificate(signed: &SignedCert) -> Certificate {
    let until = signed.not_after.duration_since(UNIX_EPOCH);
    let until = until.unwrap_or_default().as_millis();
    Certificate {
        serial: signed.serial_hex.clone(),
        until_ms: u64::try_from(until).unwrap_or(u64::MAX),
    }
}
