//! A running controller: puts the parts together and takes them down in order.
//!
//! Order of start: lock, authority, store, leadership, what was left; then the port. Whatever must
//! not go on with what it knows starts again from the store, within this process.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use pki::{Authority, RoleName, Validity};
use store::{Lease, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::{self, Revoked};
use crate::collect::Collector;
use crate::dispatch::{Clock, Deeds, Dispatch, Dispatcher, inheritance};
use crate::enrol::{Enrolment, Reenrol};
use crate::fleet::Fleet;
use crate::http::Parts;
use crate::janitor;
use crate::lifecycle::{Core, Mark, Settings};
use crate::metrics::{FleetState, Metrics};
use crate::office::Office;
use crate::port::Port;
use crate::relay::{Limits, Relay};
use crate::shelf::Shelf;
use crate::stock::{self, Stock};
use crate::trail::Trail;
use crate::vault::Vault;

/// Leadership is renewed three times in this time.
const LEASE: Duration = Duration::from_secs(15);
/// Everything that is under way at the end has so long.
const DRAIN: Duration = Duration::from_secs(5);
/// Of the controller's own certificate: made anew at each start.
const OWN_DAYS: u32 = 800;
const ADMIN_DAYS: u32 = 365;
/// Between two looks at how many wait and run.
const GAUGES: Duration = Duration::from_secs(1);

/// What a controller is started with.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where it keeps its authority, its store and its documents.
    #[arg(long, value_name = "DIRECTORY")]
    pub state: PathBuf,
    /// Where it listens: agents, API, docker access, metrics.
    #[arg(long, default_value = "0.0.0.0:7443", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// An IP address or DNS name by which nodes and people reach it; once for each.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// `sqlite:/PATH/TO/FILE` or `postgres://USER@HOST/DATABASE`; without it, SQLite in the state
    /// directory.
    #[arg(long, env = "STILLMETAL_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// `s3://BUCKET` or `s3://BUCKET/FOLDER`: where documents and images are kept; without it, in the state
    /// directory. AWS_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say where that is and whose.
    #[arg(long, env = "STILLMETAL_VAULT", value_name = "URL")]
    pub vault: Option<String>,
    /// Write the certificate of an administrator into this directory (ca.pem, cert.pem, key.pem).
    #[arg(long, value_name = "DIRECTORY")]
    pub admin_bundle: Option<PathBuf>,
    /// What becomes of a machine without a token that was let in before.
    #[arg(long, value_enum, default_value = "approve")]
    pub reenrol: Reenrol,
    /// How long nodes' certificates live, in seconds; they are renewed at two thirds of it.
    #[arg(long, default_value = "86400", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..=31_536_000))]
    pub node_life: u64,
}

/// Runs until `stop`.
///
/// # Errors
/// When it cannot start, or somebody else leads.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let state = &options.state;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .with_context(|| format!("make {}", state.display()))?;
    let _lock = lock(state)?;
    let authority = authority::open(state).context("open the authority")?;
    if let Some(folder) = &options.admin_bundle {
        let validity = Validity::days(ADMIN_DAYS);
        authority::write_client(&authority, "admin", RoleName::Admin, validity, folder)
            .context("write the administrator's certificate")?;
    }
    let holder = holder(state)?;
    let url = match &options.store {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", state.join("controller.db").display()),
    };
    let mut settled = false;
    loop {
        let life = Life {
            options: &options,
            authority: &authority,
            holder: &holder,
            url: &url,
        };
        match life.live(&stop, &mut settled).await {
            Ok(()) => return Ok(()),
            // the first start tells whoever started it; later it is nobody's fault but the store's
            Err(error) if !settled => return Err(error),
            Err(error) => tracing::error!(error = format!("{error:#}"), "starting again"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Two controllers on one state would undo each other's work.
fn lock(state: &Path) -> anyhow::Result<File> {
    let path = state.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another controller uses {}: stop it, or give --state another directory",
            state.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// By which the store knows this controller, however often it is started.
fn holder(state: &Path) -> anyhow::Result<String> {
    let path = state.join("holder");
    if let Ok(known) = std::fs::read_to_string(&path) {
        return Ok(known.trim().to_owned());
    }
    let number = getrandom::u64().context("draw a number")?;
    let name = format!("controller-{number:016x}");
    std::fs::write(&path, &name).with_context(|| format!("write {}", path.display()))?;
    Ok(name)
}

/// From one reading of the store to the next.
struct Life<'a> {
    options: &'a Options,
    authority: &'a Authority,
    holder: &'a str,
    url: &'a str,
}

impl Life<'_> {
    async fn live(&self, stop: &CancellationToken, settled: &mut bool) -> anyhow::Result<()> {
        let store = Store::open(self.url).await.context("open the store")?;
        let lived = self.with_store(&store, stop, settled).await;
        store.close().await;
        lived
    }

    async fn with_store(
        &self,
        store: &Store,
        stop: &CancellationToken,
        settled: &mut bool,
    ) -> anyhow::Result<()> {
        let lease = store
            .lead(self.holder, LEASE)
            .await
            .context("take the lead")?;
        let loaded = store.load().await.context("read the store")?;
        let tokens = loaded.tokens.clone();
        let serials = loaded.revoked.iter().map(|it| it.serial.clone());
        let revoked = Arc::new(Revoked::new(serials));
        let images = loaded.settings.clone();
        let left = inheritance(loaded).context("understand the store")?;
        let named: Vec<_> = left
            .nodes
            .iter()
            .map(|row| (row.name.clone(), row.id.clone()))
            .collect();

        let clock = Clock::start();
        let bare = left.queues.is_empty();
        let mut core = Core::new(Settings::default(), left, clock.now());
        if bare {
            core.set_queue(
                clock.now(),
                "controller",
                "default",
                api::queue::QueueSettings::default(),
            );
        }
        let mut metrics = Metrics::new();
        let stats = store.clone();
        metrics.watch_store(move || stats.stats());
        let metrics = Arc::new(metrics);

        let end = stop.child_token();
        let _end_with_this = end.clone().drop_guard();
        let tasks = TaskTracker::new();
        let (leases, leading) = watch::channel(lease);
        let acts: Arc<OnceLock<Acts>> = Arc::default();
        let late = Arc::clone(&acts);
        let act = move |deeds: Deeds| {
            if let Some(acts) = late.get() {
                acts.act(deeds);
            }
        };
        let (dispatcher, dispatch) = Dispatcher::new(
            core,
            clock,
            store.clone(),
            leading,
            Arc::clone(&metrics),
            Arc::new(act),
        );
        let fleet = Arc::new(Fleet::new(
            dispatch.clone(),
            Arc::clone(&metrics),
            end.clone(),
        ));
        for (name, id) in &named {
            fleet.name(name, id);
        }
        let relay = Relay::new(
            Arc::clone(&fleet) as _,
            Arc::new(Trail::new(dispatch.clone(), &tasks, end.clone())),
            Limits::default(),
            tasks.clone(),
            end.clone(),
        );
        let root = self.options.state.join("vault");
        let vault = Vault::at(self.options.vault.as_deref(), &root)
            .await
            .context("open the vault")?;
        let collector = Collector::new(
            relay.clone(),
            vault.clone(),
            store.clone(),
            dispatch.clone(),
            Arc::clone(&fleet),
            tasks.clone(),
            end.clone(),
        );
        let stock = Stock::new(
            stock::Parts {
                vault: vault.clone(),
                relay: relay.clone(),
                dispatch: dispatch.clone(),
                fleet: Arc::clone(&fleet),
                tasks: tasks.clone(),
                stop: end.clone(),
            },
            images.get(stock::SETTING),
        )
        .context("understand the list of images")?;
        let known = acts.set(Acts {
            fleet: Arc::clone(&fleet),
            stock: Arc::clone(&stock),
            collector,
            metrics: Arc::clone(&metrics),
        });
        known.ok().context("the acts are set once")?;
        let authority = Authority::from_pem(self.authority.cert_pem(), &self.authority.key_pem())
            .context("use the authority")?;
        let life = Duration::from_secs(self.options.node_life);
        let enrolment = Enrolment::new(
            authority,
            tokens,
            dispatch.clone(),
            Arc::clone(&revoked),
            self.options.reenrol,
            life,
        );
        let office = Office::new(
            dispatch.clone(),
            store.clone(),
            Arc::clone(&fleet),
            enrolment,
            Arc::clone(&revoked),
            Arc::clone(&stock),
        );
        let shelf = Shelf::new(vault.clone(), Arc::clone(&stock));
        let router = crate::http::router(Parts {
            desk: office,
            history: store.clone(),
            vault: shelf,
            metrics: Arc::clone(&metrics),
            tracker: tasks.clone(),
            stop: end.clone(),
        });
        let router = router.merge(crate::relay::docker::router(relay));
        let tls = self.tls(revoked)?;
        let port = Port::new(tls, Arc::clone(&fleet), router, tasks.clone(), end.clone());
        let listener = self.listen().await?;
        let address = listener.local_addr().context("find the port")?;
        tracing::info!(%address, ca = %pki::Pin::of_pem(self.authority.cert_pem())?, "listening");
        *settled = true;

        tasks.spawn(port.run(listener));
        tasks.spawn(janitor::run(vault, store.clone(), stock, end.clone()));
        tasks.spawn(gauges(dispatch, metrics, end.clone()));
        let ended = tokio::select! {
            ended = dispatcher.run(end.clone()) => ended.map_err(anyhow::Error::from),
            lost = keep_lead(store, leases) => Err(lost),
        };
        end.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!("not everything ended in time");
        }
        ended
    }

    fn tls(&self, revoked: Arc<Revoked>) -> anyhow::Result<tokio_rustls::TlsAcceptor> {
        let always = ["127.0.0.1", "localhost"];
        let given = self.options.names.iter().map(String::as_str);
        let mut names: Vec<&str> = given.collect();
        names.extend(
            always
                .iter()
                .filter(|name| !self.options.names.iter().any(|it| it == *name)),
        );
        let own = self
            .authority
            .issue_controller(&names, Validity::days(OWN_DAYS))
            .context("make the controller's certificate")?;
        let tls = pki::controller_server_config(
            self.authority.cert_pem(),
            &own.cert_pem,
            &own.key_pem,
            revoked,
        )
        .context("use the controller's certificate")?;
        Ok(tls.into())
    }

    async fn listen(&self) -> anyhow::Result<TcpListener> {
        let address = self.options.listen;
        let listener = TcpListener::bind(address).await;
        listener.with_context(|| format!("listen on {address}"))
    }
}

/// What is done when it is durable.
struct Acts {
    fleet: Arc<Fleet>,
    stock: Arc<Stock>,
    collector: Collector,
    metrics: Arc<Metrics>,
}

impl Acts {
    fn act(&self, deeds: Deeds) {
        for instruction in deeds.orders {
            self.stock.deliver(instruction);
        }
        for collect in deeds.collect {
            self.collector.collect(collect);
        }
        for orphan in deeds.late {
            self.collector.late(orphan);
        }
        for (node, why) in deeds.dismiss {
            self.fleet.dismiss(&node, &why);
        }
        for end in deeds.conclusions {
            let wait = Duration::from_millis(end.waited_ms.unwrap_or(end.total_ms));
            let ran = end.ran_ms.map(Duration::from_millis);
            self.metrics.job_ended(&end.queue, end.state, wait, ran);
        }
        for (queue, mark) in deeds.marks {
            match mark {
                Mark::Submitted => self.metrics.job_submitted(&queue),
                Mark::Disconnected => self.metrics.job_disconnected(&queue),
                Mark::Requeued => self.metrics.job_requeued(&queue),
            }
        }
    }
}

/// Renews the lead until it is lost.
async fn keep_lead(store: &Store, leases: watch::Sender<Lease>) -> anyhow::Error {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let lease = leases.borrow().clone();
        match store.renew(&lease).await {
            Ok(renewed) => {
                leases.send_replace(renewed);
            }
            Err(store::LeadError::Unavailable { source }) => {
                // commits say what that means for people
                tracing::warn!(error = crate::chain(&source), "the lead was not renewed");
            }
            Err(error) => return anyhow::Error::from(error).context("keep the lead"),
        }
    }
}

async fn gauges(dispatch: Dispatch, metrics: Arc<Metrics>, stop: CancellationToken) {
    loop {
        let look = dispatch.ask(|core, _now| (core.queues(), core.node_states()));
        if let Ok((queues, states)) = look.await {
            for queue in queues {
                metrics.queue(&queue.name, queue.waiting, queue.running);
            }
            for state in FleetState::ALL {
                let here = states.iter().filter(|it| FleetState::from(*it) == state);
                metrics.nodes(state, here.count());
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(GAUGES) => {}
        }
    }
}
