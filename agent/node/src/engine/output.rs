//! What a container writes, followed to its end.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use metric::Tail;
use quiet::{Digest, Output};
use sha2::{Digest as _, Sha256};

use super::client::EngineClient;

/// The beginning of each stream that is kept.
const HEAD_BYTES: usize = 1 << 18;
/// The engine closes the stream when the container has ended.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// Both streams: a digest of all, and how they begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) output: Output,
    pub(crate) stdout: Head,
    pub(crate) stderr: Head,
}

/// The beginning of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) bytes: Vec<u8>,
    pub(crate) truncated: bool,
}

impl Written {
    pub(crate) fn unknown(why: &str) -> Self {
        let digest = || Digest::Unobservable { why: why.into() };
        Self {
            output: Output {
                stdout: digest(),
                stderr: digest(),
            },
            ..Self::default()
        }
    }
}

/// The ends of the streams that are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tails {
    pub(crate) stdout: Option<Tail>,
    pub(crate) stderr: Option<Tail>,
}

impl EngineClient {
    /// Follows the log of a container from its beginning until the engine says that it is over.
    pub(crate) async fn follow_output(&self, id: &str) -> Written {
        self.follow_tails(id, &mut Tails::default()).await
    }

    /// The same, and fills the ends that are wanted.
    pub(crate) async fn follow_tails(&self, id: &str, tails: &mut Tails) -> Written {
        let docker = match self.connect() {
            Ok(docker) => docker,
            Err(error) => return Written::unknown(&crate::chain(&error)),
        };
        let options = LogsOptions {
            follow: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let mut frames = docker.logs(id, Some(options));
        let (mut stdout, mut stderr) = (Stream::default(), Stream::default());
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(LogOutput::StdErr { message }) => {
                    stderr.push(&message);
                    push(&mut tails.stderr, &message);
                }
                // a terminal has one stream
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    stdout.push(&message);
                    push(&mut tails.stdout, &message);
                }
                Ok(LogOutput::StdIn { .. }) => {}
                Err(error) => {
                    let why = format!("the engine broke off: {}", crate::chain(&error));
                    return Written {
                        stdout: stdout.head,
                        stderr: stderr.head,
                        ..Written::unknown(&why)
                    };
                }
            }
        }
        Written {
            output: Output {
                stdout: stdout.digest(),
                stderr: stderr.digest(),
            },
            stdout: stdout.head,
            stderr: stderr.head,
        }
    }
}

fn push(tail: &mut Option<Tail>, message: &[u8]) {
    if let Some(tail) = tail {
        tail.push(message);
    }
}

#[derive(Default)]
struct Stream {
    hash: Sha256,
    bytes: u64,
    head: Head,
}

impl Stream {
    fn push(&mut self, message: &[u8]) {
        self.hash.update(message);
        self.bytes = self.bytes.saturating_add(message.len() as u64);
        let room = HEAD_BYTES.saturating_sub(self.head.bytes.len());
        self.head
            .bytes
            .extend_from_slice(&message[..message.len().min(room)]);
        self.head.truncated |= message.len() > room;
    }

    fn digest(&self) -> Digest {
        let hash = self.hash.clone().finalize();
        Digest::Measured {
            sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_stream_is_digested_and_its_beginning_kept() {
        let mut stream = Stream::default();
        stream.push(b"abc");
        // FIPS 180-2, appendix B.1
        assert_eq!(
            stream.digest(),
            Digest::Measured {
                sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
                bytes: 3
            }
        );
        stream.push(&vec![b'x'; HEAD_BYTES]);
        assert_eq!(stream.head.bytes.len(), HEAD_BYTES);
        assert!(stream.head.truncated);
        assert!(
            matches!(stream.digest(), Digest::Measured { bytes, .. } if bytes == 3 + (1 << 18))
        );
    }
}
