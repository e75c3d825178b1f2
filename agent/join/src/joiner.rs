//! From the first key to the last reconnection.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::fleet::MachineHints;
use pki::csr;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::enrol::{self, Answer};
use crate::error::{AttemptError, chain};
use crate::identity::Identity;
use crate::keep::{Enrolment, Keep, KeepError, read_token, remove_token};
use crate::lifetime::{millis, until};
use crate::options::JoinOptions;
use crate::renew;
use crate::session::{self, Ended, Services};
use crate::status::{Chronicle, JoinStatus, Phase};

/// Between a renewal that failed and the next, at least.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);

/// A node that is ready to join.
#[derive(Debug)]
pub struct Joiner {
    options: JoinOptions,
    keep: Keep,
    /// None while there is no need of one.
    enrolment: Option<Enrolment>,
    identities: watch::Sender<Option<Identity>>,
    seed: u64,
}

impl Joiner {
    /// Takes up what an earlier process has left in the state directory, and the token. Blocking.
    ///
    /// The token's file is unlinked here and not after its use: that is to be before the first
    /// container starts, and nobody knows when the controller can be reached. So that a restart of the
    /// agent does not lose it, the token goes to the state directory first, where the node's key is
    /// that is as secret; it is erased when the node has been let in, or the controller does not want
    /// it.
    ///
    /// # Errors
    /// When the state directory or the token's file cannot be used.
    pub fn open(options: JoinOptions) -> Result<Self, KeepError> {
        let keep = Keep::open(&options.state_dir)?;
        let identity = keep.identity(options.pin)?;
        let token = match &options.token_file {
            Some(path) => read_token(path)?,
            None => None,
        };
        let enrolment = if identity.is_some() {
            // One that has its identity needs neither key nor token.
            keep.forget_enrolment()?;
            None
        } else {
            let kept = keep.enrolment()?;
            let mut enrolment = match &kept {
                Some(kept) => kept.clone(),
                None => Enrolment::new(None).map_err(KeepError::Key)?,
            };
            enrolment.token = token.or(enrolment.token);
            if kept.as_ref() != Some(&enrolment) {
                keep.keep_enrolment(&enrolment)?;
            }
            Some(enrolment)
        };
        if let Some(path) = &options.token_file {
            remove_token(path)?;
        }
        Ok(Self {
            seed: seed(&options.machine),
            keep,
            enrolment,
            identities: watch::Sender::new(identity),
            options,
        })
    }

    /// Joins, and joins again, until `stop`; then ends the connection, its streams within
    /// [`Deadlines::farewell`](crate::Deadlines::farewell). No task outlives this.
    pub async fn run(
        mut self,
        services: Arc<dyn Services>,
        stop: CancellationToken,
        status: watch::Sender<JoinStatus>,
    ) {
        let chronicle = Chronicle::new(status);
        let renewer = Renewer {
            options: self.options.clone(),
            keep: self.keep.clone(),
            identities: self.identities.clone(),
            seed: self.seed,
        };
        let renewals = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = renewer.run(&chronicle) => {}
            }
        };
        tokio::join!(renewals, self.stay(&services, &stop, &chronicle));
        chronicle.phase(Phase::Stopped);
    }

    async fn stay(
        &mut self,
        services: &Arc<dyn Services>,
        stop: &CancellationToken,
        chronicle: &Chronicle,
    ) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            if self.options.quiet.is_silent() {
                chronicle.phase(Phase::Waiting {
                    until_ms: None,
                    why: "a measurement wants silence".to_owned(),
                });
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.options.quiet.spoken() => {}
                }
            }
            let identity = self.identities.borrow().clone();
            let identity = identity.filter(|it| !it.life.is_over(SystemTime::now()));
            let known = identity.as_ref();
            chronicle.identity(known.map(|it| (&*it.papers.id, it.life.to)));
            let (lived, why) = match identity {
                None => {
                    let asked = tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        asked = self.enrol(chronicle) => asked,
                    };
                    match asked {
                        Ok(()) => continue,
                        Err(why) => (Duration::ZERO, why),
                    }
                }
                Some(identity) => {
                    chronicle.phase(Phase::Resolving);
                    let context = session::Context {
                        options: &self.options,
                        services,
                        chronicle,
                        identities: self.identities.subscribe(),
                        stop,
                    };
                    match session::run(&context, &identity).await {
                        Ended::Stopped => return,
                        Ended::Renewed => continue,
                        Ended::Lost { lived, why } => (lived, why),
                    }
                }
            };
            if why.ends_identity() {
                self.forget().await;
            }
            failures = self.options.backoff.failures(failures, lived);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wait(&why, failures, chronicle) => {}
            }
        }
    }

    /// One question, and the pause after an answer that says to wait.
    async fn enrol(&mut self, chronicle: &Chronicle) -> Result<(), AttemptError> {
        // For as long as somebody compares the fingerprint it stays in view.
        if !matches!(chronicle.now(), Phase::Pending { .. }) {
            chronicle.phase(Phase::Enrolling);
        }
        let enrolment = self.enrolment().await?;
        match enrol::ask(&self.options, &enrolment).await {
            Ok(Answer::Admitted(identity)) => {
                self.admitted(identity).await;
                Ok(())
            }
            Ok(Answer::Pending { ask_again }) => {
                // Of the own key, so that what somebody compares does not come from the other side.
                let fingerprint = csr::fingerprint(&enrolment.csr_pem);
                let fingerprint = fingerprint.expect("made here, or looked at when it was read");
                chronicle.phase(Phase::Pending { fingerprint });
                sleep(ask_again).await;
                Ok(())
            }
            Err(error) => {
                if enrolment.token.is_some() && enrol::is_about_the_token(&error) {
                    tracing::warn!("the join token is not wanted; somebody has to approve");
                    let token = None;
                    self.keep_enrolment(Enrolment { token, ..enrolment }).await;
                }
                Err(error)
            }
        }
    }

    /// The one that is under way, or a new one with a new key.
    async fn enrolment(&mut self) -> Result<Enrolment, AttemptError> {
        if let Some(enrolment) = &self.enrolment {
            return Ok(enrolment.clone());
        }
        let enrolment = Enrolment::new(None).map_err(AttemptError::Key)?;
        self.keep_enrolment(enrolment.clone()).await;
        Ok(enrolment)
    }

    async fn keep_enrolment(&mut self, enrolment: Enrolment) {
        self.enrolment = Some(enrolment.clone());
        let keep = self.keep.clone();
        let write = move || keep.keep_enrolment(&enrolment);
        store("what the node enrols with", write).await;
    }

    async fn admitted(&mut self, identity: Identity) {
        self.enrolment = None;
        let (keep, papers) = (self.keep.clone(), identity.papers.clone());
        store("the node's identity", move || keep.keep_identity(&papers)).await;
        tracing::info!(id = identity.papers.id, "let in by the controller");
        self.identities.send_replace(Some(identity));
    }

    /// The controller wants this identity no more; the node asks to be let in again, with a new key.
    async fn forget(&mut self) {
        self.identities.send_replace(None);
        let keep = self.keep.clone();
        store("that the identity is gone", move || keep.forget_identity()).await;
    }

    async fn wait(&self, why: &AttemptError, failures: u32, chronicle: &Chronicle) {
        let wait = self.options.backoff.wait(failures, self.seed);
        let until_ms = millis(SystemTime::now() + wait);
        let refused = why.is_refusal();
        let why = chain(why);
        chronicle.phase(if refused {
            Phase::Refused { until_ms, why }
        } else {
            Phase::Waiting {
                until_ms: Some(until_ms),
                why,
            }
        });
        sleep(wait).await;
    }
}

/// Sees to it that there is a certificate that has not ended.
struct Renewer {
    options: JoinOptions,
    keep: Keep,
    identities: watch::Sender<Option<Identity>>,
    seed: u64,
}

impl Renewer {
    async fn run(&self, chronicle: &Chronicle) {
        let mut known = self.identities.subscribe();
        let mut failures = 0;
        let mut said = String::new();
        loop {
            let identity = known.borrow_and_update().clone();
            let now = SystemTime::now();
            let Some(identity) = identity.filter(|it| !it.life.is_over(now)) else {
                if known.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let due = async {
                until(identity.life.renew_at(self.seed)).await;
                if failures > 0 {
                    let wait = self.options.backoff.wait(failures, self.seed);
                    sleep(wait.max(RENEWAL_PAUSE)).await;
                }
                self.options.quiet.spoken().await;
            };
            tokio::select! {
                biased;
                changed = known.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = due => {}
            }
            match renew::ask(&self.options, &identity).await {
                Ok(renewed) => {
                    failures = 0;
                    said.clear();
                    self.renewed(&identity, renewed, chronicle).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let why = chain(&error);
                    if why != said {
                        tracing::warn!(why, "the certificate was not renewed; tried again");
                        said = why;
                    }
                }
            }
        }
    }

    async fn renewed(&self, old: &Identity, renewed: Identity, chronicle: &Chronicle) {
        // It may have been forgotten while the controller was asked.
        let taken = self.identities.send_if_modified(|known| {
            let current = known.as_ref() == Some(old);
            if current {
                *known = Some(renewed.clone());
            }
            current
        });
        if !taken {
            return;
        }
        chronicle.identity(Some((&renewed.papers.id, renewed.life.to)));
        tracing::debug!(id = renewed.papers.id, "certificate renewed");
        let keep = self.keep.clone();
        store("the renewed identity", move || {
            keep.keep_identity(&renewed.papers)
        })
        .await;
    }
}

/// Writes without holding up the runtime. That it fails is a loss at the next restart only.
async fn store(what: &'static str, write: impl FnOnce() -> Result<(), KeepError> + Send + 'static) {
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "{what} is not kept over a restart");
        }
        Err(error) => tracing::error!(%error, "writing down {what} died"),
    }
}

/// What lets machines wait for different times: the same each time, and for each another.
fn seed(machine: &MachineHints) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&machine.uuid, &machine.macs, &machine.hostname).hash(&mut hasher);
    hasher.finish()
}
