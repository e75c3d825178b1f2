//! Silence, and the discovery that nobody is there. All under a paused clock.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};
use tunnel::{End, Limits, Liveness};

use crate::ending::of_tunnel;
use crate::io::{Line, wires};
use crate::rig::{Served, echo_once, joined};

const HOUR: Duration = Duration::from_secs(3_600);
const EVERY: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(5);
const PING: Liveness = Liveness::Ping {
    every: EVERY,
    within: WITHIN,
};

async fn served(liveness: Liveness) -> (Served, Line) {
    let (controller, agent, line) = wires();
    let limits = Limits {
        liveness,
        ..Limits::default()
    };
    let served = joined(controller, agent, &limits).await.serve();
    // Greetings are over.
    sleep(Duration::from_millis(1)).await;
    (served, line)
}

async fn bytes_in(line: &Line, time: Duration) -> u64 {
    let before = line.bytes();
    sleep(time).await;
    line.bytes() - before
}

#[tokio::test(start_paused = true)]
async fn a_silent_tunnel_sends_nothing() {
    let (served, line) = served(Liveness::Silent).await;
    assert_eq!(bytes_in(&line, HOUR).await, 0);
    // Nor with streams that are open, used before, and stalled.
    let mut echo = served.open("echo").await;
    echo_once(&mut echo, &[1; 50_000]).await;
    let _stalled = served.open("flood").await;
    drop(served.open("hold").await);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(bytes_in(&line, 24 * HOUR).await, 0);
    echo_once(&mut echo, b"still there").await;
}

#[tokio::test(start_paused = true)]
async fn silence_can_begin_and_end_at_any_time() {
    let (served, line) = served(PING).await;
    let (controller, agent) = (served.tunnel.handle(), served.agent_handle.clone());
    let mut echo = served.open("echo").await;
    for round in 0..20 {
        assert!(bytes_in(&line, HOUR).await > 0);
        // Also in the moment in which a ping is under way.
        sleep(Duration::from_millis(1_250 * round)).await;
        controller.set_liveness(Liveness::Silent);
        agent.set_liveness(Liveness::Silent);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(bytes_in(&line, HOUR).await, 0);
        controller.set_liveness(PING);
        agent.set_liveness(PING);
        echo_once(&mut echo, b"hello").await;
    }
    assert!(controller.end().is_none());
}

#[tokio::test(start_paused = true)]
async fn pings_keep_an_idle_tunnel_alive() {
    let (served, line) = served(PING).await;
    let bytes = bytes_in(&line, 24 * HOUR).await;
    // 17 bytes for a question and 17 for its answer, at most as often as that.
    let most = 24 * HOUR.as_secs() / EVERY.as_secs() * 2 * 34;
    assert!((1..=most).contains(&bytes), "{bytes}");
    echo_once(&mut served.open("echo").await, b"still there").await;
}

#[tokio::test(start_paused = true)]
async fn a_vanished_peer_is_noticed_by_both_ends() {
    let (served, line) = served(PING).await;
    let mut stream = served.open("hold").await;
    let began = Instant::now();
    line.sever();
    let error = stream.read_u8().await.unwrap_err();
    assert!(began.elapsed() <= 2 * EVERY + WITHIN + Duration::from_secs(1));
    assert!(matches!(of_tunnel(&error), End::Dead { .. }));
    let end = served.controller.await.unwrap();
    assert!(matches!(end, End::Dead { silence } if silence == EVERY + WITHIN));
    let end = served.agent.await.unwrap();
    assert!(matches!(end, End::Dead { .. } | End::PeerClosed), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_vanished_peer_is_noticed_once_silence_is_over() {
    let (served, line) = served(Liveness::Silent).await;
    let handle = served.tunnel.handle();
    line.sever();
    sleep(24 * HOUR).await;
    assert!(handle.end().is_none());
    handle.set_liveness(PING);
    let began = Instant::now();
    assert!(matches!(handle.closed().await, End::Dead { .. }));
    assert!(began.elapsed() >= EVERY + WITHIN);
    assert!(began.elapsed() <= EVERY + WITHIN + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_ping_lost_before_the_silence_ends_nothing_during_it() {
    let mut tries = 0;
    loop {
        let (served, line) = served(PING).await;
        let handle = served.tunnel.handle();
        line.sever();
        sleep(Duration::from_secs(tries)).await;
        if handle.end().is_some() {
            break;
        }
        // Sooner or later in this loop a question is out that will not be answered.
        handle.set_liveness(Liveness::Silent);
        sleep(HOUR).await;
        assert!(handle.end().is_none());
        handle.set_liveness(PING);
        assert!(matches!(handle.closed().await, End::Dead { .. }));
        tries += 1;
    }
    assert!(tries > EVERY.as_secs());
}
