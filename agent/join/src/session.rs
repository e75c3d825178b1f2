//! One connection to the controller, from its tunnel's first byte to its last.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use api::work::{CONTROL, NOTICE, ROUTER};
use pki::{Protocol, RoleName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::{Acceptor, End, Head, Incoming, Stream};

use crate::dial::{Line, dial};
use crate::error::AttemptError;
use crate::identity::Identity;
use crate::lifetime::{millis, until};
use crate::options::JoinOptions;
use crate::quiet::Quiet;
use crate::status::{Chronicle, Phase};

/// A service at work on its stream.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// For whom the controller opens a stream to the node's router. The node believes it: nobody else can
/// open streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub role: RoleName,
    pub user: String,
}

/// What the controller finds at the node. A stream's end is the end of its service; one that does not
/// see it is dropped a little later ([`Deadlines::settle`](crate::Deadlines::settle)).
///
/// When this side ends the tunnel, the control service is dropped at once and may be so at any await:
/// for the controller that is a lost connection like any other, and the next one begins with a hello.
/// Router streams get the time of [`Deadlines::farewell`](crate::Deadlines::farewell).
pub trait Services: Send + Sync {
    /// Orders and reports ([`api::work`]); there is one such stream at a time.
    fn control(&self, stream: Stream) -> Serving;

    /// HTTP/1.1 for the node's router.
    fn router(&self, stream: Stream, caller: Caller) -> Serving;
}

/// How a session came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The agent goes down.
    Stopped,
    /// For the newer certificate.
    Renewed,
    /// All others; the tunnel lived for so long.
    Lost { lived: Duration, why: AttemptError },
}

/// What a session needs of its node.
pub(crate) struct Context<'a> {
    pub(crate) options: &'a JoinOptions,
    pub(crate) services: &'a Arc<dyn Services>,
    pub(crate) chronicle: &'a Chronicle,
    pub(crate) identities: watch::Receiver<Option<Identity>>,
    pub(crate) stop: &'a CancellationToken,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// Dials as `identity` and serves until the connection ends, one way or another.
pub(crate) async fn run(context: &Context<'_>, identity: &Identity) -> Ended {
    let lost = |why| Ended::Lost {
        lived: Duration::ZERO,
        why,
    };
    let connected = tokio::select! {
        biased;
        () = context.stop.cancelled() => return Ended::Stopped,
        connected = connect(context.options, identity) => connected,
    };
    match connected {
        Ok(joined) => serve(context, identity, joined).await,
        Err(why) => lost(why),
    }
}

/// A tunnel, with its driver at work.
struct Joined {
    acceptor: Acceptor,
    driver: tokio::task::JoinHandle<End>,
    line: Wiring,
}

/// What is left of a line when its bytes are the tunnel's.
struct Wiring {
    socket: Option<socket2::Socket>,
    address: std::net::SocketAddr,
}

async fn connect(options: &JoinOptions, identity: &Identity) -> Result<Joined, AttemptError> {
    let config = identity
        .config(Protocol::Tunnel)
        .map_err(AttemptError::Config)?;
    let Line {
        mut tls,
        socket,
        address,
    } = dial(options, &config).await?;
    let alert = tls.alert();
    let within = options.deadlines.tls;
    let heard = timeout(within, tls.hear()).await;
    if let Some(alert) = alert.get() {
        return Err(AttemptError::CertificateRefused(alert));
    }
    heard
        .map_err(|_elapsed| AttemptError::Mute { within })?
        .map_err(AttemptError::Closed)?;
    let accepted = tunnel::accept(tls, &options.deadlines.tunnel).await;
    let (acceptor, driver) = accepted.map_err(AttemptError::Tunnel)?;
    Ok(Joined {
        acceptor,
        driver: tokio::spawn(driver),
        line: Wiring { socket, address },
    })
}

async fn serve(context: &Context<'_>, identity: &Identity, joined: Joined) -> Ended {
    let Joined {
        mut acceptor,
        driver,
        line,
    } = joined;
    let options = context.options;
    let began = Instant::now();
    let handle = acceptor.handle();
    let attached = options.quiet.attach(
        handle.clone(),
        line.socket,
        options.deadlines.tunnel.liveness,
    );
    context.chronicle.phase(Phase::Connected {
        since_ms: millis(SystemTime::now()),
        address: line.address.to_string(),
    });
    let mut desk = Desk::new(context.services);
    let time_to_redial = time_to_redial(
        identity,
        context.identities.clone(),
        &options.quiet,
        desk.routers.subscribe(),
    );
    let settled = sleep(options.backoff.settled);
    tokio::pin!(time_to_redial, settled);
    let mut has_settled = false;
    let mut own_end = None;
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled(), if !matches!(own_end, Some(Ended::Stopped)) => {
                own_end = Some(Ended::Stopped);
                desk.cut_control.cancel();
                handle.go_away(options.deadlines.farewell);
            }
            incoming = acceptor.next() => match incoming {
                Some(incoming) => desk.take(incoming),
                None => break,
            },
            () = &mut time_to_redial, if own_end.is_none() => {
                own_end = Some(Ended::Renewed);
                desk.cut_control.cancel();
                handle.go_away(options.deadlines.farewell);
            }
            () = &mut settled, if !has_settled => {
                has_settled = true;
                context.chronicle.settled();
            }
        }
    }
    let end = handle.closed().await;
    // It ends with the tunnel, and says the same.
    drop(driver.await);
    drop(attached);
    desk.close(options.deadlines.settle).await;
    own_end.unwrap_or_else(|| Ended::Lost {
        lived: began.elapsed(),
        why: match desk.notice {
            Some(notice) => AttemptError::Notice(notice),
            None => AttemptError::Ended(end),
        },
    })
}

/// Ready when there is a newer identity and this one is about to end: at once if no router stream is
/// open, and at its end in any case. Never during a silence.
async fn time_to_redial(
    identity: &Identity,
    mut identities: watch::Receiver<Option<Identity>>,
    quiet: &Quiet,
    mut routers: watch::Receiver<usize>,
) {
    let newer = identities.wait_for(|known| known.as_ref().is_some_and(|known| known != identity));
    if newer.await.is_err() {
        return std::future::pending().await;
    }
    until(identity.life.redial_from()).await;
    let idle = async {
        loop {
            quiet.spoken().await;
            if routers.wait_for(|open| *open == 0).await.is_err() {
                return std::future::pending().await;
            }
            if !quiet.is_silent() {
                return;
            }
        }
    };
    let last_moment = async {
        until(identity.life.to).await;
        quiet.spoken().await;
    };
    tokio::select! {
        () = idle => {}
        () = last_moment => {}
    }
}

/// Hands streams to their services.
struct Desk<'a> {
    services: &'a Arc<dyn Services>,
    tasks: TaskTracker,
    cut: CancellationToken,
    /// A part of it.
    cut_control: CancellationToken,
    control_open: Arc<AtomicBool>,
    /// How many router streams are open.
    routers: watch::Sender<usize>,
    /// What the controller says of the end that is coming.
    notice: Option<String>,
}

impl<'a> Desk<'a> {
    fn new(services: &'a Arc<dyn Services>) -> Self {
        let cut = CancellationToken::new();
        Self {
            services,
            tasks: TaskTracker::new(),
            cut_control: cut.child_token(),
            cut,
            control_open: Arc::default(),
            routers: watch::Sender::new(0),
            notice: None,
        }
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming.head().service() {
            CONTROL => {
                if self.control_open.swap(true, Ordering::SeqCst) {
                    incoming.refuse("a control stream is open already");
                    return;
                }
                let open = Flag(Arc::clone(&self.control_open));
                let serve = |services: &dyn Services, stream| services.control(stream);
                self.accept(incoming, serve, open, &self.cut_control);
            }
            ROUTER => match caller(incoming.head()) {
                Err(why) => incoming.refuse(why),
                Ok(caller) => {
                    let open = Counted::new(&self.routers);
                    let serve = |services: &dyn Services, stream| services.router(stream, caller);
                    self.accept(incoming, serve, open, &self.cut);
                }
            },
            NOTICE => {
                let reason = incoming.head().get("reason").unwrap_or("no reason given");
                self.notice = Some(reason.to_owned());
                incoming.refuse("noted");
            }
            other => {
                let why = format!("this node has no service {other:?}");
                incoming.refuse(&why);
            }
        }
    }

    fn accept<O: Send + 'static>(
        &self,
        incoming: Incoming,
        serve: impl FnOnce(&dyn Services, Stream) -> Serving,
        open: O,
        cut: &CancellationToken,
    ) {
        match incoming.accept() {
            Ok(stream) => {
                let serving = serve(self.services.as_ref(), stream);
                let cut = cut.clone();
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = serving => {}
                    }
                    drop(open);
                });
            }
            Err(error) => tracing::debug!(error = %error, "nobody waits for the stream any more"),
        }
    }

    /// The tunnel has ended, and so all streams have.
    async fn close(&self, settle: Duration) {
        self.tasks.close();
        if timeout(settle, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                services = self.tasks.len(),
                "did not notice that their streams ended; dropped"
            );
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

fn caller(head: &Head) -> Result<Caller, &'static str> {
    let role = head.get("role").and_then(RoleName::parse);
    let user = head.get("user").filter(|user| !user.is_empty());
    match (role, user) {
        (None, _) => Err("the head has no role, or one that is unknown: admin or user"),
        (_, None) => Err("the head has no user"),
        (Some(role), Some(user)) => Ok(Caller {
            role,
            user: user.to_owned(),
        }),
    }
}

/// Lowered when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Counted until it is dropped.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
