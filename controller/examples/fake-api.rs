//! The controller's API without a controller: a fake in memory, on plain HTTP, for trying a client or a
//! test tool against it.
//!
//! `cargo run -p stillmetal-controller --example fake-api -- [admin|user|node|nobody] [PORT]`; it prints
//! its address. `-- openapi` prints the API's document instead.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use api::fleet::NodeId;
use api::job::{JobId, JobState};
use axum::Extension;
use stillmetal_controller::desk::{Caller, Desk as _};
use stillmetal_controller::http::fakes::FakeController;
use stillmetal_controller::http::{Parts, Peer, openapi, router};
use stillmetal_controller::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A bit of everything, so that ids and names can be found.
async fn furnish(fake: &FakeController, caller: &Caller) -> Result<(), Box<dyn Error>> {
    let nodes = [fake.add_node("bench1"), fake.add_node("bench2")];
    let request = serde_json::from_str(r#"{"image": "bench/demo:1"}"#)?;
    let jobs = fake.submit(caller, None, vec![request]).await?;
    let id = jobs.first().map_or(JobId(1), |job| job.id);
    fake.place(id, &nodes[..1]);
    fake.store_document(id, &nodes[0], "stdout", "hello\n");
    fake.store_document(id, &nodes[0], "result.json", "{}");
    fake.advance(id, JobState::Done);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_else(|| "admin".into());
    if role == "openapi" {
        std::io::stdout().write_all(openapi().as_bytes())?;
        return Ok(());
    }
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let admin = Caller {
        user: "tester".into(),
        role: policy::Role::Admin,
    };
    let fake = FakeController::new();
    furnish(&fake, &admin).await?;
    let peer = match role.as_str() {
        "nobody" => Peer::Nobody { address },
        "node" => Peer::Node {
            id: NodeId::try_from("bench1".to_owned())?,
            address,
        },
        role => Peer::Client(
            Caller {
                role: role.parse()?,
                ..admin
            },
            address,
        ),
    };
    let app = router(Parts {
        desk: fake.clone(),
        history: fake.clone(),
        vault: fake,
        metrics: Arc::new(Metrics::new()),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
    });
    let listener = TcpListener::bind(address).await?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    axum::serve(listener, app.layer(Extension(peer))).await?;
    Ok(())
}
