//! The transcript: what people do with `docker`, in an order that leaves nothing behind.

use super::step::{Act, End, Step};

/// Bytes that go through a half-closed standard input.
pub(crate) const PIPED_BYTES: usize = 3 << 20;

/// Containers that a broken earlier run may have left.
pub(crate) const CONTAINERS: [&str; 7] = [
    "t-loop", "t-sleep", "t-cp", "t-events", "t-export", "t-tty", "t-attach",
];

/// All steps.
pub(crate) fn steps() -> Vec<Step> {
    [
        about(),
        images(),
        run(),
        limits(),
        life(),
        files(),
        watch(),
        build(),
        clean(),
    ]
    .concat()
}

fn about() -> Vec<Step> {
    vec![
        Step::new(
            "version",
            "version --format '{{.Server.Version}} {{.Server.APIVersion}}'",
        ),
        Step::new(
            "info",
            "info --format '{{.Driver}} {{.CgroupDriver}} {{.CgroupVersion}}'",
        ),
        Step::new("info names the node", "info")
            .shows("Server Version")
            .status_only(),
        Step::new("context", "context inspect node --format '{{.Name}}'").shows("node"),
    ]
}

fn images() -> Vec<Step> {
    vec![
        Step::new("load", "load -i DIR/image.tar").shows("Loaded image"),
        Step::new("images", "images --format '{{.Repository}}:{{.Tag}}' IMAGE"),
        Step::new("export", "create --name t-export IMAGE true"),
        Step::new("import", "import - t-imported:1")
            .act(Act::PipeFrom("export t-export".into()))
            .shows("sha256:"),
        Step::new(
            "the import runs",
            "run --rm t-imported:1 /bin/busybox echo imported",
        )
        .shows("imported"),
        Step::new("tag", "tag IMAGE t-tagged:2"),
        Step::new(
            "images lists both",
            "images --format '{{.Repository}}:{{.Tag}}' t-*",
        ),
        Step::new("rm export", "rm t-export").shows("t-export"),
        Step::new(
            "image inspect",
            "image inspect --format '{{.Os}} {{.Architecture}}' IMAGE",
        ),
        Step::new("no such image", "run --rm --pull never t-absent:1").code(125),
    ]
}

fn run() -> Vec<Step> {
    let piped = Act::Stdin(vec![b'x'; PIPED_BYTES]);
    let dialogue = vec![
        ("# ", "echo is $((6 * 7)); tty; stty size\n"),
        ("is 42", ""),
        ("/dev/pts/", "exit 5\n"),
    ];
    vec![
        Step::new(
            "run",
            "run --rm IMAGE sh -c 'echo hello; echo to-stderr >&2; exit 3'",
        )
        .code(3)
        .shows("hello")
        .shows("to-stderr"),
        Step::new("no such program", "run --rm IMAGE /absent").code(127),
        Step::new("terminal", "run -it --rm --name t-tty IMAGE sh")
            .act(Act::Terminal(dialogue))
            .code(5)
            .status_only(),
        Step::new(
            "piped input ends",
            "run -i --rm IMAGE sh -c 'wc -c; echo after'",
        )
        .act(piped.clone())
        .shows("3145728")
        .shows("after"),
        Step::new("piped input comes back", "run -i --rm IMAGE cat").act(piped),
        Step::new(
            "process",
            "run --rm -e 'A=b c' -w /tmp -h a-name --user 1234:5678 --ulimit nofile=99 IMAGE \
             sh -c 'echo [$A]; pwd; hostname; id; ulimit -n'",
        )
        .shows("[b c]\n/tmp\na-name\nuid=1234 gid=5678")
        .shows("\n99\n"),
        Step::new("read-only root", "run --rm --read-only IMAGE touch /x")
            .code(1)
            .shows("Read-only file system"),
        Step::new(
            "no capabilities",
            "run --rm --cap-drop ALL IMAGE grep CapEff /proc/self/status",
        )
        .shows("0000000000000000"),
        Step::new("init", "run --rm --init IMAGE sh -c 'cat /proc/1/comm'").shows("docker-init"),
    ]
}

fn limits() -> Vec<Step> {
    vec![
        Step::new("volume, written", "run --rm -v t-volume:/v IMAGE sh -c 'echo kept >/v/f'"),
        Step::new("volume, read", "run --rm -v t-volume:/v:ro IMAGE cat /v/f").shows("kept"),
        Step::new("volume ls", "volume ls -q -f name=t-volume").shows("t-volume"),
        Step::new("volume rm", "volume rm t-volume"),
        Step::new(
            "tmpfs",
            "run --rm --tmpfs /t:size=2m IMAGE \
             sh -c 'dd if=/dev/zero of=/t/f bs=1M count=1 && dd if=/dev/zero of=/t/f bs=1M count=4'",
        )
        .code(1)
        .shows("1+0 records out")
        .shows("No space left on device"),
        Step::new(
            "memory and processes",
            "run --rm --memory 32m --pids-limit 50 IMAGE sh -c 'cd /sys/fs/cgroup; \
             cat memory.max pids.max || cat memory/memory.limit_in_bytes pids/pids.max'",
        )
        .shows("33554432\n50"),
    ]
}

fn life() -> Vec<Step> {
    const LOOP: &str = "run -d --name t-loop IMAGE sh -c \
        'trap \"exit 7\" TERM; i=0; while :; do echo tick $i; i=$((i + 1)); sleep 1; done'";
    let stop = Act::Follow {
        first: "tick 2",
        then: vec!["stop t-loop".into()],
        last: "tick",
        end: End::ByItself,
    };
    let kill = Act::Follow {
        first: "tick",
        then: vec!["kill t-sleep".into()],
        last: "",
        end: End::ByItself,
    };
    let dialogue = vec![("# ", "echo $((40 + 2))\n"), ("42", "exit 6\n")];
    vec![
        Step::new("run -d", LOOP),
        Step::new(
            "ps",
            "ps --filter name=t-loop --format '{{.Names}} {{.Image}} {{.State}}'",
        )
        .shows("t-loop"),
        Step::new("exec", "exec t-loop echo inside").shows("inside"),
        Step::new("exec's status", "exec t-loop sh -c 'exit 9'").code(9),
        Step::new("exec with input", "exec -i t-loop wc -c")
            .act(Act::Stdin(b"12345".to_vec()))
            .shows("5"),
        Step::new("exec on a terminal", "exec -it t-loop sh")
            .act(Act::Terminal(dialogue))
            .code(6)
            .status_only(),
        Step::new(
            "exec as a user",
            "exec -u 12 -e X=y t-loop sh -c 'id -u; echo $X'",
        )
        .shows("12\ny"),
        Step::new("pause", "pause t-loop"),
        Step::new("paused", "inspect -f '{{.State.Status}}' t-loop").shows("paused"),
        Step::new("unpause", "unpause t-loop"),
        Step::new("logs -f until stop", "logs -f t-loop")
            .act(stop)
            .status_only(),
        Step::new(
            "stopped",
            "inspect -f '{{.State.Status}} {{.State.ExitCode}}' t-loop",
        )
        .shows("exited 7"),
        Step::new("wait after the end", "wait t-loop").shows("7"),
        Step::new("logs", "logs --tail 1 t-loop")
            .shows("tick")
            .status_only(),
        Step::new("rename", "rename t-loop t-sleep"),
        Step::new("start again", "start t-sleep"),
        Step::new("restart", "restart -t 3 t-sleep"),
        Step::new("attach until kill", "attach --no-stdin t-sleep")
            .act(kill)
            .code(137)
            .status_only(),
        Step::new("wait", "wait t-sleep").shows("137"),
        Step::new("rm", "rm t-sleep").shows("t-sleep"),
        Step::new("rm again", "rm t-sleep")
            .code(1)
            .shows("No such container"),
        Step::new(
            "run in the background",
            "run -d --name t-sleep IMAGE sleep 1000",
        ),
        Step::new("rm of a running one", "rm t-sleep").code(1),
        // The engine runs its own machine's `ps` for this.
        Step::new("top", "top t-sleep")
            .shows("sleep 1000")
            .status_only(),
        Step::new("top with columns", "top t-sleep -o pid,comm")
            .shows("sleep")
            .status_only(),
        Step::new(
            "stats",
            "stats --no-stream --format '{{.Name}} {{.PIDs}}' t-sleep",
        )
        .shows("t-sleep 1"),
        Step::new("inspect", "inspect -f '{{json .HostConfig}}' t-sleep"),
        Step::new("rm -f", "rm -f t-sleep"),
        Step::new("create", "create -i --name t-attach IMAGE cat"),
        Step::new("start with input", "start -ai t-attach")
            .act(Act::Stdin(b"through attach\n".to_vec()))
            .shows("through attach"),
        Step::new("rm attached", "rm -f t-attach"),
    ]
}

fn files() -> Vec<Step> {
    vec![
        Step::new("for cp", "run -d --name t-cp IMAGE sleep 1000"),
        Step::new("cp in", "cp DIR/file t-cp:/tmp/in").status_only(),
        Step::new("copied in", "exec t-cp md5sum /tmp/in"),
        Step::new("cp out", "cp t-cp:/tmp/in DIR/back").status_only(),
        Step::new("cp to standard output", "cp t-cp:/etc/hostname -")
            .shows("hostname")
            .status_only(),
        Step::new("cp of nothing", "cp t-cp:/absent DIR/absent").code(1),
        Step::new("diff", "diff t-cp").shows("A /tmp/in"),
        Step::new("commit", "commit t-cp t-committed:1").shows("sha256:"),
        Step::new("the commit has it", "run --rm t-committed:1 md5sum /tmp/in"),
        Step::new("rm cp", "rm -f t-cp"),
    ]
}

fn watch() -> Vec<Step> {
    let life = Act::Follow {
        first: "",
        then: vec!["run --rm --name t-events IMAGE true".into()],
        last: "destroy",
        end: End::Interrupt,
    };
    const EVENTS: &str = "events --since 1 --filter container=t-events --filter type=container --format '{{.Action}}'";
    vec![
        Step::new("events", EVENTS)
            .act(life)
            .any_code()
            .status_only(),
    ]
}

fn build() -> Vec<Step> {
    vec![
        Step::new("build", "build -q --no-cache -t t-built:1 DIR/context").shows("sha256:"),
        Step::new("the build runs", "run --rm t-built:1").shows("from the context\nfrom a command"),
        Step::new("history", "history -q t-built:1").status_only(),
    ]
}

fn clean() -> Vec<Step> {
    vec![
        Step::new("rmi", "rmi t-built:1 t-committed:1 t-imported:1 t-tagged:2").status_only(),
        Step::new("system df", "system df")
            .shows("Images")
            .status_only(),
        Step::new("system prune", "system prune -f")
            .shows("Total reclaimed space")
            .status_only(),
        Step::new("nothing is left", "ps -aq --filter name=t-"),
    ]
}
