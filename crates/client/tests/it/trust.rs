//! Who is trusted: the context's authority, and of that only a controller.

use std::error::Error as _;

use client::fake::FakeController;
use client::{Client, Context, Error};
use pki::{Authority, RoleName, Validity};

async fn fails(context: &Context) -> String {
    let client = Client::new(context).unwrap();
    let error = client.healthy_now().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let fake = FakeController::start().await.unwrap();
    let other = Authority::generate("other").unwrap();
    let context = Context {
        ca_pem: other.cert_pem().to_owned(),
        ..fake.context()
    };
    let why = fails(&context).await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_strangers_certificate_gets_nowhere() {
    let fake = FakeController::start().await.unwrap();
    let other = Authority::generate("other").unwrap();
    let issued = other.issue_client("me", RoleName::Admin, Validity::days(1));
    let issued = issued.unwrap();
    let context = Context {
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
        ..fake.context()
    };
    let why = fails(&context).await;
    assert!(why.contains("alert"), "{why}");
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_useless_context_is_told_before_anything_is_called() {
    let fake = FakeController::start().await.unwrap();
    let context = Context {
        key_pem: "not a key".into(),
        ..fake.context()
    };
    let error = Client::new(&context).unwrap_err();
    assert!(matches!(error, Error::Certificates(_)), "{error:?}");
}

#[tokio::test]
async fn a_context_is_read_from_its_folder() {
    let fake = FakeController::start().await.unwrap();
    let context = fake.context();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", &context.ca_pem);
    write("cert.pem", &context.cert_pem);
    let error = Context::read(context.controller.clone(), folder.path()).unwrap_err();
    assert!(error.path.ends_with("key.pem"));
    write("key.pem", &context.key_pem);
    let read = Context::read(context.controller.clone(), folder.path()).unwrap();
    assert_eq!(read, context);
    Client::new(&read).unwrap().healthy().await.unwrap();
}
