//! How machines join.

use super::*;

const CSR: &str = "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n";

fn request(token: Option<&str>) -> Value {
    let machine = json!({ "hostname": "bench1", "macs": ["52:54:00:12:34:56"] });
    match token {
        Some(token) => json!({ "csr_pem": CSR, "token": token, "machine": machine }),
        None => json!({ "csr_pem": CSR, "machine": machine }),
    }
}

#[tokio::test]
async fn with_approval() {
    let bench = Bench::new();
    let enrol = || {
        bench
            .ask(nobody(), "POST", "/v1/enrol")
            .json(&request(None))
    };
    let answer = enrol().send().await.json(202);
    assert_eq!(answer["enrolment"], "pending");
    let fingerprint = answer["fingerprint"].as_str().unwrap();
    let pending = bench.get("/v1/nodes/pending").await.json(200);
    assert_eq!(pending[0]["fingerprint"], fingerprint);
    assert_eq!(pending[0]["address"], "192.0.2.7:40000");
    let approve = |fingerprint: &str| {
        let body = json!({ "fingerprint": fingerprint });
        bench.ask(root(), "POST", "/v1/nodes/approve").json(&body)
    };
    approve("ffff").send().await.problem(404, "no-such-node");
    assert_eq!(
        approve("a b").send().await.at(400, "invalid"),
        "/fingerprint"
    );
    approve(fingerprint).send().await.json(200);
    let answer = enrol().send().await.json(200);
    assert_eq!(answer["enrolment"], "admitted");
}

#[tokio::test]
async fn with_a_token() {
    let bench = Bench::new();
    let ask = bench
        .ask(root(), "POST", "/v1/tokens")
        .json(&json!({ "valid_seconds": 60 }));
    let made = ask.send().await.json(201);
    let secret = made["token"].as_str().unwrap();
    let listed = bench
        .ask(root(), "GET", "/v1/tokens")
        .send()
        .await
        .json(200);
    assert_eq!(listed[0]["id"], made["id"]);
    assert_eq!(listed[0].get("token"), None, "the secret is told once");
    let enrol = |token: &str| {
        bench
            .ask(nobody(), "POST", "/v1/enrol")
            .json(&request(Some(token)))
    };
    assert_eq!(enrol("wrong").send().await.at(403, "forbidden"), "/token");
    enrol(secret).send().await.json(200);
    enrol(secret).send().await.problem(403, "forbidden");
    let uri = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    let got = bench.ask(root(), "DELETE", &uri).send().await;
    assert_eq!((got.status.as_u16(), got.body.len()), (204, 0));
    bench
        .ask(root(), "DELETE", &uri)
        .send()
        .await
        .problem(404, "no-such-token");
    bench
        .ask(root(), "DELETE", "/v1/tokens/%0a")
        .send()
        .await
        .problem(404, "no-such-token");
    for (field, value) in [("valid_seconds", json!(0)), ("machine", json!("MAC"))] {
        let ask = bench
            .ask(root(), "POST", "/v1/tokens")
            .json(&json!({ field: value }));
        assert_eq!(ask.send().await.at(400, "invalid"), format!("/{field}"));
    }
}

#[tokio::test]
async fn what_a_stranger_sends_is_bounded() {
    let bench = Bench::new();
    let enrol = |body: Value| bench.ask(nobody(), "POST", "/v1/enrol").json(&body);
    let long = json!({ "csr_pem": "x".repeat(70_000), "machine": { "hostname": "a" } });
    enrol(long).send().await.problem(413, "too-large");
    let strange = json!({ "csr_pem": CSR, "machine": { "hostname": "a\u{1b}[0m" } });
    assert_eq!(
        enrol(strange).send().await.at(400, "invalid"),
        "/machine/hostname"
    );
    let wrong = json!({ "csr_pem": "x", "machine": { "hostname": "a" } });
    assert_eq!(enrol(wrong).send().await.at(400, "invalid"), "/csr_pem");
    let got = enrol(json!({ "csr_pem": CSR })).send().await;
    assert!(got.problem(400, "invalid").detail.contains("machine"));
}

#[tokio::test]
async fn a_node_renews_its_certificate() {
    let bench = Bench::new();
    let renew = |csr: &str| {
        let body = json!({ "csr_pem": csr });
        bench.ask(node(), "POST", "/v1/renew").json(&body)
    };
    let answer = renew(CSR).send().await.json(200);
    assert!(
        answer["cert_pem"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    for csr in ["", "x"] {
        assert_eq!(renew(csr).send().await.at(400, "invalid"), "/csr_pem");
    }
}
