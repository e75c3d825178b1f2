//! Two raw streams joined, each half ending by itself.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// One read of either direction.
const CHUNK_BYTES: usize = 64 * 1024;

/// What went through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// Copies both ways until both have ended. A client that has sent all its input goes on receiving
/// output, for as long as that takes; one whose output has ended may go on sending, as long as it
/// is never silent for `idle`. An error of the client's side ends both.
///
/// # Errors
/// When the client's connection breaks.
pub(crate) async fn join<C, E>(client: C, engine: E, idle: Duration) -> io::Result<Copied>
where
    C: AsyncRead + AsyncWrite,
    E: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_engine, to_engine) = split(engine);
    let output_ended = CancellationToken::new();
    let (input, output) = tokio::try_join!(
        input(from_client, to_engine, &output_ended, idle),
        output(from_engine, to_client, &output_ended),
    )?;
    Ok(Copied { input, output })
}

async fn output(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ended: &CancellationToken,
) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let count = match from.read(&mut chunk).await {
            Ok(count) => count,
            // The engine closed without having read all the input: for the output that is an end
            // like any other.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        if count == 0 {
            to.shutdown().await?;
            ended.cancel();
            return Ok(total);
        }
        to.write_all(&chunk[..count]).await?;
        to.flush().await?;
        total += count as u64;
    }
}

async fn input(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    output_ended: &CancellationToken,
    idle: Duration,
) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let silence = async {
            output_ended.cancelled().await;
            sleep(idle).await;
        };
        let count = tokio::select! {
            read = from.read(&mut chunk) => read?,
            () = silence => return Ok(total),
        };
        if count == 0 {
            // If the engine is gone already there is nobody to tell.
            drop(to.shutdown().await);
            return Ok(total);
        }
        let written = async {
            to.write_all(&chunk[..count]).await?;
            to.flush().await
        };
        if written.await.is_err() {
            break;
        }
        total += count as u64;
    }
    // Nobody reads the input any more, but output may still be under way. What the client sends is
    // taken off the socket, since closing over unread bytes resets the connection.
    let discard = async {
        while from.read(&mut chunk).await? > 0 {}
        Ok(total)
    };
    tokio::select! {
        ended = discard => ended,
        () = async { output_ended.cancelled().await; sleep(idle).await } => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn joined() -> (DuplexStream, DuplexStream, JoinHandle<io::Result<Copied>>) {
        let (client, ours) = duplex(1024);
        let (engine, theirs) = duplex(1024);
        (client, engine, tokio::spawn(join(ours, theirs, IDLE)))
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
        let (mut client, mut engine, task) = joined();
        client.write_all(b"in").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut engine).await, b"in");
        sleep(IDLE * 100).await;
        engine.write_all(b"out").await.unwrap();
        engine.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"out");
        assert_eq!(
            task.await.unwrap().unwrap(),
            Copied {
                input: 2,
                output: 3
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn input_goes_on_after_the_output_has_ended_until_it_falls_silent() {
        let (mut client, mut engine, task) = joined();
        engine.write_all(b"out").await.unwrap();
        engine.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, b"out");
        for _ in 0..3 {
            sleep(IDLE / 2).await;
            client.write_all(b"x").await.unwrap();
            let mut byte = [0];
            engine.read_exact(&mut byte).await.unwrap();
        }
        sleep(IDLE + Duration::from_secs(1)).await;
        assert_eq!(
            task.await.unwrap().unwrap(),
            Copied {
                input: 3,
                output: 3
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn output_in_flight_survives_an_engine_that_stops_reading() {
        let (mut client, mut engine, task) = joined();
        engine.write_all(b"last words").await.unwrap();
        drop(engine);
        client.write_all(&[0; 512]).await.unwrap();
        client.write_all(&[0; 512]).await.unwrap();
        assert_eq!(read_all(&mut client).await, b"last words");
        drop(client);
        assert_eq!(task.await.unwrap().unwrap().output, 10);
    }
}
