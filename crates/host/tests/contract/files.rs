//! [`Tree`] over memory, over a directory, and over the running kernel.

use std::io::ErrorKind;

use host::fakes::{FakeTree, OnWrite};
use host::{RealTree, Tree};
use nix::errno::Errno;

/// `base` is a directory that exists and holds `value` = `old\n`.
fn behaves_like_kernel_files(tree: &dyn Tree, base: &str) {
    let value = format!("{base}/value");
    assert_eq!(tree.read(&value).unwrap(), "old\n");
    let kept = tree.keep_open(&value).unwrap();
    assert_eq!(kept.read_up_to(4).unwrap(), "old\n");
    let error = kept.read_up_to(3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    tree.write(&value, "x\n").unwrap();
    assert_eq!(kept.read_up_to(4).unwrap(), "x\n", "what it says now");
    assert_eq!(
        tree.read(&value).unwrap(),
        "x\n",
        "a write replaces the whole value"
    );

    let missing = format!("{base}/missing");
    let unopened = tree.keep_open(&missing).err().unwrap();
    assert_eq!(unopened.kind(), ErrorKind::NotFound);
    assert_eq!(tree.read(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        tree.write(&missing, "1").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!tree.exists(&missing), "a write creates no file");
    assert_eq!(tree.list(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        tree.list(&value).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        tree.read(base).unwrap_err().raw_os_error(),
        Some(Errno::EISDIR as i32)
    );

    let inner = format!("{base}/b");
    tree.create_dir(&inner).unwrap();
    assert!(tree.exists(&inner));
    assert_eq!(
        tree.create_dir(&inner).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let lost = format!("{base}/no/parent");
    assert_eq!(
        tree.create_dir(&lost).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    tree.create_dir(&format!("{base}/a")).unwrap();
    assert_eq!(tree.list(base).unwrap(), ["a", "b", "value"], "sorted");
    assert_eq!(
        tree.remove_dir(base).unwrap_err().raw_os_error(),
        Some(Errno::ENOTEMPTY as i32)
    );
    tree.remove_dir(&inner).unwrap();
    assert_eq!(
        tree.remove_dir(&inner).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        tree.remove_dir(&value).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );

    tree.write(&value, "123456789\n").unwrap();
    assert_eq!(
        tree.read_up_to(&value, 4).unwrap_err().kind(),
        ErrorKind::FileTooLarge
    );
    assert_eq!(tree.read_up_to(&value, 10).unwrap(), "123456789\n");

    let held = tree.hold(&value, &0_i32.to_ne_bytes()).unwrap();
    drop(held);
    assert_eq!(
        tree.hold(&missing, b"x").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    refuses_paths_that_leave_the_root(tree);
}

fn refuses_paths_that_leave_the_root(tree: &dyn Tree) {
    for path in ["relative", "/proc/../etc/passwd", "/..", "/a\0b", ""] {
        assert_eq!(
            tree.read(path).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{path:?}"
        );
        assert_eq!(
            tree.write(path, "x").unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{path:?}"
        );
    }
}

#[test]
fn fake() {
    let tree = FakeTree::new();
    tree.set("/sys/thing/value", "old");
    behaves_like_kernel_files(&tree, "/sys/thing");
}

#[test]
fn directory() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("sys/thing")).unwrap();
    std::fs::write(root.path().join("sys/thing/value"), "old\n").unwrap();
    let tree = RealTree::new(root.path());
    behaves_like_kernel_files(&tree, "/sys/thing");
    let error = tree
        .set_affinity(std::process::id(), &"0".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unsupported,
        "a copy of a tree moves no live thread"
    );
}

#[test]
fn running_kernel() {
    let tree = RealTree::live();
    assert!(tree.read("/proc/version").unwrap().starts_with("Linux"));
    assert!(tree.list("/proc").unwrap().contains(&"self".to_owned()));
    refuses_paths_that_leave_the_root(&tree);
    let gone = tree
        .set_affinity(u32::MAX, &"0".parse().unwrap())
        .unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(Errno::ESRCH as i32));
}

#[test]
fn kernel_threads_of_the_running_kernel() {
    let tree = RealTree::live();
    // In a container there may be none; what is found must be sound.
    for thread in host::threads::kernel_threads(&tree).unwrap() {
        assert!(
            !thread.name.is_empty() && !thread.allowed.is_empty(),
            "{thread:?}"
        );
    }
}

#[test]
fn a_held_request_lasts_until_dropped() {
    let tree = FakeTree::new();
    tree.set("/dev/cpu_dma_latency", "");
    let hold = tree
        .hold("/dev/cpu_dma_latency", &0_i32.to_ne_bytes())
        .unwrap();
    assert_eq!(
        tree.held(),
        [("/dev/cpu_dma_latency".to_owned(), vec![0; 4])]
    );
    drop(hold);
    assert!(tree.held().is_empty());
}

#[test]
fn fixtures_set_write_behaviour() {
    let tree = FakeTree::from_fixture(
        "# c\n/a/ro = 1 !ro\n/a/eio = 2 !EIO\n/a/stay = on !sticky\n/a/two = x\\ny\n",
    );
    assert_eq!(
        tree.write("/a/ro", "5").unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(
        tree.write("/a/eio", "5").unwrap_err().raw_os_error(),
        Some(Errno::EIO as i32)
    );
    tree.write("/a/stay", "off").unwrap();
    assert_eq!(tree.read("/a/stay").unwrap(), "on\n");
    assert_eq!(tree.read("/a/two").unwrap(), "x\ny\n");
    tree.on_write("/a/two", OnWrite::Sticky);
    tree.write("/a/two", "z").unwrap();
    assert_eq!(tree.get("/a/two").unwrap(), "x\ny");
    assert_eq!(tree.take_writes().len(), 4);
}
