//! DHCP against dnsmasq, over a veth pair between two network namespaces.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use stillmetal_init::dhcp::{self, Lease};
use stillmetal_init::net::{Address, Source};

use super::namespace::{as_pid_one, eventually, sh};

const DEADLINE: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(20);

/// This namespace is the node's; `srv` is the server's.
fn cable(device: &str, peer: &str, server_address: &str) {
    sh(&format!(
        "ip link add {device} type veth peer name {peer} netns srv"
    ));
    sh(&format!(
        "ip netns exec srv ip address add {server_address} dev {peer}"
    ));
    sh(&format!("ip netns exec srv ip link set {peer} up"));
}

fn dnsmasq(options: &str) -> Child {
    let fixed = "netns exec srv dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --no-ping \
        --user=root --pid-file= --dhcp-leasefile=/run/dnsmasq.leases --dhcp-authoritative";
    Command::new("ip")
        .args(fixed.split_whitespace())
        .args(options.split_whitespace())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs the agent's keeper on `device` while `check` looks.
fn keeping(device: &str, check: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| dhcp::keep(Some(device), Some("node7"), &stop));
        check();
        stop.store(true, Ordering::Relaxed);
    });
}

fn output(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const OPTIONS: &str = "--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,120 --dhcp-option=3,10.9.0.1 \
    --dhcp-option=6,10.9.0.3,10.9.0.4 --dhcp-option=42,10.9.0.5 --domain=lab.example";

fn set_up() {
    sh("ip link set lo up");
    sh("ip netns add srv");
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn obtains_writes_down_and_renews_a_lease() {
    let body = || {
        set_up();
        cable("lan0", "p0", "10.9.0.1/24");
        let mut server = dnsmasq(OPTIONS);
        let mut first = None;
        keeping("lan0", || {
            first = Some(eventually("a lease", PATIENCE, || Lease::read().ok()));
        });
        let lease = first.unwrap();
        assert_eq!(
            (lease.prefix, lease.lease_seconds, lease.primary),
            (24, 120, true)
        );
        assert_eq!(lease.router, Some("10.9.0.1".parse().unwrap()));
        assert_eq!(
            lease.ntp,
            ["10.9.0.5".parse::<std::net::Ipv4Addr>().unwrap()]
        );
        assert_eq!((lease.t1_seconds, lease.t2_seconds), (60, 105));
        let resolver = fs::read_to_string("/run/resolv.conf").unwrap();
        assert_eq!(
            resolver,
            "search lab.example\nnameserver 10.9.0.3\nnameserver 10.9.0.4\n"
        );
        let own = format!("{}/24", lease.address);
        assert!(output("ip -4 address show dev lan0").contains(&own));
        assert!(output("ip route").contains("default via 10.9.0.1 dev lan0"));
        let address = eventually("the record", PATIENCE, || Address::read().ok());
        assert_eq!(
            (address.address, address.source),
            (lease.address, Source::Dhcp)
        );
        assert!(
            !output("ss -lun").contains(":68 "),
            "no socket is open while nothing is awaited"
        );
        assert!(
            fs::read_to_string("/run/dnsmasq.leases")
                .unwrap()
                .contains("node7")
        );

        // The same keeper, started again past T1 as the file says: it renews by unicast and keeps the address.
        let aged = Lease {
            obtained: lease.obtained.saturating_sub(70),
            ..lease.clone()
        };
        fs::write(
            "/run/stillmetal/lease-lan0.json",
            serde_json::to_vec(&aged).unwrap(),
        )
        .unwrap();
        keeping("lan0", || {
            let renewed = eventually("the renewal", PATIENCE, || {
                Lease::read()
                    .ok()
                    .filter(|renewed| renewed.obtained > aged.obtained + 60)
            });
            assert_eq!((renewed.address, renewed.primary), (lease.address, true));
        });
        server.kill().unwrap();
        server.wait().unwrap();
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn goes_on_trying_until_cable_and_server_are_there() {
    let body = || {
        set_up();
        cable("lan0", "p0", "10.9.0.1/24");
        sh("ip netns exec srv ip link set p0 down");
        keeping("lan0", || {
            eventually("it is set up", PATIENCE, || {
                output("ip link show lan0")
                    .contains("NO-CARRIER")
                    .then_some(())
            });
            sh("ip netns exec srv ip link set p0 up");
            let mut server = dnsmasq(OPTIONS);
            eventually("a lease", PATIENCE, || Lease::read().ok());
            server.kill().unwrap();
            server.wait().unwrap();
        });
    };
    as_pid_one(DEADLINE, body, |_| {});
}

#[test]
#[ignore = "needs root: run in the root lane"]
fn an_expired_lease_is_taken_off_the_device() {
    let body = || {
        set_up();
        cable("lan0", "p0", "10.9.0.1/24");
        let mut server = dnsmasq(OPTIONS);
        keeping("lan0", || {
            eventually("a lease", PATIENCE, || Lease::read().ok());
        });
        server.kill().unwrap();
        server.wait().unwrap();
        let lease = Lease::read().unwrap();
        let expired = Lease {
            obtained: lease.obtained.saturating_sub(200),
            ..lease.clone()
        };
        fs::write(
            "/run/stillmetal/lease-lan0.json",
            serde_json::to_vec(&expired).unwrap(),
        )
        .unwrap();
        keeping("lan0", || {
            eventually("the address is gone", PATIENCE, || {
                (!output("ip -4 address show dev lan0").contains("10.9.0.")).then_some(())
            });
            eventually("the record too", PATIENCE, || {
                Lease::read().is_err().then_some(())
            });
        });
    };
    as_pid_one(DEADLINE, body, |_| {});
}
