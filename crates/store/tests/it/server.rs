//! A PostgreSQL server of our own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};

/// Everything takes less than that on any machine that can be used at all.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A server in its own directory, which its guardian removes when this process ends, however it does.
#[derive(Debug)]
pub(crate) struct Server {
    directory: PathBuf,
    guardian: Mutex<Guardian>,
}

#[derive(Debug)]
struct Guardian {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

/// Does what is told line by line, and cleans up when nobody is there any more to tell.
///
/// `$1`: the directory. `$2`: PostgreSQL's programs. The rest: what makes a command unprivileged.
const GUARDIAN: &str = r#"
dir=$1 bin=$2; shift 2
server=
stop() {
    if [ -n "$server" ]; then kill "-$1" "$server" 2>/dev/null; wait "$server" 2>/dev/null; server=; fi
}
while read -r order; do
    case $order in
    init)
        "$@" "$bin/initdb" -D "$dir/data" -A trust -U stillmetal -E UTF8 --locale=C --no-sync \
            >"$dir/log" 2>&1 || { tail -n 5 "$dir/log" | tr '\n' ' '; echo; continue; }
        ;;
    start)
        "$@" "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=200 \
            -c shared_buffers=32MB -c dynamic_shared_memory_type=mmap >>"$dir/log" 2>&1 </dev/null &
        server=$!
        ;;
    stop) stop INT ;;
    quit) stop QUIT ;;
    esac
    echo done
done
stop QUIT
rm -rf "$dir"
"#;

impl Server {
    /// A new one with an empty database `postgres`, running.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let directory = tempfile::Builder::new()
            .prefix("stillmetal-pg-")
            .tempdir()
            .expect("a directory for PostgreSQL")
            .keep();
        let user = unprivileged(&directory);
        let mut process = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .args([directory.as_os_str(), programs.as_os_str()])
            .args(user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start PostgreSQL's guardian");
        let server = Self {
            directory,
            guardian: Mutex::new(Guardian {
                orders: process.stdin.take().expect("piped"),
                answers: BufReader::new(process.stdout.take().expect("piped")),
                _process: process,
            }),
        };
        server.order("init");
        server.resume();
        server
    }

    /// Ends it in good order, connections and all.
    pub(crate) fn stop(&self) {
        self.order("stop");
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn crash(&self) {
        self.order("quit");
    }

    /// Starts it again, and waits until it answers.
    pub(crate) fn resume(&self) {
        self.order("start");
        let deadline = Instant::now() + LONG;
        while let Err(error) = block_on(async { self.options("postgres").connect().await }) {
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not answer: {error}\n{log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn order(&self, order: &str) {
        let mut guardian = self.guardian.lock().expect("its holders do not panic");
        writeln!(guardian.orders, "{order}").expect("PostgreSQL's guardian listens");
        let mut answer = String::new();
        guardian
            .answers
            .read_line(&mut answer)
            .expect("PostgreSQL's guardian answers");
        assert_eq!(answer.trim(), "done", "PostgreSQL: {order}");
    }

    /// Where its socket is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// One that the server may write in.
    pub(crate) fn make_directory(&self, path: &Path) -> PathBuf {
        std::fs::create_dir(path).expect("a directory");
        let owner = std::fs::metadata(&self.directory).expect("is there");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("give it to the server");
        path.to_path_buf()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        url(&self.directory, database)
    }

    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        self.url(database).parse().expect("a URL of ours")
    }

    /// Runs a statement in the database `postgres`.
    pub(crate) fn administer(&self, sql: &str) -> Result<(), sqlx::Error> {
        block_on(async {
            let mut connection: PgConnection = self.options("postgres").connect().await?;
            connection.execute(AssertSqlSafe(sql)).await?;
            sqlx::Connection::close(connection).await
        })
    }
}

/// Of a database behind the socket in `directory`.
pub(crate) fn url(directory: &Path, database: &str) -> String {
    format!(
        "postgres:///{database}?host={}&user=stillmetal",
        directory.display()
    )
}

/// The server that all tests share.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// Where PostgreSQL's programs are; Debian keeps them out of the path.
fn programs() -> PathBuf {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let of_debian = of_debian.flatten().map(|entry| entry.path().join("bin"));
    let mut found: Vec<PathBuf> = of_debian
        .chain(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ))
        .filter(|path| path.join("initdb").exists() && path.join("postgres").exists())
        .collect();
    found.sort();
    let last = found.pop();
    last.expect("PostgreSQL is not installed, and half of the store cannot be tested: apt-get install postgresql")
}

/// PostgreSQL refuses to run as root: the command before its own that makes it somebody else, whose
/// directory this becomes.
fn unprivileged(directory: &Path) -> Vec<String> {
    let myself = std::fs::metadata("/proc/self").expect("/proc").uid();
    if myself != 0 {
        return Vec::new();
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("/proc");
    if map.split_whitespace().last() == Some("1") {
        // root of a namespace with nobody else in it: the same user under another number
        let command = ["unshare", "--user", "--map-user=1000", "--map-group=1000"];
        return command.map(String::from).to_vec();
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("nobody:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let (uid, gid): (u32, u32) = ids.expect("a user nobody");
    chown(directory, Some(uid), Some(gid)).expect("give the directory to nobody");
    vec![
        "setpriv".into(),
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        "--clear-groups".into(),
    ]
}
