//! The crypto provider: aws-lc-rs, named here and nowhere else.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

/// The provider, made once. Every configuration of this crate is built on it explicitly, so nothing
/// depends on [`install`] having been called.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Makes the provider the process's default, for libraries that ask for it. May be called often.
pub fn install() {
    // An error means that a default is there already, which is what is wanted.
    drop(CryptoProvider::install_default((*provider()).clone()));
}
