//! A run's verdict as `docker events` tells it, beside the engine's own events of the container.

use std::time::SystemTime;

use quiet::Certificate;
use stillmetal_proxy::ContainerEvent;

use crate::engine::client::About;

/// What clients filter by (`--filter event=stillmetal.verdict`).
const KIND: &str = "stillmetal.verdict";

/// The event of a certificate that is kept. Attributes are as in the engine's events, where labels
/// come first: a label called `verdict` does not hide the verdict.
pub(super) fn verdict(about: &About, certificate: &Certificate, now: SystemTime) -> ContainerEvent {
    let verdict = certificate.verdict.to_string();
    let action = format!("{KIND}: {verdict}");
    let mut attributes = about.labels.clone();
    attributes.extend([
        ("image".to_owned(), about.image_name.clone()),
        ("name".to_owned(), about.name.clone()),
        ("verdict".to_owned(), verdict),
    ]);
    match certificate.evidence.job.exit_code {
        Some(code) => attributes.insert("exitCode".into(), code.to_string()),
        None => attributes.remove("exitCode"),
    };
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
    let time_ns = since_1970.unwrap_or_default().as_nanos();
    ContainerEvent {
        action,
        container_id: certificate.evidence.container_id.clone(),
        attributes,
        time_ns: i64::try_from(time_ns).unwrap_or(i64::MAX),
    }
}
