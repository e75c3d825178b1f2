//! A node for tests of its parts.

use std::sync::{Arc, OnceLock};

use host::Tree;
use host::fakes::{FakeMsrs, FakePerf, FakeTree};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certify::{self, Certifier};
use crate::engine::Engine;
use crate::engine::client::EngineClient;
use crate::placement::Placer;
use crate::placement::ledger::Token;
use crate::runs::{self, Runs};
use crate::selftest::SelfTester;
use crate::tools::{self, Toolbox};
use crate::{Node, Parts, Processes, SharedReport, since_boot};

/// A node of which nothing can be read, whose engine does not answer.
pub(crate) fn node(folder: &std::path::Path) -> Node {
    let tree: Arc<dyn Tree> = Arc::new(FakeTree::new());
    let client = EngineClient::new(&folder.join("no-engine.sock"));
    let claims = folder.join("claims");
    let (engine, stop) = (Arc::new(client.clone()), CancellationToken::new());
    let placer = Placer::open(
        &claims,
        Arc::clone(&tree),
        engine,
        since_boot,
        Token::random,
    );
    let placer = Arc::new(placer.unwrap());
    let (tasks, report) = (TaskTracker::new(), SharedReport::default());
    let measuring = certify::Parts {
        placer: Arc::clone(&placer),
        tree: Arc::clone(&tree),
        msrs: Arc::new(FakeMsrs::default()),
        client: client.clone(),
        run_dir: folder.to_owned(),
        agent: "/nonexistent/agent".into(),
        tasks: tasks.clone(),
        stop: stop.clone(),
        report: Arc::clone(&report),
        plan: Arc::new(OnceLock::new()),
        unproven: None,
        join_dir: folder.join("join"),
    };
    let selftest = SelfTester::new(measuring.clone());
    let certifier = Arc::new(Certifier::new(measuring));
    let processes = Processes::new(
        Arc::clone(&placer),
        Arc::clone(&tree),
        "/nonexistent/agent".into(),
        tasks.clone(),
        stop.clone(),
    );
    let runs = Runs::new(runs::Parts {
        certifier: Arc::clone(&certifier),
        placer: Arc::clone(&placer),
        client: client.clone(),
        tasks,
        stop,
        owner: None,
        images_used: None,
        tools: Arc::new(Toolbox::new(tools::Parts {
            tree: Arc::clone(&tree),
            perf: Arc::new(FakePerf::new()),
            placer: Arc::clone(&placer),
            report: Arc::clone(&report),
        })),
    });
    Node::new(Parts {
        tree,
        engine: Engine::off("a test".into()),
        client,
        placer,
        processes,
        certifier,
        runs,
        selftest,
        report,
        memory_low: None,
        host: None,
    })
}
