//! The crypto provider: aws-lc-rs, named here and nowhere else.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

use crate::Error;

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

/// Random bytes that nobody can foretell.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match provider().secure_random.fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Error::Random),
    }
}
