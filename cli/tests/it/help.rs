//! Words that cost nothing: help, completions, wrong use.

use crate::program::Home;

#[tokio::test]
async fn every_command_explains_itself() {
    let home = Home::new();
    let top = home.run("--help").await.ok().stdout;
    for command in [
        "up",
        "down",
        "run",
        "jobs",
        "job",
        "results",
        "nodes",
        "node",
        "queue",
        "booking",
        "health",
        "image",
        "token",
        "events",
        "verify",
        "context",
        "completions",
    ] {
        assert!(top.contains(&format!("  {command} ")), "{command}: {top}");
        let help = home.run(&format!("{command} --help")).await.ok().stdout;
        assert!(help.contains("Usage: still"), "{help}");
        if command != "completions" && command != "down" {
            assert!(help.contains("Examples:"), "{command}: {help}");
        }
    }
    assert!(!top.contains("supervise"), "{top}");
    home.run("--version").await.ok();
}

#[tokio::test]
async fn completions_are_scripts() {
    let script = Home::new().run("completions bash").await.ok().stdout;
    assert!(script.contains("complete -F _still"), "{script}");
}

#[tokio::test]
async fn wrong_use_is_code_2() {
    let home = Home::new();
    for (line, said) in [
        ("", "Usage: still"),
        ("frobnicate", "frobnicate"),
        ("run --timeout soon x", "\"soon\" is no duration"),
        ("run", "an image or"),
        ("run --command true", "\"true\""),
        ("jobs --state sleeping", "no state of a job: queued"),
        ("jobs", "no controller is known"),
        ("--context far jobs", "no context \"far\"; there is none"),
        (
            "up --provider local --memory 512",
            "--memory is for --provider vm",
        ),
        ("up --engine /x", "--engine is for --provider local"),
        ("up --cpus 1", "a virtual machine needs two CPUs"),
        (
            "up --provider local --nodes 64 --cpus 255",
            "are more than this machine's",
        ),
        ("node set n", "no controller is known"),
        ("job show x", "invalid"),
        (
            "supervise --folder /nonexistent --settings {}",
            "for `still up` to call",
        ),
    ] {
        home.run(line).await.failed(2, said);
    }
    // nothing of that left a trace
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
