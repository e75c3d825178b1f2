//! A controller with state but without nodes: the API's routes over real mutual TLS, jobs that do
//! what a test says, and faults of the way between.
//!
//! For tests of whatever uses the client. It schedules nothing and stores nothing.

mod fault;
pub mod papers;
mod routes;
mod serve;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pki::{Authority, RoleName, Validity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use fault::Fault;
pub use state::{Job, State, ending};

use crate::context::{Context, controller_address};

/// The fake could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("make the fake controller's certificates")]
    Certificates(#[from] pki::Error),
    #[error("listen on a loopback port")]
    Listen(#[from] std::io::Error),
}

/// What all its connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    faults: Mutex<Vec<Fault>>,
    calls: Mutex<Vec<String>>,
    /// Counts changes of the state.
    changes: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|count| *count += 1);
        result
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn call(&self, call: String) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
    }

    /// The first fault for this path, once.
    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults.iter().position(|fault| fault.hits(path))?;
        Some(faults.remove(at))
    }
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct FakeController {
    shared: Arc<Shared>,
    address: SocketAddr,
    context: Context,
    authority: Authority,
    serving: JoinHandle<()>,
}

impl Drop for FakeController {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeController {
    /// Listens on a free loopback port, with an authority of its own.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start() -> Result<Self, StartError> {
        let authority = Authority::generate("fake controller's authority")?;
        Self::start_with(authority, 0).await
    }

    /// Listens on this loopback port (0: any), with this authority.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_with(authority: Authority, port: u16) -> Result<Self, StartError> {
        let own = authority.issue_controller(&["127.0.0.1"], Validity::days(1))?;
        let tls = pki::controller_server_config(
            authority.cert_pem(),
            &own.cert_pem,
            &own.key_pem,
            Arc::new(serve::NothingRevoked),
        )?;
        let client = authority.issue_client("tester", RoleName::Admin, Validity::days(1))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let controller = controller_address(&address.to_string());
        let context = Context {
            controller: controller.map_err(std::io::Error::other)?,
            ca_pem: authority.cert_pem().to_owned(),
            cert_pem: client.cert_pem,
            key_pem: client.key_pem,
        };
        let serving = tokio::spawn(serve::serve(listener, tls, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            context,
            authority,
            serving,
        })
    }

    /// How to reach it, as an admin.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    /// Who issued its certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at what it holds.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.shared.read(look)
    }

    /// Changes what it holds; whoever waits for that sees it.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.shared.change(change)
    }

    /// Something goes wrong once.
    pub fn break_once(&self, fault: Fault) {
        let faults = &self.shared.faults;
        faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        let faults = &self.shared.faults;
        faults.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All calls that arrived: `GET /v1/jobs?limit=3`.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let calls = &self.shared.calls;
        calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it holds what is looked for; `None` after `within`.
    pub async fn wait<T>(
        &self,
        within: Duration,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.shared.changes();
        let found = async {
            loop {
                if let Some(found) = self.read(&mut look) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, found).await.ok().flatten()
    }
}
