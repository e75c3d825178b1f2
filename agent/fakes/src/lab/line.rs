//! A line between a node and its controller that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Bytes go through as they come.
    Fair,
    /// Each piece is late.
    Slow(Duration),
    /// Nothing comes through, and nobody is told.
    Mute,
    /// Every connection is closed, new ones too.
    Cut,
}

/// The line.
#[derive(Debug)]
pub struct Line {
    /// Where a node finds it.
    pub address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
}

impl Line {
    /// To this controller.
    ///
    /// # Panics
    /// When there is no loopback interface.
    pub async fn to(controller: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let told = Arc::clone(&weather);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let weather = told.subscribe();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(controller).await {
                        carry(near, far, weather).await;
                    }
                });
            }
        });
        Self { address, weather }
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn carry(near: TcpStream, far: TcpStream, weather: watch::Receiver<Weather>) {
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut cut = weather.clone();
    tokio::select! {
        () = copy(near_in, far_out, weather.clone()) => {}
        () = copy(far_in, near_out, weather) => {}
        _cut = cut.wait_for(|now| *now == Weather::Cut) => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let now = *weather.borrow();
        if let Weather::Slow(late) = now {
            tokio::time::sleep(late).await;
        }
        // what was on the way while it was mute arrives afterwards, as TCP has it
        if weather.wait_for(|now| *now != Weather::Mute).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
