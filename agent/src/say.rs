//! The few lines that people and tests wait for: on the appliance on its console, on a host in the log.

use std::sync::atomic::{AtomicBool, Ordering};

static ON_HOST: AtomicBool = AtomicBool::new(false);

/// From here on lines go to the log: the console is not this program's.
pub(crate) fn on_host() {
    ON_HOST.store(true, Ordering::Relaxed);
}

pub(crate) fn marker(text: &str) {
    if ON_HOST.load(Ordering::Relaxed) {
        tracing::info!("{text}");
    } else {
        stillmetal_init::log::marker(text);
    }
}
