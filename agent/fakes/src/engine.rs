//! An engine on a unix socket: a few stateful containers and images, hijacked streams that echo with
//! independent half-closes, slow answers, and a record of everything it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use stillmetal_proxy::{Body, BodyError, full, json as answer_json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::archive;

/// Any machine has done by then what it is going to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// What the engine is and was asked.
#[derive(Debug, Default)]
pub struct State {
    /// Requests, in their order. Uploads of images are kept without their bodies.
    pub seen: Vec<Seen>,
    /// By id.
    pub containers: BTreeMap<String, Value>,
    /// What is packed of a container, by its id and the path in it.
    pub archives: BTreeMap<(String, String), Vec<u8>>,
    /// Images by their ids, with the digests of their layers from the lowest on.
    pub images: BTreeMap<String, Vec<String>>,
    /// Answers to a create with 404.
    pub refuse_create: bool,
    /// Says that it has loaded an image, and has not.
    pub lose_images: bool,
    /// Takes no image without the files of all of its layers, whatever it has.
    pub wants_all_layers: bool,
    /// Answers to a question for its images with 500.
    pub hide_images: bool,
    /// Lengths of the archives that came, bytes.
    pub archives_loaded: Vec<usize>,
    /// Length of `GET /images/NAME/get`, bytes.
    pub export_bytes: u64,
    /// Requests that are being answered.
    pub open: usize,
    /// Bytes that hijacked streams received.
    pub received: u64,
    /// Hijacked streams whose input has ended.
    pub input_ended: usize,
}

#[derive(Clone)]
struct Inner {
    connections: TaskTracker,
    kill: CancellationToken,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
    /// What `logs` and `attach` of `/containers/told` send.
    told: Arc<Mutex<mpsc::Receiver<Vec<u8>>>>,
}

/// A running engine.
pub struct FakeEngine {
    pub socket: PathBuf,
    inner: Inner,
    /// Each of these is one piece of what `logs` and `attach` of any container send.
    pub tell: mpsc::Sender<Vec<u8>>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeEngine")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// What one image may have, bytes.
pub const MEMORY: usize = 64 << 20;

impl FakeEngine {
    /// Listens on a socket that does not exist yet.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let (tell, told) = mpsc::channel(64);
        let inner = Inner {
            connections: TaskTracker::new(),
            kill: CancellationToken::new(),
            state: Arc::default(),
            changed: watch::channel(()).0,
            told: Arc::new(Mutex::new(told)),
        };
        let accepting = tokio::spawn({
            let inner = inner.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (inner, kill) = (inner.clone(), inner.kill.clone());
                    inner.connections.clone().spawn(async move {
                        let service = service_fn(|request| {
                            let inner = inner.clone();
                            async move { Ok::<_, Infallible>(inner.answer(request).await) }
                        });
                        let connection = http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .with_upgrades();
                        tokio::select! {
                            () = kill.cancelled() => {}
                            // Broken connections are what some tests are about.
                            _ = connection => {}
                        }
                    });
                }
            }
        });
        Self {
            socket,
            inner,
            tell,
            accepting,
        }
    }

    /// As `kill -9` would.
    pub async fn die(&self) {
        self.accepting.abort();
        std::fs::remove_file(&self.socket).unwrap();
        self.inner.kill.cancel();
        self.inner.connections.close();
        self.inner.connections.wait().await;
    }

    /// A container that exists already.
    pub fn add(&self, id: &str, host_config: Value) {
        let inspect = json!({ "Id": id, "Name": format!("/{id}"), "State": { "Status": "created" },
            "HostConfig": host_config, "Mounts": [], "Config": {} });
        self.change(|state| drop(state.containers.insert(id.into(), inspect)));
    }

    /// Something at a path of a container, as the engine packs it (see [`crate::packed`]).
    pub fn put(&self, container: &str, path: &str, archive: Vec<u8>) {
        let place = (container.to_owned(), path.to_owned());
        self.change(|state| drop(state.archives.insert(place, archive)));
    }

    /// Looks at the state.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.state.lock().unwrap())
    }

    /// Changes it, as somebody else than the client might.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.inner.change(change);
    }

    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.look(|state| state.seen.clone())
    }

    /// Requests with their methods.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|seen| format!("{} {}", seen.method, seen.target))
            .collect()
    }

    /// Waits until the state is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let mut changed = self.inner.changed.subscribe();
        let wait = async {
            while !self.look(&wanted) {
                changed.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

/// Counts a request as open until its answer is dropped.
struct Open(Inner);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.change(|state| state.open -= 1);
    }
}

impl Inner {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.send_replace(());
    }

    async fn answer(self, mut request: Request<Incoming>) -> Response<Body> {
        self.change(|state| state.open += 1);
        let open = Open(self.clone());
        let target = request.uri().to_string();
        let mut seen = Seen {
            method: request.method().to_string(),
            target: target.clone(),
            headers: request.headers().clone(),
            body: Vec::new(),
        };
        let path = request.uri().path().trim_start_matches("/v1.45").to_owned();
        if target.ends_with("early") {
            // Refuses an upload without having read it, as the engine does with a wrong path.
            self.change(|state| state.seen.push(seen));
            return answer_json(StatusCode::NOT_FOUND, &json!({ "message": "no such path" }));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let upgrade = hyper::upgrade::on(&mut request);
        let wants_upgrade = request.headers().contains_key("upgrade");
        if !wants_upgrade || seen.method == "POST" {
            let collected = request.into_body().collect().await;
            seen.body = collected
                .map(|all| all.to_bytes().to_vec())
                .unwrap_or_default();
        }
        let body = if path.starts_with("/images/load") {
            std::mem::take(&mut seen.body)
        } else {
            seen.body.clone()
        };
        let method = seen.method.clone();
        self.change(|state| state.seen.push(seen));
        if wants_upgrade {
            let (hijacked, kill) = (self.clone().hijacked(path, upgrade), self.kill.clone());
            self.connections
                .spawn(async move { kill.run_until_cancelled(hijacked).await });
            return Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "Upgrade")
                .header("upgrade", "tcp")
                .header("content-type", "application/vnd.docker.raw-stream")
                .body(full(""))
                .unwrap();
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method.as_str(), &parts[..]) {
            (_, ["_ping"]) => Response::new(full("OK")),
            ("GET", ["version"]) => answer_json(StatusCode::OK, &json!({ "Version": "fake" })),
            ("POST", ["containers", "create"]) => self.create(&body),
            ("GET", ["containers", id, "json"]) => self.inspect(id),
            ("GET", ["containers", id, "archive"]) => self.archive(id, &query),
            ("POST", ["containers", _, "start" | "restart"]) => {
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            ("DELETE", ["containers", id]) => {
                self.change(|state| drop(state.containers.remove(*id)));
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            ("GET", ["events"] | ["containers", _, "logs"])
            | ("POST", ["containers", _, "attach"]) => self.told(open),
            ("POST", ["containers", _, "wait"]) => {
                let _open = open;
                std::future::pending::<()>().await;
                unreachable!()
            }
            ("GET", ["exec", id, "json"]) => answer_json(
                StatusCode::OK,
                &json!({ "OpenStdin": *id == "with-stdin", "ContainerID": "plain",
                    "ProcessConfig": { "privileged": false } }),
            ),
            ("GET", ["volumes", "of-the-node"]) => answer_json(
                StatusCode::OK,
                &json!({ "Name": "of-the-node", "Driver": "local",
                    "Options": { "type": "none", "o": "bind", "device": "/etc" } }),
            ),
            ("GET", ["volumes", name]) => answer_json(
                StatusCode::NOT_FOUND,
                &json!({ "message": format!("get {name}: no such volume") }),
            ),
            ("POST", ["images", "load"]) if body.len() > MEMORY => answer_json(
                StatusCode::OK,
                &json!({ "errorDetail": { "message": "write /layer: no space left on device" } }),
            ),
            ("POST", ["images", "load"]) => self.load(&body),
            ("GET", ["images", name, "get"]) if *name != "none" => self.export(open),
            ("GET", ["images", "json"]) => self.images(),
            ("GET", ["images", id, "json"]) => self.image(id),
            _ => answer_json(StatusCode::OK, &json!({ "ok": true, "bytes": body.len() })),
        }
    }

    fn images(&self) -> Response<Body> {
        let state = self.state.lock().unwrap();
        if state.hide_images {
            let broken = json!({ "message": "layer does not exist" });
            return answer_json(StatusCode::INTERNAL_SERVER_ERROR, &broken);
        }
        let list: Vec<Value> = state.images.keys().map(|id| json!({ "Id": id })).collect();
        answer_json(StatusCode::OK, &json!(list))
    }

    fn image(&self, id: &str) -> Response<Body> {
        match self.state.lock().unwrap().images.get(id) {
            Some(layers) => {
                let layers = json!({ "Type": "layers", "Layers": layers });
                answer_json(StatusCode::OK, &json!({ "Id": id, "RootFS": layers }))
            }
            None => answer_json(
                StatusCode::NOT_FOUND,
                &json!({ "message": format!("No such image: {id}") }),
            ),
        }
    }

    /// As the engine does it: a layer that it has, on top of the same others, needs no file.
    fn load(&self, body: &[u8]) -> Response<Body> {
        self.change(|state| state.archives_loaded.push(body.len()));
        for image in archive::images(body) {
            let mut state = self.state.lock().unwrap();
            let layers: Vec<String> = image.layers.iter().map(|it| it.0.clone()).collect();
            let lacks = |(number, (_, file)): (usize, &(String, bool))| {
                let there = (state.images.values()).any(|it| it.starts_with(&layers[..=number]));
                !file && (state.wants_all_layers || !there)
            };
            if image.layers.iter().enumerate().any(lacks) {
                let message = json!({ "message": "open layer.tar: no such file or directory" });
                return answer_json(StatusCode::OK, &json!({ "errorDetail": message }));
            }
            if !state.lose_images {
                state.images.insert(image.id, layers);
            }
        }
        answer_json(StatusCode::OK, &json!({ "ok": true, "bytes": body.len() }))
    }

    fn export(&self, open: Open) -> Response<Body> {
        let left = self.state.lock().unwrap().export_bytes;
        Response::new(Zeros { left, _open: open }.boxed())
    }

    fn create(&self, body: &[u8]) -> Response<Body> {
        let wanted: Value = serde_json::from_slice(body).unwrap();
        if self.state.lock().unwrap().refuse_create {
            return answer_json(
                StatusCode::NOT_FOUND,
                &json!({ "message": "No such image: x" }),
            );
        }
        let id = format!("c{}", self.state.lock().unwrap().containers.len());
        let inspect = json!({ "Id": id, "HostConfig": wanted["HostConfig"], "Config": {} });
        self.change(|state| drop(state.containers.insert(id.clone(), inspect)));
        answer_json(StatusCode::CREATED, &json!({ "Id": id, "Warnings": [] }))
    }

    fn inspect(&self, id: &str) -> Response<Body> {
        match self.state.lock().unwrap().containers.get(id) {
            Some(inspect) => answer_json(StatusCode::OK, inspect),
            None => answer_json(
                StatusCode::NOT_FOUND,
                &json!({ "message": format!("No such container: {id}") }),
            ),
        }
    }

    fn archive(&self, id: &str, query: &str) -> Response<Body> {
        let path = decoded(query.trim_start_matches("path="));
        let state = self.state.lock().unwrap();
        match state.archives.get(&(id.to_owned(), path.clone())) {
            Some(tar) => Response::builder()
                .header("content-type", "application/x-tar")
                .body(full(tar.clone()))
                .unwrap(),
            None => answer_json(
                StatusCode::NOT_FOUND,
                &json!({ "message": format!("Could not find the file {path} in container {id}") }),
            ),
        }
    }

    /// Streams what the test tells, until it stops or the engine dies.
    fn told(&self, open: Open) -> Response<Body> {
        Response::new(
            Told {
                told: Arc::clone(&self.told),
                _open: open,
            }
            .boxed(),
        )
    }

    /// `echo`: sends back what it gets. `late`: all of it at the end. `source`: sends until told
    /// to stop while it receives, and ends its output first.
    async fn hijacked(self, path: String, upgrade: hyper::upgrade::OnUpgrade) {
        let parts = upgrade
            .await
            .unwrap()
            .downcast::<TokioIo<UnixStream>>()
            .unwrap();
        let mut before = &parts.read_buf[..];
        let stream = parts.io.into_inner();
        let (mut read, mut write) = stream.into_split();
        let mode = Path::new(&path)
            .iter()
            .rev()
            .nth(1)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let mut chunk = vec![0; 64 * 1024];
        let mut total = 0_u64;
        if mode == "source" {
            for _ in 0..1024 {
                write.write_all(&chunk).await.unwrap();
            }
            write.shutdown().await.unwrap();
        }
        if mode == "silent" {
            self.change(|state| state.open += 1);
        }
        loop {
            let mut both = tokio::io::AsyncReadExt::chain(&mut before, &mut read);
            match both.read(&mut chunk).await {
                Ok(0) => break,
                Ok(count) => {
                    total += count as u64;
                    if mode == "echo" {
                        write.write_all(&chunk[..count]).await.unwrap();
                    }
                    self.change(|state| state.received += count as u64);
                }
                Err(_) => break,
            }
        }
        self.change(|state| state.input_ended += 1);
        if mode == "silent" {
            // Output never comes, and so nothing is written that could fail.
            while !write
                .ready(Interest::WRITABLE)
                .await
                .unwrap()
                .is_write_closed()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.change(|state| state.open -= 1);
            return;
        }
        if mode != "source" {
            write
                .write_all(format!("got {total}").as_bytes())
                .await
                .unwrap();
            write.shutdown().await.unwrap();
        }
    }
}

/// A value of a query, percent-decoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

/// So many bytes.
struct Zeros {
    left: u64,
    _open: Open,
}

impl hyper::body::Body for Zeros {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];
        let count = usize::try_from(self.left).map_or(CHUNK.len(), |left| left.min(CHUNK.len()));
        if count == 0 {
            return Poll::Ready(None);
        }
        self.left -= count as u64;
        let chunk = Bytes::from_static(&CHUNK[..count]);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

/// Sends what the test tells, piece by piece.
struct Told {
    told: Arc<Mutex<mpsc::Receiver<Vec<u8>>>>,
    _open: Open,
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = self.told.lock().unwrap().poll_recv(cx);
        next.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk.into()))))
    }
}
