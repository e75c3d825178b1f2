//! The controller behind its [`Desk`]: what may be asked is looked at here, decided by the lifecycle,
//! and read back from the store.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use api::booking::{BookingRequest, BookingView};
use api::fleet::{
    EnrolAnswer, EnrolRequest, NodeChange, NodeId, NodeView, PendingNode, RenewAnswer,
    TokenRequest, TokenView,
};
use api::health::{HealthCheck, HealthCheckView};
use api::job::{JobId, JobRequest, JobStatus};
use api::queue::{QueueSettings, QueueView};
use policy::Role;
use sched::Refused;
use sha2::{Digest as _, Sha256};
use store::{Change, Digest, ReadError, Store, Submission};

use crate::desk::{Caller, Desk, Explanation};
use crate::dispatch::Dispatch;
use crate::enrol::Enrolment;
use crate::fleet::Fleet;
use crate::lifecycle::{Check, Core, Millis, Wanted};
use crate::refusal::{Kind, Refusal};
use crate::stock::Stock;

mod booking;

/// Submissions whose commit is still on its way; beyond this the oldest are the store's to know.
const UNDER_WAY: usize = 10_000;

/// The desk of a running controller.
#[derive(Debug, Clone)]
pub struct Office {
    pub dispatch: Dispatch,
    pub store: Store,
    pub fleet: Arc<Fleet>,
    pub enrolment: Arc<Enrolment>,
    pub revoked: Arc<crate::authority::Revoked>,
    pub images: Arc<Stock>,
    /// By user and idempotency key: submissions that the store may not know yet.
    submissions: Arc<Mutex<UnderWay>>,
}

type UnderWay = HashMap<(String, String), (Digest, Vec<JobId>)>;

impl Office {
    #[must_use]
    pub fn new(
        dispatch: Dispatch,
        store: Store,
        fleet: Arc<Fleet>,
        enrolment: Arc<Enrolment>,
        revoked: Arc<crate::authority::Revoked>,
        images: Arc<Stock>,
    ) -> Self {
        Self {
            dispatch,
            store,
            fleet,
            enrolment,
            revoked,
            images,
            submissions: Arc::default(),
        }
    }

    /// The jobs that an earlier submission with this key made.
    async fn submitted(
        &self,
        user: &str,
        key: &str,
        print: Digest,
    ) -> Result<Option<Vec<JobStatus>>, Refusal> {
        let stored = self.store.submission(user, key).await.map_err(unreadable)?;
        let Some(Submission {
            fingerprint, jobs, ..
        }) = stored
        else {
            return Ok(None);
        };
        same_request(key, fingerprint, print)?;
        let mut statuses = Vec::with_capacity(jobs.len());
        for id in jobs {
            statuses.push(self.job(id).await?);
        }
        Ok(Some(statuses))
    }

    /// The digest of an image, for all nodes and repetitions of a job: what somebody has loaded on one of
    /// the nodes is not it.
    fn image(&self, name: &str) -> Result<String, Refusal> {
        self.images.resolve(name).ok_or_else(|| {
            Refusal::new(Kind::NoSuchImage, format!("the controller has no image {name:?}"))
                .next("still image push FILE or docker:NAME sends it; still image list shows what is there")
        })
    }

    /// What only its connection knows of a node.
    fn complete(&self, mut view: NodeView) -> NodeView {
        if let Some(session) = self.fleet.session(&view.id) {
            view.received = session.received.load(Ordering::Relaxed);
            view.sent = session.sent.load(Ordering::Relaxed);
            view.seen_ms = Some(session.seen_ms.load(Ordering::Relaxed));
        }
        view
    }
}

fn unreadable(error: ReadError) -> Refusal {
    let kind = match error {
        ReadError::Unavailable { .. } => Kind::StoreUnavailable,
        ReadError::Malformed { .. } => Kind::Internal,
    };
    Refusal::new(kind, crate::chain(&error))
}

fn same_request(key: &str, one: Digest, other: Digest) -> Result<(), Refusal> {
    if one == other {
        return Ok(());
    }
    let detail = format!("the idempotency key {key:?} was used for another request");
    Err(Refusal::new(Kind::KeyReused, detail).next("use a new key for each new submission"))
}

fn no_such_job(id: JobId) -> Refusal {
    Refusal::new(Kind::NoSuchJob, format!("there is no job {id}")).next("still jobs lists them")
}

fn no_such_node(name: &str) -> Refusal {
    Refusal::new(Kind::NoSuchNode, format!("there is no node {name:?}"))
        .next("still nodes lists them")
}

fn admin_only(caller: &Caller, what: &str) -> Result<(), Refusal> {
    match caller.role {
        Role::Admin => Ok(()),
        Role::User => Err(
            Refusal::new(Kind::Forbidden, format!("role `user` may not {what}"))
                .next("use a certificate of role `admin`"),
        ),
    }
}

fn refused(index: usize, many: bool, refused: &Refused) -> Refusal {
    let (kind, field, next) = match refused {
        Refused::NoQueue { .. } => (Kind::NoSuchQueue, "queue", "still queue list shows them"),
        Refused::Draining { .. } => (Kind::QueueDraining, "queue", "use another queue, or wait"),
        Refused::Full { .. } => (Kind::QueueFull, "queue", "wait until some have started"),
        Refused::NotAllowed { .. } => (Kind::Forbidden, "queue", "use another queue"),
        Refused::Nothing | Refused::TooWide { .. } => (
            Kind::Invalid,
            "place",
            "ask for at least one node and one CPU",
        ),
        Refused::NoTime => (Kind::Invalid, "limits", "give it some time"),
    };
    let pointer = if many {
        format!("/{index}/{field}")
    } else {
        format!("/{field}")
    };
    Refusal::new(kind, refused.to_string())
        .at(pointer)
        .next(next)
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::User => "user",
    }
}

impl Desk for Office {
    async fn submit(
        &self,
        caller: &Caller,
        key: Option<String>,
        requests: Vec<JobRequest>,
    ) -> Result<Vec<JobStatus>, Refusal> {
        let many = requests.len() != 1;
        let text = serde_json::to_vec(&requests)
            .map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?;
        let print = Digest(Sha256::digest(&text).into());
        if let Some(key) = &key
            && let Some(statuses) = self.submitted(&caller.user, key, print).await?
        {
            return Ok(statuses);
        }
        let (user, role) = (caller.user.clone(), role_word(caller.role));
        let under_way = Arc::clone(&self.submissions);
        let own_key = key.clone();
        let mut wanted = Vec::with_capacity(requests.len());
        for request in requests {
            let name = request.image.as_deref();
            let image = name.map(|name| self.image(name)).transpose()?;
            wanted.push(Wanted { image, request });
        }
        let act = move |core: &mut Core, now: Millis| {
            let mut under_way = under_way.lock().expect("nothing panics while it holds it");
            if let Some(key) = &own_key
                && let Some((known, ids)) = under_way.get(&(user.clone(), key.clone()))
            {
                let same = same_request(key, *known, print);
                return (same.map(|()| Submitted::Before(ids.clone())), Vec::new());
            }
            let taken = match core.submit(now, &user, role, wanted) {
                Ok(taken) => taken,
                Err((index, why)) => return (Err(refused(index, many, &why)), Vec::new()),
            };
            let mut changes = Vec::new();
            if let Some(key) = own_key {
                let jobs: Vec<JobId> = taken.iter().map(|status| status.id).collect();
                if under_way.len() >= UNDER_WAY {
                    under_way.clear();
                }
                under_way.insert((user.clone(), key.clone()), (print, jobs.clone()));
                changes.push(Change::Submission(Submission {
                    user,
                    key,
                    fingerprint: print,
                    jobs,
                    at_ms: now,
                }));
            }
            (Ok(Submitted::Now(taken)), changes)
        };
        match self.dispatch.ask_with(act).await?? {
            Submitted::Now(statuses) => Ok(statuses),
            Submitted::Before(ids) => {
                let mut statuses = Vec::with_capacity(ids.len());
                for id in ids {
                    statuses.push(self.job(id).await?);
                }
                Ok(statuses)
            }
        }
    }

    async fn cancel(
        &self,
        caller: &Caller,
        id: JobId,
        reason: Option<String>,
    ) -> Result<JobStatus, Refusal> {
        let known = self.job(id).await?;
        if caller.role != Role::Admin && known.user != caller.user {
            let detail = format!("job {id} is {}'s", known.user);
            return Err(Refusal::new(Kind::Forbidden, detail)
                .next("ask its submitter, or use a certificate of role `admin`"));
        }
        let user = caller.user.clone();
        let act = move |core: &mut Core, now| core.cancel(now, &user, id, reason.as_deref());
        match self.dispatch.ask(act).await? {
            Some(status) => Ok(status),
            None => {
                let known = self.job(id).await?;
                let detail = format!("job {id} is over: {}", known.state);
                Err(Refusal::new(Kind::Conflict, detail))
            }
        }
    }

    async fn job(&self, id: JobId) -> Result<JobStatus, Refusal> {
        let record = self.store.job(id).await.map_err(unreadable)?;
        record
            .map(|record| record.status)
            .ok_or_else(|| no_such_job(id))
    }

    async fn why(&self, id: JobId) -> Result<Explanation, Refusal> {
        let why = self
            .dispatch
            .ask(move |core, now| core.why(now, id))
            .await?;
        if let Some(why) = why {
            return Ok(why);
        }
        let status = self.job(id).await?;
        let reason = status
            .reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        Ok(Explanation {
            state: status.state,
            reasons: Vec::new(),
            could_start_ms: None,
            text: vec![format!("it is over, {}{reason}", status.state)],
        })
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Refusal> {
        let views = self.dispatch.ask(|core, _now| core.node_views()).await?;
        Ok(views.into_iter().map(|view| self.complete(view)).collect())
    }

    async fn node(&self, name: &str) -> Result<NodeView, Refusal> {
        let wanted = name.to_owned();
        let look = move |core: &mut Core, _now| {
            let id = core.node_named(&wanted)?.id.clone();
            core.node_views().into_iter().find(|view| view.id == id)
        };
        let view = self.dispatch.ask(look).await?;
        view.map(|view| self.complete(view))
            .ok_or_else(|| no_such_node(name))
    }

    async fn change_node(
        &self,
        caller: &Caller,
        id: &NodeId,
        change: NodeChange,
    ) -> Result<NodeView, Refusal> {
        admin_only(caller, "change nodes")?;
        let (user, own) = (caller.user.clone(), id.clone());
        let act = move |core: &mut Core, now| core.change_node(now, &user, &own, &change);
        if !self.dispatch.ask(act).await? {
            return Err(no_such_node(id.as_str()));
        }
        self.node(id.as_str()).await
    }

    async fn revoke(&self, caller: &Caller, id: &NodeId) -> Result<NodeView, Refusal> {
        admin_only(caller, "revoke nodes")?;
        let (user, own, revoked) = (caller.user.clone(), id.clone(), Arc::clone(&self.revoked));
        let act = move |core: &mut Core, now: Millis| {
            let all = core.revoke(now, &user, &own);
            let known = all.is_some();
            let why = format!("by {user}");
            let changes = revoked.take_back(now, &own, all.unwrap_or_default(), &why);
            (known, changes)
        };
        if !self.dispatch.ask_with(act).await? {
            return Err(no_such_node(id.as_str()));
        }
        self.node(id.as_str()).await
    }

    async fn pending(&self) -> Result<Vec<PendingNode>, Refusal> {
        Ok(self.enrolment.pending())
    }

    async fn approve(&self, caller: &Caller, fingerprint: &str) -> Result<PendingNode, Refusal> {
        admin_only(caller, "approve machines")?;
        self.enrolment.approve(caller, fingerprint)
    }

    async fn enrol(
        &self,
        address: SocketAddr,
        request: EnrolRequest,
    ) -> Result<EnrolAnswer, Refusal> {
        self.enrolment.enrol(address, request).await
    }

    async fn renew(&self, node: &NodeId, csr_pem: &str) -> Result<RenewAnswer, Refusal> {
        let cert_pem = self.enrolment.renew(node, csr_pem).await?;
        Ok(RenewAnswer { cert_pem })
    }

    async fn queues(&self) -> Result<Vec<QueueView>, Refusal> {
        self.dispatch.ask(|core, _now| core.queues()).await
    }

    async fn set_queue(
        &self,
        caller: &Caller,
        name: &str,
        settings: QueueSettings,
    ) -> Result<QueueView, Refusal> {
        admin_only(caller, "change queues")?;
        let (user, own) = (caller.user.clone(), name.to_owned());
        let act = move |core: &mut Core, now| {
            core.set_queue(now, &user, &own, settings);
            core.queues().into_iter().find(|queue| queue.name == own)
        };
        let view = self.dispatch.ask(act).await?;
        view.ok_or_else(|| Refusal::new(Kind::NoSuchQueue, format!("there is no queue {name:?}")))
    }

    async fn remove_queue(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        admin_only(caller, "remove queues")?;
        let (user, own) = (caller.user.clone(), name.to_owned());
        let act = move |core: &mut Core, now| {
            let known = core.queue(&own).is_some();
            (known, core.remove_queue(now, &user, &own))
        };
        match self.dispatch.ask(act).await? {
            (_, true) => Ok(()),
            (false, _) => {
                let detail = format!("there is no queue {name:?}");
                Err(Refusal::new(Kind::NoSuchQueue, detail).next("still queue list shows them"))
            }
            (true, false) => {
                let detail = format!("jobs are in queue {name:?}");
                Err(Refusal::new(Kind::Conflict, detail).next("drain it first: still queue drain"))
            }
        }
    }

    async fn bookings(&self) -> Result<Vec<BookingView>, Refusal> {
        self.dispatch.ask(|core, _now| core.bookings()).await
    }

    async fn book(&self, caller: &Caller, request: BookingRequest) -> Result<BookingView, Refusal> {
        let caller = caller.clone();
        let act = move |core: &mut Core, now| booking::book(core, now, &caller, request);
        self.dispatch.ask(act).await?
    }

    async fn unbook(&self, caller: &Caller, id: u64) -> Result<(), Refusal> {
        let caller = caller.clone();
        let act = move |core: &mut Core, now| booking::unbook(core, now, &caller, id);
        self.dispatch.ask(act).await?
    }

    async fn health_check(&self) -> Result<HealthCheckView, Refusal> {
        self.dispatch.ask(|core, _now| core.health()).await
    }

    async fn set_health_check(
        &self,
        caller: &Caller,
        check: Option<HealthCheck>,
    ) -> Result<HealthCheckView, Refusal> {
        admin_only(caller, "set the health check")?;
        let user = caller.user.clone();
        let image = check.as_ref().and_then(|it| it.job.image.as_deref());
        let image = image.map(|name| self.image(name)).transpose()?;
        let act = move |core: &mut Core, now| {
            let queue = check.as_ref().map(|it| it.job.queue.as_str());
            if let Some(name) = queue.filter(|name| core.queue(name).is_none()) {
                let detail = format!("there is no queue {name:?}");
                let refusal = Refusal::new(Kind::NoSuchQueue, detail);
                return Err(refusal.at("/job/queue").next("still queue list shows them"));
            }
            let check = check.map(|check| Check {
                check,
                image,
                user: user.clone(),
            });
            core.set_health_check(now, &user, check);
            Ok(core.health())
        };
        self.dispatch.ask(act).await?
    }

    async fn tokens(&self, caller: &Caller) -> Result<Vec<TokenView>, Refusal> {
        admin_only(caller, "list tokens")?;
        Ok(self.enrolment.tokens())
    }

    async fn make_token(
        &self,
        caller: &Caller,
        request: TokenRequest,
    ) -> Result<TokenView, Refusal> {
        admin_only(caller, "make tokens")?;
        self.enrolment.make_token(caller, request).await
    }

    async fn revoke_token(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        admin_only(caller, "revoke tokens")?;
        self.enrolment.revoke_token(id).await
    }
}

enum Submitted {
    Now(Vec<JobStatus>),
    Before(Vec<JobId>),
}
