//! How many requests of people a node has at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::limits::Limits;

/// All of them.
#[derive(Debug)]
pub(super) struct Places {
    turn: Duration,
    users: Shares<(String, String)>,
    nodes: Shares<String>,
}

/// One of them, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _user: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            turn: limits.turn,
            users: Shares::new(limits.per_user),
            nodes: Shares::new(limits.per_node),
        }
    }

    /// A place as soon as there is one; `None`: not in time.
    pub(super) async fn enter(&self, node: &str, user: &str) -> Option<Place> {
        let both = async {
            // A user who has too many waits among their own, not before others.
            let user = self.users.of((node.to_owned(), user.to_owned()));
            let user = user.acquire_owned().await.ok()?;
            let node = self.nodes.of(node.to_owned());
            let node = node.acquire_owned().await.ok()?;
            Some(Place {
                _user: user,
                _node: node,
            })
        };
        timeout(self.turn, both).await.ok().flatten()
    }
}

/// One semaphore for each key in use.
#[derive(Debug)]
struct Shares<K> {
    each: usize,
    map: Mutex<(HashMap<K, Arc<Semaphore>>, usize)>,
}

impl<K: Eq + Hash> Shares<K> {
    fn new(each: usize) -> Self {
        Self {
            each,
            map: Mutex::new((HashMap::new(), 64)),
        }
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut guard = self.map.lock().expect("nothing panics while it holds it");
        let (map, sweep_at) = &mut *guard;
        if map.len() >= *sweep_at {
            map.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            *sweep_at = (2 * map.len()).max(64);
        }
        let semaphore = map
            .entry(key)
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Arc::clone(semaphore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(&Limits {
            per_node: 3,
            per_user: 2,
            turn: Duration::from_secs(1),
            ..Limits::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_cannot_take_all_and_all_cannot_take_more() {
        let places = places();
        let first = places.enter("n", "a").await.unwrap();
        let _second = places.enter("n", "a").await.unwrap();
        assert!(places.enter("n", "a").await.is_none());
        let _other = places.enter("n", "b").await.unwrap();
        assert!(places.enter("n", "c").await.is_none());
        let _elsewhere = places.enter("m", "a").await.unwrap();
        drop(first);
        let _again = places.enter("n", "a").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_is_forgotten() {
        let places = places();
        let held = places.enter("held", "a").await.unwrap();
        for node in 0..1_000 {
            places.enter(&node.to_string(), "a").await.unwrap();
        }
        assert!(places.nodes.map.lock().unwrap().0.len() <= 64);
        assert!(places.nodes.map.lock().unwrap().0.contains_key("held"));
        drop(held);
    }
}
