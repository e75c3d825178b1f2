//! What a series may ask for, as far as the node's state does not matter.

use api::run::RunRequest;
use policy::Denial;

use super::attempt::bad;

const MOST_WARMUPS: u32 = 100;
const MOST_REPETITIONS: u32 = 1000;
const MOST_ATTEMPTS: u32 = 20;

/// The rest is policy's, as for every container.
pub(super) fn check(request: &RunRequest) -> Result<(), Denial> {
    let within = |name: &str, number: u32, least: u32, most: u32| {
        if (least..=most).contains(&number) {
            Ok(())
        } else {
            Err(bad(format!("`{name}` is {number}: give {least} to {most}")))
        }
    };
    within("warmups", request.warmups, 0, MOST_WARMUPS)?;
    within("repetitions", request.repetitions, 1, MOST_REPETITIONS)?;
    within("attempts", request.attempts, 1, MOST_ATTEMPTS)?;
    if request.image.is_empty() {
        return Err(bad("`image` is empty: name an image of this node".into()));
    }
    if request.fifo.is_some() && request.nice.is_some() {
        return Err(bad(
            "`fifo` and `nice` exclude each other: SCHED_FIFO knows no nice value".into(),
        ));
    }
    let strange = request.env.iter().find(|(name, value)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    });
    if let Some((name, _)) = strange {
        return Err(bad(format!(
            "`env` {name:?}: a name must not be empty or hold `=`, and nothing may hold a NUL byte"
        )));
    }
    Ok(())
}
