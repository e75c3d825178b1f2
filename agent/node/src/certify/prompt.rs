//! Threads that are not to wait for what else runs on the housekeeping CPUs: a snapshot that comes
//! late makes a run `unproven` (*measured*: 1.8 s behind the engine, on an emulated CPU).

use tokio::sync::oneshot;

use super::settings;

/// Runs `work` on such a thread.
///
/// # Errors
/// In words: no thread can be had, or the work panicked.
pub(crate) async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            settings::go_first();
            // nobody waits any more: the run was given up
            sender.send(work()).ok();
        })
        .map_err(|error| format!("no thread for it: {error}"))?;
    receiver.await.map_err(|_| "its thread panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::on_thread;

    #[tokio::test]
    async fn the_answer_of_the_work_comes_and_a_panic_is_told() {
        assert_eq!(on_thread("seven", || 7).await, Ok(7));
        let died = on_thread("dies", || panic!("as the test wants")).await;
        assert_eq!(died, Err::<(), _>("its thread panicked".into()));
    }
}
