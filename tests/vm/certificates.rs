//! Who may call: only a client certificate of the right authority with a known role, still valid.

use anyhow::{Result, ensure};
use testkit::Client;

use crate::shared;

#[test]
#[ignore = "needs the built image: VM lane"]
fn good_certificates_are_let_in() -> Result<()> {
    let node = shared::ready()?;
    for client in [Client::Admin, Client::User] {
        let answer = node.get(client, "/_ping")?;
        ensure!(
            answer.status == 200,
            "{client:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs the built image: VM lane"]
fn bad_certificates_are_not() -> Result<()> {
    let node = shared::ready()?;
    let good = [Client::Admin, Client::User];
    for client in Client::ALL
        .into_iter()
        .filter(|client| !good.contains(client))
    {
        // Refused in the handshake, or after it with the Docker API's own error.
        if let Ok(answer) = node.get(client, "/_ping") {
            ensure!(
                matches!(answer.status, 401 | 403),
                "{client:?} got {}",
                answer.status
            );
        }
        let version = node.docker(client)?.run(["version"])?;
        ensure!(
            !version.success(),
            "{client:?} ran `docker version`: {}",
            version.text()
        );
    }
    Ok(())
}
