//! One at a time for each key.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Keys that are claimed.
#[derive(Debug)]
pub(super) struct Claims<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    held: Mutex<HashSet<K>>,
    released: Notify,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                held: Mutex::new(HashSet::new()),
                released: Notify::new(),
            }),
        }
    }
}

impl<K> Shared<K> {
    fn held(&self) -> MutexGuard<'_, HashSet<K>> {
        self.held.lock().expect("nothing panics while it holds it")
    }
}

/// A key claimed, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim<K: Eq + Hash> {
    key: K,
    shared: Arc<Shared<K>>,
}

impl<K: Eq + Hash + Clone> Claims<K> {
    /// Waits until nobody else holds the key.
    pub(super) async fn claim(&self, key: K) -> Claim<K> {
        loop {
            let mut released = std::pin::pin!(self.shared.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            if let Some(claim) = self.try_claim(&key) {
                return claim;
            }
            released.await;
        }
    }

    /// The key, unless somebody else holds it.
    pub(super) fn try_claim(&self, key: &K) -> Option<Claim<K>> {
        let free = self.shared.held().insert(key.clone());
        free.then(|| Claim {
            key: key.clone(),
            shared: Arc::clone(&self.shared),
        })
    }
}

impl<K: Eq + Hash> Drop for Claim<K> {
    fn drop(&mut self) {
        self.shared.held().remove(&self.key);
        self.shared.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_holder_of_a_key_at_a_time() {
        let claims = Claims::default();
        let first = claims.claim(1).await;
        let _other = claims.claim(2).await;
        assert!(claims.try_claim(&1).is_none());
        let waits = claims.claim(1);
        let release = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (_again, ()) = tokio::join!(waits, release);
    }
}
