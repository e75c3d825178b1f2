//! Silence on the wire while something is measured.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use socket2::Socket;
use tokio::sync::watch;
use tunnel::{Handle, Liveness};

use crate::dial::{Wire, keep_alive};

/// Keeps the node's end of the tunnel from sending anything by itself: no question whether the
/// controller is there, neither by the tunnel nor by the kernel, no renewal, no dialling. It holds
/// from when [`Quiet::silence`] returns.
///
/// What the streams carry is their own business, and the node answers when it is asked: the line is
/// silent once the controller is, too.
#[derive(Clone, Default)]
pub struct Quiet {
    shared: Arc<Shared>,
}

struct Shared {
    /// How many want silence.
    silences: watch::Sender<usize>,
    line: Mutex<Option<Wired>>,
}

/// The present connection.
struct Wired {
    tunnel: Handle,
    socket: Option<Socket>,
    liveness: Liveness,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            silences: watch::Sender::new(0),
            line: Mutex::default(),
        }
    }
}

impl Quiet {
    /// From now on, until this and all others are dropped.
    #[must_use = "silence ends when this is dropped"]
    pub fn silence(&self) -> Silence {
        self.change(|silences| silences + 1);
        Silence {
            quiet: self.clone(),
        }
    }

    /// Whether somebody wants silence.
    pub fn is_silent(&self) -> bool {
        *self.shared.silences.borrow() > 0
    }

    /// Waits until nobody wants silence.
    pub(crate) async fn spoken(&self) {
        let mut silences = self.shared.silences.subscribe();
        // The sender is part of self, so it does not fail.
        drop(silences.wait_for(|silences| *silences == 0).await);
    }

    /// The connection that is to be silent. Lets go of it when the value is dropped.
    pub(crate) fn attach(
        &self,
        tunnel: Handle,
        socket: Option<Socket>,
        liveness: Liveness,
    ) -> Attached {
        let wired = Wired {
            tunnel,
            socket,
            liveness,
        };
        let mut line = self.line();
        wired.apply(self.is_silent());
        *line = Some(wired);
        drop(line);
        Attached {
            quiet: self.clone(),
        }
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        // Held over both, so that of two changes the later one is what the line gets.
        let line = self.line();
        let before = self.is_silent();
        self.shared
            .silences
            .send_modify(|silences| *silences = change(*silences));
        if let Some(wired) = line.as_ref().filter(|_| before != self.is_silent()) {
            wired.apply(self.is_silent());
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Wired>> {
        let line = self.shared.line.lock();
        line.expect("nothing panics while it holds it")
    }
}

impl Wired {
    fn apply(&self, silent: bool) {
        let (liveness, wire) = if silent {
            (Liveness::Silent, Wire::Silent)
        } else {
            (self.liveness, Wire::Tended)
        };
        self.tunnel.set_liveness(liveness);
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| keep_alive(socket, wire)) {
            tracing::debug!(%error, ?wire, "socket options refused");
        }
    }
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quiet")
            .field("silences", &*self.shared.silences.borrow())
            .finish_non_exhaustive()
    }
}

/// Somebody wants silence. Several may at once; the last one to go ends it.
#[derive(Debug)]
pub struct Silence {
    quiet: Quiet,
}

impl Silence {
    /// As dropping it, in a word.
    pub fn speak(self) {}
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.quiet.change(|silences| silences - 1);
    }
}

/// A connection that heeds it.
#[derive(Debug)]
pub(crate) struct Attached {
    quiet: Quiet,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.quiet.line().take();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use tunnel::Limits;

    use super::*;

    /// A socket as of a connection to a controller, and the descriptor that is kept of it.
    fn socket() -> (Socket, Socket, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = Socket::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let kept = own.try_clone().unwrap();
        (own, kept, listener)
    }

    #[tokio::test]
    async fn the_kernel_is_silent_too_and_a_new_line_from_its_beginning() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let limits = Limits::default();
        let (agent, controller) =
            tokio::join!(tunnel::accept(near, &limits), tunnel::connect(far, &limits));
        let ((acceptor, _driver), _controller) = (agent.unwrap(), controller.unwrap());
        let handle = || acceptor.handle();
        let silent = || format!("{:?}", handle()).contains("liveness: Silent");

        let quiet = Quiet::default();
        let (own, kept, _listener) = socket();
        let attached = quiet.attach(handle(), Some(kept), limits.liveness);
        assert!(own.keepalive().unwrap() && !silent());
        let (one, other) = (quiet.silence(), quiet.silence());
        assert!(!own.keepalive().unwrap() && silent());
        drop(one);
        assert!(!own.keepalive().unwrap() && silent());
        drop(attached);

        let (own, kept, _listener) = socket();
        keep_alive(&own, Wire::Tended).unwrap();
        let _attached = quiet.attach(handle(), Some(kept), limits.liveness);
        assert!(!own.keepalive().unwrap() && silent());
        other.speak();
        assert!(own.keepalive().unwrap() && !silent());
        assert!(!quiet.is_silent());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_silence_waits_for_the_last() {
        let quiet = Quiet::default();
        quiet.spoken().await;
        let (one, other) = (quiet.silence(), quiet.silence());
        let waiting = tokio::spawn({
            let quiet = quiet.clone();
            async move { quiet.spoken().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(other);
        waiting.await.unwrap();
    }
}
