//! Two raw streams joined, each half ending by itself.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// One read of either direction.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that went through so far.
#[derive(Debug, Default)]
pub struct Traffic {
    input: AtomicU64,
    output: AtomicU64,
}

impl Traffic {
    /// From the client.
    pub fn input(&self) -> u64 {
        self.input.load(Ordering::Relaxed)
    }

    /// To the client.
    pub fn output(&self) -> u64 {
        self.output.load(Ordering::Relaxed)
    }

    pub fn add_input(&self, bytes: usize) {
        self.input.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn add_output(&self, bytes: usize) {
        self.output.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What it means that the server's side was reset while its output was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    /// An end like any other: a unix socket says so when its peer has closed without having read all
    /// of the input.
    AreEnds,
    /// The output is not complete.
    AreErrors,
}

/// Copies both ways until both have ended. A client that has sent all its input goes on receiving
/// output, for as long as that takes; one whose output has ended may go on sending, as long as it
/// is never silent for `idle`. An error of the client's side ends both.
///
/// # Errors
/// When the client's connection breaks, or the server's before its output has ended.
pub(crate) async fn join<C, S>(
    client: C,
    server: S,
    resets: Resets,
    idle: Duration,
    traffic: &Traffic,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let output_ended = CancellationToken::new();
    tokio::try_join!(
        input(from_client, to_server, &output_ended, idle, traffic),
        output(from_server, to_client, &output_ended, resets, traffic),
    )?;
    Ok(())
}

async fn output(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ended: &CancellationToken,
    resets: Resets,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut chunk).await {
            Ok(count) => count,
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionReset && resets == Resets::AreEnds =>
            {
                0
            }
            Err(error) => return Err(error),
        };
        if count == 0 {
            to.shutdown().await?;
            ended.cancel();
            return Ok(());
        }
        to.write_all(&chunk[..count]).await?;
        to.flush().await?;
        traffic.add_output(count);
    }
}

async fn input(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    output_ended: &CancellationToken,
    idle: Duration,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let silence = async {
            output_ended.cancelled().await;
            sleep(idle).await;
        };
        let count = tokio::select! {
            read = from.read(&mut chunk) => read?,
            () = silence => return Ok(()),
        };
        if count == 0 {
            // If the server is gone already there is nobody to tell.
            drop(to.shutdown().await);
            return Ok(());
        }
        let written = async {
            to.write_all(&chunk[..count]).await?;
            to.flush().await
        };
        if written.await.is_err() {
            break;
        }
        traffic.add_input(count);
    }
    // Nobody reads the input any more, but output may still be under way. What the client sends is
    // taken off the socket, since closing over unread bytes resets the connection.
    let discard = async {
        while from.read(&mut chunk).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        ended = discard => ended,
        () = async { output_ended.cancelled().await; sleep(idle).await } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{DuplexStream, ReadBuf, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// How it ended, with the bytes of input and output.
    type Task = JoinHandle<(io::Result<()>, u64, u64)>;

    fn joined() -> (DuplexStream, DuplexStream, Task) {
        let (client, ours) = duplex(1024);
        let (server, theirs) = duplex(1024);
        (client, server, spawn(ours, theirs, Resets::AreErrors))
    }

    fn spawn(
        client: DuplexStream,
        server: impl AsyncRead + AsyncWrite + Send + 'static,
        resets: Resets,
    ) -> Task {
        tokio::spawn(async move {
            let traffic = Traffic::default();
            let ended = join(client, server, resets, IDLE, &traffic).await;
            (ended, traffic.input(), traffic.output())
        })
    }

    /// As `(input, output)`.
    async fn bytes(task: Task) -> (u64, u64) {
        let (ended, input, output) = task.await.unwrap();
        ended.unwrap();
        (input, output)
    }

    async fn read_all(stream: &mut DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        timeout(IDLE / 2, stream.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn output_goes_on_after_the_input_has_ended() {
        let (mut client, mut server, task) = joined();
        client.write_all(b"in").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await, b"in");
        sleep(IDLE * 100).await;
        server.write_all(b"out").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"out");
        assert_eq!(bytes(task).await, (2, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn input_goes_on_after_the_output_has_ended_until_it_falls_silent() {
        let (mut client, mut server, task) = joined();
        server.write_all(b"out").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"out");
        for _ in 0..3 {
            sleep(IDLE / 2).await;
            client.write_all(b"x").await.unwrap();
            let mut byte = [0];
            server.read_exact(&mut byte).await.unwrap();
        }
        sleep(IDLE + Duration::from_secs(1)).await;
        assert_eq!(bytes(task).await, (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn output_in_flight_survives_a_server_that_stops_reading() {
        let (mut client, mut server, task) = joined();
        server.write_all(b"last words").await.unwrap();
        drop(server);
        client.write_all(&[0; 512]).await.unwrap();
        client.write_all(&[0; 512]).await.unwrap();
        assert_eq!(read_all(&mut client).await, b"last words");
        drop(client);
        assert_eq!(bytes(task).await.1, 10);
    }

    /// Reset by its peer after a few bytes.
    struct Reset(&'static [u8]);

    impl AsyncRead for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let bytes = std::mem::take(&mut self.0);
            if bytes.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buf.put_slice(bytes);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Reset {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_is_an_end_or_an_error_as_was_said() {
        for resets in [Resets::AreEnds, Resets::AreErrors] {
            let (mut client, ours) = duplex(1024);
            let task = spawn(ours, Reset(b"output"), resets);
            assert_eq!(read_all(&mut client).await, b"output");
            drop(client);
            let (ended, ..) = task.await.unwrap();
            match resets {
                Resets::AreEnds => ended.unwrap(),
                Resets::AreErrors => {
                    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
                }
            }
        }
    }
}
