//! Contexts: added, used, shown, forgotten.

use client::fake::FakeController;

use crate::program::Home;

#[tokio::test]
async fn a_controller_elsewhere_is_taken_in_used_and_forgotten() {
    let fake = FakeController::start().await.unwrap();
    let context = fake.context();
    let home = Home::new();
    for (name, text) in [
        ("ca", &context.ca_pem),
        ("cert", &context.cert_pem),
        ("key", &context.key_pem),
    ] {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    let file = |name: &str| home.path().join(name).display().to_string();
    let add = |name: &str, controller: &str, key: &str| {
        format!(
            "context add {name} --controller {controller} --ca {} --cert {} --key {}",
            file("ca"),
            file("cert"),
            file(key)
        )
    };
    let address = context.authority();
    home.run(&add("a/b", &address, "key"))
        .await
        .failed(2, "a/b");
    home.run(&add("work", "http://x", "key"))
        .await
        .failed(2, "\"http://x\" is no controller's address");
    home.run(&add("work", &address, "nothing"))
        .await
        .failed(3, "nothing");
    // a key that does not fit is found before it is kept
    home.run(&add("work", &address, "ca")).await.failed(3, "");
    home.run("context list").await.ok();
    assert!(!home.config().exists());

    home.run(&add("work", &address, "key")).await.ok();
    home.run(&add("work", &address, "key"))
        .await
        .failed(2, "there is a context \"work\" already");
    home.run(&add("other", "other.example", "key")).await.ok();
    home.run("context use work").await.ok();
    let listed = home.run("context list").await.ok().stdout;
    assert!(listed.contains("work     yes     127.0.0.1:"), "{listed}");
    assert!(
        listed.contains("other            other.example:7443"),
        "{listed}"
    );
    let shown = home.run("contexts show --json").await.ok().json();
    assert_eq!(shown["name"], "work");

    let queues = home.run("queue list").await.ok().stdout;
    assert!(queues.contains("default"), "{queues}");
    let mut named = home.command("queue list");
    named.env("STILLMETAL_CONTEXT", "elsewhere");
    let named = crate::program::ended(named.spawn().unwrap()).await;
    named.failed(2, "no context \"elsewhere\"; there is other, work");

    home.run("context remove work").await.ok();
    home.run("queue list")
        .await
        .failed(2, "no controller is known");
    home.run("context remove other").await.ok();
    assert!(!home.config().exists());
}
