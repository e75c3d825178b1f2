use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn defaults_when_nothing_is_given() {
    assert_eq!(BootConfig::parse(""), BootConfig::default());
    assert_eq!(
        BootConfig::parse("console=ttyS0 quiet nohz_full=1-N\n"),
        BootConfig::default()
    );
}

#[test]
fn all_parameters() {
    let config = BootConfig::parse(
        "stillmetal.hostname=n1 ip=dhcp stillmetal.ntp=10.0.0.1 stillmetal.onfail=hold \
         stillmetal.onfail-delay=3 stillmetal.modules=nvme,sd_mod stillmetal.memory_min=200 \
         stillmetal.smt=keep stillmetal.panic_test=1",
    );
    assert_eq!(config.hostname.as_deref(), Some("n1"));
    assert_eq!(config.ntp, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(config.onfail, OnFail::Hold);
    assert_eq!(config.onfail_delay, Duration::from_secs(3));
    assert_eq!(config.modules, ["nvme", "sd_mod"]);
    assert_eq!(config.memory_min_mib, Some(200));
    assert_eq!(config.smt, Smt::Keep);
    assert!(config.panic_test);
    assert!(config.warnings.is_empty());
}

#[test]
fn quotes_are_the_kernels() {
    let all: Vec<Word> = words(r#"a="b c" "d=e f" g="h quiet"#).collect();
    let pair = |k: &str, v: &str| Word {
        key: k.into(),
        value: Some(v.into()),
    };
    assert_eq!(
        all,
        [pair("a", "b c"), pair("d", "e f"), pair("g", "h quiet")]
    );
}

#[test]
fn last_duplicate_wins() {
    let config =
        BootConfig::parse("stillmetal.onfail=hold stillmetal.onfail=poweroff ip=off ip=dhcp");
    assert_eq!(config.onfail, OnFail::Poweroff);
    assert_eq!(config.ip, IpConfig::Dhcp { device: None });
}

#[test]
fn unusable_values_are_named_and_ignored() {
    let config = BootConfig::parse(
        "stillmetal.onfail=explode stillmetal.hostname=-x stillmetal.hostnam=a ip=1.2.3 stillmetal.ntp=x",
    );
    assert_eq!(
        BootConfig {
            warnings: vec![],
            ..config.clone()
        },
        BootConfig::default()
    );
    assert_eq!(config.warnings.len(), 5, "{:?}", config.warnings);
}

#[test]
fn static_address_in_full() {
    let config = BootConfig::parse(
        "ip=10.0.2.15::10.0.2.2:255.255.255.0:bench7:eth1:off:10.0.2.3::10.0.2.4",
    );
    let expected = StaticAddress {
        address: address("10.0.2.15"),
        prefix: 24,
        router: Some(address("10.0.2.2")),
        device: Some("eth1".into()),
        dns: vec![address("10.0.2.3")],
        ntp: Some(address("10.0.2.4")),
    };
    assert_eq!(config.ip, IpConfig::Static(expected));
    assert_eq!(config.hostname.as_deref(), Some("bench7"));
}

#[test]
fn static_address_alone_gets_the_classful_mask() {
    for (text, prefix) in [("10.1.2.3", 8), ("172.16.0.1", 16), ("192.168.7.7", 24)] {
        let IpConfig::Static(found) = BootConfig::parse(&format!("ip={text}")).ip else {
            panic!("{text}")
        };
        assert_eq!((found.address, found.prefix), (address(text), prefix));
    }
}

#[test]
fn dhcp_on_one_device_and_off() {
    assert_eq!(
        BootConfig::parse("ip=:::::eth2:dhcp").ip,
        IpConfig::Dhcp {
            device: Some("eth2".into())
        }
    );
    assert_eq!(BootConfig::parse("ip=none").ip, IpConfig::Off);
    assert_eq!(BootConfig::parse("ip=::::n:eth0:off").ip, IpConfig::Off);
}

#[test]
fn masks_must_be_contiguous() {
    let config = BootConfig::parse("ip=10.0.0.1:::255.0.255.0");
    assert_eq!(config.ip, IpConfig::Dhcp { device: None });
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn dedicated_hostname_beats_the_field_of_ip() {
    for line in [
        "stillmetal.hostname=a ip=::::b::dhcp",
        "ip=::::b::dhcp stillmetal.hostname=a",
    ] {
        assert_eq!(BootConfig::parse(line).hostname.as_deref(), Some("a"));
    }
}

#[test]
fn a_controller_and_its_authority() {
    let hash = "0123456789abcdef".repeat(4);
    let config = BootConfig::parse(&format!(
        "stillmetal.controller=lab.example:7000 stillmetal.ca=sha256:{}",
        hash.to_uppercase()
    ));
    let controller = config.controller.unwrap();
    assert_eq!(
        (&*controller.host, controller.port),
        ("lab.example", 7000_u16)
    );
    assert_eq!(config.controller_ca, Some(format!("sha256:{hash}")));
    assert!(config.warnings.is_empty());
    for (text, host, port) in [
        ("10.0.2.2", "10.0.2.2", DEFAULT_PORT),
        ("Lab", "lab", DEFAULT_PORT),
        ("[fe80::1]", "fe80::1", DEFAULT_PORT),
        ("[::1]:1", "::1", 1),
        ("a-b.c:65535", "a-b.c", 65535),
    ] {
        let found = BootConfig::parse(&format!("stillmetal.controller={text}"));
        let found = found.controller.unwrap_or_else(|| panic!("{text}"));
        assert_eq!((&*found.host, found.port), (host, port), "{text}");
    }
}

#[test]
fn an_unusable_controller_is_named_and_none_is_dialled() {
    for text in [
        "",
        ":7443",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:b",
        "a b",
        "::1",
        "[::1",
        "[::1]7443",
        "[10.0.0.1]",
        "10.0.0",
        "10.0.0.256",
        "https://a",
        "a/b",
        "a..b",
        "user@a",
    ] {
        let config = BootConfig::parse(&format!("stillmetal.controller=\"{text}\""));
        assert_eq!(config.controller, None, "{text:?}");
        assert_eq!(config.warnings.len(), 1, "{text:?}");
    }
    for text in [
        "",
        "sha256:",
        "sha1:00",
        &format!("sha256:{}g", "0".repeat(63)),
    ] {
        let config = BootConfig::parse(&format!("stillmetal.ca={text}"));
        assert_eq!(config.controller_ca, None, "{text:?}");
        assert_eq!(config.warnings.len(), 1, "{text:?}");
    }
}

proptest! {
    #[test]
    fn a_controllers_address_is_read_as_it_is_written(
        text in "[a-zA-Z0-9.-]{1,20}(:[0-9]{1,5})?|\\[[0-9a-f:]{2,20}\\](:[0-9]{1,5})?|\\PC*"
    ) {
        if let Ok(address) = text.parse::<ControllerAddress>() {
            prop_assert!(address.port != 0);
            let sound = address.host.parse::<IpAddr>().is_ok() || is_domain(&address.host);
            prop_assert!(sound);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn every_host_and_port_can_be_given(octets: [u8; 4], groups: [u16; 8], port in 1..=u16::MAX) {
        let (four, six) = (Ipv4Addr::from(octets), std::net::Ipv6Addr::from(groups));
        for (text, host) in [
            (format!("{four}:{port}"), four.to_string()),
            (format!("[{six}]:{port}"), six.to_string()),
        ] {
            prop_assert_eq!(text.parse(), Ok(ControllerAddress { host, port }));
        }
    }

    #[test]
    fn never_panics(line in "\\PC*") {
        let _config = BootConfig::parse(&line);
    }

    #[test]
    fn near_misses_never_panic(line in "(stillmetal[.](ntp|modules|hostname|onfail_delay|controller|ca)|ip)=[\"0-9a-z:., -]{0,40}") {
        let config = BootConfig::parse(&line);
        prop_assert!(config.hostname.is_none_or(|name| is_hostname(&name)));
    }

    #[test]
    fn plain_words_come_back(pairs in proptest::collection::vec(("[a-z_.]{1,8}", "[a-z0-9:,=]{0,8}"), 0..8)) {
        let line = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("  ");
        let found: Vec<_> = words(&line).map(|w| (w.key, w.value.unwrap())).collect();
        prop_assert_eq!(found, pairs);
    }

    #[test]
    fn quoted_spaces_survive(value in "[a-z ]{0,20}") {
        let found: Vec<Word> = words(&format!("x key=\"{value}\" y")).collect();
        prop_assert_eq!(found.len(), 3);
        prop_assert_eq!(found[1].value.as_deref(), Some(value.as_str()));
    }
}
