//! CPUs before containers, and a view that shows what was asked for.

use hyper::StatusCode;
use policy::Denial;
use serde_json::{Value, json};
use stillmetal_proxy::Limits;

use crate::rig::{Over, Rig};

port_and_tunnel!(a_pinned_create_claims_rewrites_and_reports,);

const PINNED: &str = r#"{"Image":"x","HostConfig":{"CpusetCpus":"2"}}"#;

fn busy() -> Denial {
    Denial {
        status: 409,
        message: "CPU 2 is held by `other`".into(),
    }
}

async fn a_pinned_create_claims_rewrites_and_reports(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let mut client = rig.user().await;
    let (status, body) = client
        .post("/v1.45/containers/create?name=job", PINNED)
        .await;
    assert_eq!(
        (status, body["Id"].as_str()),
        (StatusCode::CREATED, Some("c0")),
        "{body}"
    );
    assert_eq!(rig.node.events(), ["claim 2 for job", "created t1 c0"]);
    let sent: Value = serde_json::from_slice(&rig.engine.seen()[0].body).unwrap();
    assert_eq!(sent["HostConfig"]["CgroupParent"], "/stillmetal-t1");
    assert_eq!(
        sent["HostConfig"]["CpusetCpus"]
            .as_str()
            .unwrap_or_default(),
        ""
    );

    let (_, shown) = client.get("/containers/c0/json").await;
    assert_eq!(shown["HostConfig"]["CpusetCpus"], "2");
    assert_eq!(shown["HostConfig"]["CgroupParent"], "");
}

#[tokio::test]
async fn a_refused_claim_forwards_nothing_and_a_refused_create_gives_the_cpus_back() {
    let rig = Rig::new().await;
    *rig.node.refuse_claims.lock().unwrap() = Some(busy());
    let mut client = rig.user().await;
    let (status, body) = client.post("/containers/create", PINNED).await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::CONFLICT, &json!(busy().message))
    );
    assert!(rig.engine.seen().is_empty());

    *rig.node.refuse_claims.lock().unwrap() = None;
    rig.engine.change(|state| state.refuse_create = true);
    let (status, body) = client.post("/containers/create", PINNED).await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::NOT_FOUND, &json!("No such image: x"))
    );
    assert_eq!(rig.node.events(), ["claim 2 for -", "abandoned t1"]);
}

#[tokio::test]
async fn an_engine_that_dies_during_a_create_gives_the_cpus_back() {
    let rig = Rig::new().await;
    rig.engine.die().await;
    let (status, body) = rig.user().await.post("/containers/create", PINNED).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert_eq!(rig.node.events(), ["claim 2 for -", "abandoned t1"]);
}

#[tokio::test]
async fn cpus_are_taken_before_each_start() {
    let rig = Rig::new().await;
    rig.engine.add("job", json!({}));
    let mut client = rig.user().await;
    for action in ["start", "restart"] {
        let (status, _) = client.post(&format!("/containers/job/{action}"), "").await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    assert_eq!(
        rig.node.events(),
        ["starting job", "started job", "starting job", "started job"]
    );
}

#[tokio::test]
async fn a_refused_start_removes_a_container_that_was_to_remove_itself() {
    let rig = Rig::new().await;
    rig.engine.add("once", json!({ "AutoRemove": true }));
    rig.engine.add("kept", json!({ "AutoRemove": false }));
    *rig.node.refuse_starts.lock().unwrap() = Some(busy());
    let mut client = rig.admin().await;
    for name in ["once", "kept"] {
        let (status, body) = client.post(&format!("/containers/{name}/start"), "").await;
        assert_eq!(
            (status, &body["message"]),
            (StatusCode::CONFLICT, &json!(busy().message))
        );
    }
    let asked = rig.engine.asked();
    assert!(
        asked.contains(&"DELETE /containers/once?v=1".to_owned()),
        "{asked:?}"
    );
    assert!(
        !asked.iter().any(|asked| asked.ends_with("/start")),
        "{asked:?}"
    );
    let left: Vec<String> = rig
        .engine
        .look(|state| state.containers.keys().cloned().collect());
    assert_eq!(left, ["kept"]);
}
