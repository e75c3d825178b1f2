//! Who gets in, and as whom.

use hyper::StatusCode;
use pki::{Authority, RoleName, Validity};
use serde_json::json;
use stillmetal_proxy::Limits;

use crate::client::{Client, raw, tls, tls_as};
use crate::rig::{Over, Rig, soon};

port_and_tunnel!(users_and_admins_differ,);

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn good_certificates_are_served() {
    let rig = Rig::new().await;
    for role in [RoleName::Admin, RoleName::User] {
        let mut client = rig.client(role).await;
        assert_eq!(client.get("/_ping").await, (StatusCode::OK, json!("OK")));
        let (_, own) = client.get("/stillmetal/v1/node").await;
        assert_eq!(
            own,
            json!({ "role": role.as_str(), "path": "/stillmetal/v1/node" })
        );
    }
}

#[tokio::test]
async fn wrong_certificates_and_none_are_refused() {
    let rig = Rig::new().await;
    let good = Validity::days(1);
    let other = Authority::generate("test").unwrap();
    let refused = [
        other.issue_client("a", RoleName::Admin, good).unwrap(),
        rig.authority
            .issue_client("a", RoleName::Admin, Validity::expired())
            .unwrap(),
        rig.authority.issue_node(&["127.0.0.1"], good).unwrap(),
        rig.authority.issue_client_as("a", "node", good).unwrap(),
        rig.authority.issue_client_as("a", "Admin", good).unwrap(),
    ];
    for issued in &refused {
        let answered = match tls_as(rig.address, &rig.authority, issued).await {
            Ok(mut stream) => raw(&mut stream, PING).await,
            Err(error) => Err(error),
        };
        let error = answered.expect_err("refused");
        assert!(error.to_string().contains("alert"), "{error}");
    }
    assert!(rig.engine.seen().is_empty());
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let rig = Rig::new().await;
    let mut stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(PING).await.unwrap();
    let mut answer = Vec::new();
    // A TLS alert or a reset; either way nothing that HTTP would understand.
    drop(soon("end", stream.read_to_end(&mut answer)).await);
    assert!(!answer.starts_with(b"HTTP"));
}

async fn users_and_admins_differ(over: Over) {
    let rig = Rig::over(over, Limits::default()).await;
    let privileged = r#"{"Image":"x","HostConfig":{"Privileged":true}}"#;
    let (status, body) = rig
        .user()
        .await
        .post("/containers/create", privileged)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert!(body["message"].as_str().unwrap().contains("user"), "{body}");
    assert!(rig.engine.seen().is_empty());
    let (status, _) = rig
        .admin()
        .await
        .post("/containers/create", privileged)
        .await;
    assert_eq!(status, StatusCode::CREATED);

    // A user must not enter what only an admin could have created, nor by way of an exec.
    rig.engine.add("plain", json!({}));
    for target in [
        "/containers/c0/start",
        "/containers/c0/exec",
        "/containers/c0/attach",
    ] {
        let (status, _) = rig.user().await.post(target, "").await;
        assert!(status.is_client_error(), "{target}");
    }
    let (status, body) = rig.user().await.post("/containers/none/start", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["message"], "No such container: none");
    let asked = rig.engine.asked();
    assert!(
        !asked
            .iter()
            .any(|asked| asked.starts_with("POST /containers/c0")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_users_container_gets_no_volume_that_is_a_path_of_the_node() {
    let rig = Rig::new().await;
    let create = |volume: &str| {
        json!({ "Image": "x", "HostConfig": { "Binds": [format!("{volume}:/v")] } }).to_string()
    };
    let refused = create("of-the-node");
    let (status, body) = rig.user().await.post("/containers/create", &refused).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("of-the-node") && message.contains("role user"),
        "{message}"
    );
    for (mut client, volume) in [
        (rig.user().await, "new"),
        (rig.admin().await, "of-the-node"),
    ] {
        let (status, body) = client.post("/containers/create", &create(volume)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
}

#[tokio::test]
async fn a_sidecar_that_outlived_its_main_container_can_only_be_ended() {
    let rig = Rig::new().await;
    rig.engine
        .add("sidecar", json!({ "NetworkMode": "container:gone" }));
    let mut user = rig.user().await;
    let (status, body) = user
        .post("/containers/sidecar/exec", r#"{"Cmd":["sh"]}"#)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert!(body["message"].as_str().unwrap().contains("gone"), "{body}");
    let (status, body) = user.post("/containers/sidecar/kill", "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn one_certificate_cannot_crowd_out_the_others() {
    let limits = Limits {
        connections_per_certificate: 3,
        ..Default::default()
    };
    let rig = Rig::with(limits).await;
    let issued = rig.issue(RoleName::User);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(rig.address, &rig.authority, &issued)
            .await
            .unwrap();
        client.get("/_ping").await;
        held.push(client);
    }
    let mut fourth = Client::connect(rig.address, &rig.authority, &issued)
        .await
        .unwrap();
    assert_eq!(fourth.get("/_ping").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rig.admin().await.get("/_ping").await.0, StatusCode::OK);
    drop(held);
    soon("a free place", async {
        loop {
            let mut again = Client::connect(rig.address, &rig.authority, &issued)
                .await
                .unwrap();
            if again.get("/_ping").await.0 == StatusCode::OK {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    use pki::rustls::pki_types::{CertificateDer, pem::PemObject};
    let rig = Rig::new().await;
    let mut roots = pki::rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(rig.authority.cert_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = pki::rustls::ClientConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let answered = match tls(rig.address, config.into()).await {
        Ok(mut stream) => raw(&mut stream, PING).await,
        Err(error) => Err(error),
    };
    assert!(
        answered
            .expect_err("refused")
            .to_string()
            .contains("CertificateRequired")
    );
}
