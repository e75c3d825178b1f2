//! Placement, node API and engine gate with a memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use policy::{CpuChoice, Denial, NodeFacts, Pin, Role};
use serde_json::{Value, json};
use stillmetal_proxy::{
    Body, Claimed, EngineGate, EngineStatus, EventLog, NodeApi, Placement, StoreSpace,
};

use crate::documents::{self, FakeDocument};

/// Of the image store.
pub const STORE: StoreSpace = StoreSpace {
    free: 1_234,
    total: 5_678,
};

/// A node around an engine. Who asks for `/stillmetal/…` is told the role and the path, unless it is a
/// document.
#[derive(Debug)]
pub struct FakeNode {
    socket: PathBuf,
    /// The engine is being started, and why.
    pub not_ready: Mutex<Option<String>>,
    pub refuse_claims: Mutex<Option<Denial>>,
    pub refuse_starts: Mutex<Option<Denial>>,
    /// By path.
    pub documents: Mutex<BTreeMap<String, FakeDocument>>,
    /// What it adds to the engine's events.
    pub told: EventLog,
    /// What was asked, in order.
    pub log: Mutex<Vec<String>>,
}

impl FakeNode {
    /// Its engine listens there.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            documents: Mutex::default(),
            not_ready: Mutex::default(),
            refuse_claims: Mutex::default(),
            refuse_starts: Mutex::default(),
            told: EventLog::default(),
            log: Mutex::default(),
        }
    }

    fn note(&self, event: String) {
        self.log.lock().unwrap().push(event);
    }

    #[must_use]
    pub fn events(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Placement for FakeNode {
    fn facts(&self) -> NodeFacts {
        NodeFacts {
            isolated: "2-3".parse().unwrap(),
            housekeeping: "0-1".parse().unwrap(),
            unfit: None,
        }
    }

    fn claim<'a>(
        &'a self,
        pin: &'a Pin,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Claimed, Denial>> {
        Box::pin(async move {
            if let Some(denial) = self.refuse_claims.lock().unwrap().clone() {
                return Err(denial);
            }
            let CpuChoice::Exact(cpus) = &pin.cpus else {
                panic!("exact CPUs only here")
            };
            self.note(format!("claim {cpus} for {}", name.unwrap_or("-")));
            Ok(Claimed {
                cgroup_parent: "/stillmetal-t1".into(),
                runtime: None,
                token: "t1".into(),
            })
        })
    }

    fn created<'a>(&'a self, token: &'a str, container_id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.note(format!("created {token} {container_id}")) })
    }

    fn abandoned<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.note(format!("abandoned {token}")) })
    }

    fn started<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.note(format!("started {id_or_name}")) })
    }

    fn starting<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, Result<(), Denial>> {
        Box::pin(async move {
            self.note(format!("starting {id_or_name}"));
            self.refuse_starts
                .lock()
                .unwrap()
                .clone()
                .map_or(Ok(()), Err)
        })
    }

    fn restore_view(&self, inspect: &mut Value) {
        if let Some(config) = inspect.get_mut("HostConfig").and_then(Value::as_object_mut)
            && config.get("CgroupParent") == Some(&json!("/stillmetal-t1"))
        {
            config.insert("CgroupParent".into(), json!(""));
            config.insert("CpusetCpus".into(), json!("2"));
        }
    }
}

impl NodeApi for FakeNode {
    fn handle(&self, role: Role, request: Request<Incoming>) -> BoxFuture<'_, Response<Body>> {
        let path = request.uri().path().to_owned();
        let document = self.documents.lock().unwrap().get(&path).cloned();
        Box::pin(async move {
            if let Some(document) = document {
                self.note(format!("{path} {}", documents::range(&request)));
                return document.answer(&request);
            }
            stillmetal_proxy::json(StatusCode::OK, &json!({ "role": role, "path": path }))
        })
    }
}

impl EngineGate for FakeNode {
    fn engine(&self) -> EngineStatus {
        match self.not_ready.lock().unwrap().clone() {
            Some(why) => EngineStatus::NotReady { why },
            None => EngineStatus::Ready(self.socket.clone()),
        }
    }

    fn store(&self) -> Option<StoreSpace> {
        Some(STORE)
    }
}
