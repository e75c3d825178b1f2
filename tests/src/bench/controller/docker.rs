//! `controller.docker.*`: the container API of a node through controller and tunnel, against the same on
//! the node's own port. The engine behind both answers at once, so nothing hides what the way costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pki::rustls::ClientConfig;
use pki::rustls::pki_types::ServerName;
use pki::{Authority, RoleName, Validity};
use stillmetal_fakes::lab::{Options, container_api};
use stillmetal_fakes::{FakeEngine, FakeNode};
use stillmetal_proxy::{Limits, Parts, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::bed::{Bed, quantile};
use crate::bench::figure::{Figure, median};

pub(super) const IDS: [&str; 4] = [CALL, BULK, STALLED, EXACT];
const CALL: &str = "controller.docker.call";
const BULK: &str = "controller.docker.bulk";
const STALLED: &str = "controller.docker.stalled";
const EXACT: &str = "controller.docker.exact";

const NODE: &str = "local";
/// Pairs of calls, and of transfers.
const CALLS: usize = 300;
const TRANSFERS: usize = 5;
const TRANSFER_MIB: u64 = 1024;
const READERS: usize = 200;
const SESSIONS: u64 = 1000;
const SESSIONS_AT_ONCE: usize = 16;
const MEBIBYTE: usize = 1 << 20;
/// For anything that has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to the container API.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// What stands before its paths.
    prefix: String,
}

pub(super) async fn figures(busy: f64) -> anyhow::Result<Vec<Figure>> {
    let mut bed = Bed::start().await?;
    let engine = FakeEngine::start(bed.memory.path().join("engine.sock"));
    let node = Arc::new(FakeNode::new(engine.socket.clone()));
    let parts = Parts {
        placement: node.clone(),
        node_api: node.clone(),
        engine: node.clone(),
        events: node.told.clone(),
    };
    let service = Service::new(parts, Limits::default());
    let mut options = Options::pretending(NODE);
    options.router = Some(container_api(service.clone()));
    bed.join(options).await;
    let [ca, cert, key] = bed.controller.admin();
    let through = Way {
        address: bed.controller.address,
        tls: pki::client_config(&ca, &cert, &key)?,
        prefix: format!("/nodes/{NODE}"),
    };
    // the node's own port, as it has one without a controller
    let day = Validity::days(1);
    let authority = Authority::generate("node")?;
    let issued = authority.issue_node(&["127.0.0.1"], day)?;
    let ca = authority.cert_pem();
    let tls = pki::server_config(ca, &issued.cert_pem, &issued.key_pem)?;
    let server = service.listen(([127, 0, 0, 1], 0).into(), tls).await?;
    let user = authority.issue_client("admin", RoleName::Admin, day)?;
    let direct = Way {
        address: server.local_addr(),
        tls: pki::client_config(ca, &user.cert_pem, &user.key_pem)?,
        prefix: String::new(),
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone()));
    let figures = vec![
        call(&through, &direct, busy).await?,
        bulk(&engine, &through, &direct, busy).await?,
        exact(&engine, &through, busy).await?,
        // the last: it leaves readers that read nothing
        stalled(&engine, &through, busy).await?,
    ];
    stop.cancel();
    drop(timeout(PATIENCE, serving).await);
    Ok(figures)
}

async fn call(through: &Way, direct: &Way, busy: f64) -> anyhow::Result<Figure> {
    // as a docker command does it: a connection, a ping, a question
    let command = async |way: &Way| {
        let began = Instant::now();
        let mut client = Client::connect(way).await?;
        client.get("/_ping").await?;
        client.get("/v1.45/containers/json").await?;
        anyhow::Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        ours.push(command(through).await?);
        theirs.push(command(direct).await?);
    }
    let (mut kept, mut kept_theirs) = (Vec::new(), Vec::new());
    let mut clients = (
        Client::connect(through).await?,
        Client::connect(direct).await?,
    );
    for _ in 0..CALLS {
        kept.push(clients.0.timed("/v1.45/containers/json").await?);
        kept_theirs.push(clients.1.timed("/v1.45/containers/json").await?);
    }
    let figure = Figure::new(
        CALL,
        "a docker command's connection, ping and question through controller and tunnel; theirs: on the node's own port; median",
        "ms",
        "ours/theirs ≤ 1.3",
        busy,
    )
    .values(median(&mut ours).context("no calls")?, median(&mut theirs));
    let met = figure.ratio.is_some_and(|ratio| ratio <= 1.3);
    let kept = median(&mut kept).context("no calls")?;
    let kept_theirs = median(&mut kept_theirs).context("no calls")?;
    Ok(figure.met(met).note(format!(
        "{CALLS} pairs by turns; the engine answers at once; one question on a connection that is open: {kept:.2} ms against {kept_theirs:.2} ms"
    )))
}

async fn bulk(
    engine: &FakeEngine,
    through: &Way,
    direct: &Way,
    busy: f64,
) -> anyhow::Result<Figure> {
    engine.change(|state| state.export_bytes = TRANSFER_MIB << 20);
    let transfer = async |way: &Way| {
        let mut client = Client::connect(way).await?;
        let began = Instant::now();
        let mut body = client
            .send("GET", "/images/any/get", &[])
            .await?
            .into_body();
        let mut got = 0;
        while let Some(frame) = timeout(PATIENCE, body.frame()).await? {
            got += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        ensure!(got == TRANSFER_MIB << 20, "{got} bytes came");
        Ok(super::bed::rate(
            usize::try_from(TRANSFER_MIB)?,
            began.elapsed(),
        ))
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TRANSFERS {
        ours.push(transfer(through).await?);
        theirs.push(transfer(direct).await?);
    }
    let rates = format!("ours {ours:.0?}, theirs {theirs:.0?}");
    let ours = median(&mut ours).context("no transfers")?;
    Ok(Figure::new(
        BULK,
        "an image of 1 GiB through controller and tunnel; theirs: on the node's own port; median",
        "MiB/s",
        "≥ 500",
        busy,
    )
    .values(ours, median(&mut theirs))
    .met(ours >= 500.0)
    .note(format!(
        "{TRANSFERS} by turns: {rates}; client, controller, node and engine on this machine"
    )))
}

async fn stalled(engine: &FakeEngine, through: &Way, busy: f64) -> anyhow::Result<Figure> {
    let tail = async || {
        let mut client = Client::connect(through).await?;
        let mut took = Vec::with_capacity(2 * CALLS);
        for _ in 0..2 * CALLS {
            took.push(client.timed("/_ping").await?);
        }
        quantile(&mut took, 0.99).context("no calls")
    };
    engine.change(|state| state.export_bytes = 1 << 40);
    let (mut with, mut without) = (vec![], vec![tail().await?]);
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let mut client = Client::connect(through).await?;
        let response = client.send("GET", "/images/any/get", &[]).await?;
        // held, and never read
        readers.push((client, response));
    }
    for _ in 0..3 {
        with.push(tail().await?);
    }
    drop(readers);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        without.push(tail().await?);
    }
    let rounds = format!("with {with:.2?}, without {without:.2?}");
    let figure = Figure::new(
        STALLED,
        "a ping's p99 while 200 readers of the same node have stalled; theirs: without them",
        "ms",
        "ours/theirs ≤ 2",
        busy,
    )
    .values(
        median(&mut with).context("no rounds")?,
        median(&mut without),
    );
    let met = figure.ratio.is_some_and(|ratio| ratio <= 2.0);
    Ok(figure
        .met(met)
        .note(format!("{} pings a round, medians of: {rounds}", 2 * CALLS)))
}

async fn exact(engine: &FakeEngine, through: &Way, busy: f64) -> anyhow::Result<Figure> {
    let before = engine.look(|state| state.input_ended);
    let began = Instant::now();
    let sessions = stream::iter(0..SESSIONS).map(|number| session(through, number));
    let right: Vec<bool> = sessions
        .buffer_unordered(SESSIONS_AT_ONCE)
        .try_collect()
        .await?;
    let right = right.into_iter().filter(|right| *right).count();
    let ended = engine.look(|state| state.input_ended) - before;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let (ours, all) = (right as f64, SESSIONS as f64);
    Ok(Figure::new(
        EXACT,
        "exec sessions with 1 MiB of input and its end, byte for byte what was sent and what came back",
        "sessions",
        "1,000 of 1,000",
        busy,
    )
    .values(ours, None)
    .met(ours >= all)
    .note(format!(
        "{SESSIONS_AT_ONCE} at a time, {:.0} s; the engine saw the end of {ended} inputs",
        began.elapsed().as_secs_f64()
    )))
}

/// Whether what was sent came back, and then what the engine says at the end of its input.
async fn session(way: &Way, number: u64) -> anyhow::Result<bool> {
    let mut client = Client::connect(way).await?;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "tcp")];
    let target = "/v1.45/exec/echo/start";
    let response = client.send("POST", target, &upgrade).await?;
    ensure!(
        response.status() == StatusCode::SWITCHING_PROTOCOLS,
        "exec start answered {}",
        response.status()
    );
    let stream = TokioIo::new(timeout(PATIENCE, hyper::upgrade::on(response)).await??);
    let (mut read, mut write) = tokio::io::split(stream);
    let input = pattern(number);
    let send = async {
        write.write_all(&input).await?;
        write.shutdown().await
    };
    let mut output = Vec::with_capacity(MEBIBYTE + 64);
    let receive = read.read_to_end(&mut output);
    timeout(PATIENCE, async { tokio::try_join!(send, receive) }).await??;
    let end = format!("got {MEBIBYTE}");
    Ok(output.len() == MEBIBYTE + end.len()
        && output.starts_with(&input)
        && output.ends_with(end.as_bytes()))
}

/// Bytes that tell a shift, a gap and a mix-up of streams.
fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(MEBIBYTE).collect()
}

/// One connection.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    prefix: String,
}

impl Client {
    async fn connect(way: &Way) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(way.address)).await??;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(way.address.ip().into());
        let connecting = TlsConnector::from(Arc::clone(&way.tls)).connect(name, stream);
        let stream = timeout(PATIENCE, connecting).await??;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // whoever uses it sees its end
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Self {
            sender,
            prefix: way.prefix.clone(),
        })
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Response<Incoming>> {
        let body = match method {
            "POST" => r#"{"Detach":false,"Tty":false}"#,
            _ => "",
        };
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes())?)
            .uri(format!("{}{path}", self.prefix))
            .header("host", "docker")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes())))?;
        timeout(PATIENCE, self.sender.ready()).await??;
        Ok(timeout(PATIENCE, self.sender.send_request(request)).await??)
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<()> {
        let response = self.send("GET", path, &[]).await?;
        let status = response.status();
        ensure!(status == StatusCode::OK, "GET {path} answered {status}");
        timeout(PATIENCE, response.into_body().collect()).await??;
        Ok(())
    }

    /// In ms.
    async fn timed(&mut self, path: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.get(path).await?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }
}
