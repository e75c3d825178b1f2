//! Handshakes at the controller's port.

use std::collections::HashSet;
use std::io;

use rustls::{AlertDescription, CertificateError};

use super::*;

/// Numbers as the store keeps them.
#[derive(Default)]
struct Revoked(HashSet<String>);

impl Revocation for Revoked {
    fn is_revoked(&self, serial: &[u8]) -> bool {
        self.0.contains(&serial_hex(serial))
    }
}

struct Lab {
    authority: Authority,
    controller: Issued,
}

/// A node that has joined.
struct Joined {
    cert: SignedCert,
    key_pem: String,
}

impl Joined {
    fn identity(&self) -> Option<(&str, &str)> {
        Some((&self.cert.cert_pem, &self.key_pem))
    }
}

impl Lab {
    fn new() -> Self {
        Self::of(Authority::generate("lab").unwrap())
    }

    fn of(authority: Authority) -> Self {
        let controller = authority
            .issue_controller(&["127.0.0.1", "controller"], Validity::days(1))
            .unwrap();
        Self {
            authority,
            controller,
        }
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.server_revoking(Revoked::default())
    }

    fn server_revoking(&self, revoked: Revoked) -> Arc<ServerConfig> {
        controller_server_config(
            self.authority.cert_pem(),
            &self.controller.cert_pem,
            &self.controller.key_pem,
            Arc::new(revoked),
        )
        .unwrap()
    }

    fn pin(&self) -> Trust {
        Trust::Pin(Pin::of_pem(self.authority.cert_pem()).unwrap())
    }

    fn ca(&self) -> Trust {
        Trust::Ca(self.authority.cert_pem().to_owned())
    }

    fn join(&self, id: &str, validity: Validity) -> Joined {
        let (key_pem, csr_pem) = csr::generate().unwrap();
        let cert = self
            .authority
            .issue_joined_node(&csr_pem, &NodeIdentity { id }, validity)
            .unwrap();
        Joined { cert, key_pem }
    }
}

fn tunnel(trust: &Trust, joined: &Joined) -> Arc<ClientConfig> {
    node_client_config(trust, joined.identity(), Protocol::Tunnel).unwrap()
}

fn anonymous(trust: &Trust) -> Arc<ClientConfig> {
    api_client_config(trust, None).unwrap()
}

/// What the client says to this server.
fn refusal(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: &'static str) -> io::Error {
    io::Error::other(handshake(server, client, name).expect_err("a refusal"))
}

#[test]
fn a_node_joins_by_the_pin_and_returns_by_the_ca() {
    let lab = Lab::new();
    let (key_pem, csr_pem) = csr::generate().unwrap();
    let done = handshake(lab.server(), anonymous(&lab.pin()), "127.0.0.1").unwrap();
    assert!(done.peer_certificates().is_none());
    assert_eq!(Protocol::of(done.alpn_protocol()), Some(Protocol::Http));

    let node = NodeIdentity { id: "node-7" };
    let cert = lab
        .authority
        .issue_joined_node(&csr_pem, &node, Validity::days(1))
        .unwrap();
    let joined = Joined { cert, key_pem };
    for trust in [lab.pin(), lab.ca()] {
        for name in ["127.0.0.1", "controller"] {
            let done = handshake(lab.server(), tunnel(&trust, &joined), name).unwrap();
            let peer = peer_of(&done.peer_certificates().unwrap()[0]).unwrap();
            assert_eq!(peer.role, "node");
            assert_eq!(peer.subject, "node-7");
            assert_eq!(peer.node.as_deref(), Some("node-7"));
            assert_eq!(peer.serial_hex, joined.cert.serial_hex);
            assert_eq!(peer.not_after, joined.cert.not_after);
            assert_eq!(Protocol::of(done.alpn_protocol()), Some(Protocol::Tunnel));
        }
    }
}

#[test]
fn clients_of_the_api_use_the_same_port() {
    let lab = Lab::new();
    let (key_pem, csr_pem) = csr::generate().unwrap();
    let cert = lab
        .authority
        .issue_client_for(&csr_pem, "alice", RoleName::User, Validity::days(1))
        .unwrap();
    let client = api_client_config(&lab.ca(), Some((&cert.cert_pem, &key_pem))).unwrap();
    let done = handshake(lab.server(), client, "controller").unwrap();
    let peer = peer_of(&done.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!((&*peer.role, &*peer.subject), ("user", "alice"));
    assert_eq!((peer.node, peer.serial_hex), (None, cert.serial_hex));

    // Made by the authority with its key, and by a TLS client that knows nothing of ours.
    let admin = lab
        .authority
        .issue_client("root", RoleName::Admin, Validity::days(1))
        .unwrap();
    let mut stock = (*client_config(lab.authority.cert_pem(), &admin.cert_pem, &admin.key_pem)
        .unwrap())
    .clone();
    stock.alpn_protocols.clear();
    let done = handshake(lab.server(), Arc::new(stock), "127.0.0.1").unwrap();
    assert_eq!(Protocol::of(done.alpn_protocol()), Some(Protocol::Http));
    assert_eq!(done.handshake_kind(), Some(rustls::HandshakeKind::Full));
}

#[test]
fn another_protocol_and_another_version_are_refused() {
    let lab = Lab::new();
    let mut odd = (*anonymous(&lab.ca())).clone();
    odd.alpn_protocols = vec![b"h2".to_vec()];
    assert_eq!(
        handshake(lab.server(), Arc::new(odd), "127.0.0.1").err(),
        Some(rustls::Error::NoApplicationProtocol)
    );
    assert_eq!(Protocol::of(Some(b"h2")), None);

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(lab.authority.cert_pem().as_bytes()).unwrap())
        .unwrap();
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let refused = handshake(lab.server(), Arc::new(old), "127.0.0.1");
    assert!(matches!(
        refused.err(),
        Some(rustls::Error::PeerIncompatible(_))
    ));

    // And a server that can do no better gets nothing from a node.
    let old = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            crate::tls::chain(&lab.controller.cert_pem, "test").unwrap(),
            crate::tls::key(&lab.controller.key_pem, "test").unwrap(),
        )
        .unwrap();
    assert!(handshake(Arc::new(old), anonymous(&lab.pin()), "127.0.0.1").is_err());
}

#[test]
fn callers_with_bad_certificates_get_no_handshake() {
    let (lab, other) = (Lab::new(), Lab::new());
    let good = Validity::days(1);
    let refused = |joined: &Joined| {
        let client = tunnel(&lab.pin(), joined);
        handshake(lab.server(), client, "127.0.0.1").err().unwrap()
    };
    assert!(matches!(
        refused(&lab.join("a", Validity::expired())),
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
    ));
    // Their authorities have one name, so it is the signature that tells them apart.
    assert!(matches!(
        refused(&other.join("a", good)),
        rustls::Error::InvalidCertificate(_)
    ));
    let denied = rustls::Error::from(CertificateError::ApplicationVerificationFailure);
    for role in ["root", "controller", "node", ""] {
        let issued = lab.authority.issue_client_as("a", role, good).unwrap();
        let client =
            api_client_config(&lab.ca(), Some((&issued.cert_pem, &issued.key_pem))).unwrap();
        let refused = handshake(lab.server(), client, "127.0.0.1");
        assert_eq!(refused.err(), Some(denied.clone()), "{role:?}");
    }
    // Those for serving are not for calling, whoever has them.
    for serving in [
        lab.authority.issue_node(&["a"], good).unwrap(),
        lab.authority.issue_controller(&["a"], good).unwrap(),
    ] {
        let client =
            api_client_config(&lab.ca(), Some((&serving.cert_pem, &serving.key_pem))).unwrap();
        assert!(matches!(
            handshake(lab.server(), client, "127.0.0.1").err(),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::InvalidPurposeContext { .. }
            ))
        ));
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_its_holder_told() {
    let lab = Lab::new();
    let (out, kept) = (
        lab.join("out", Validity::days(1)),
        lab.join("kept", Validity::days(1)),
    );
    let revoked = || Revoked(HashSet::from([out.cert.serial_hex.clone()]));
    let server = lab.server_revoking(revoked());
    handshake(server.clone(), tunnel(&lab.pin(), &kept), "127.0.0.1").unwrap();
    assert_eq!(
        handshake(server.clone(), tunnel(&lab.pin(), &out), "127.0.0.1").err(),
        Some(CertificateError::Revoked.into())
    );

    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(tunnel(&lab.pin(), &out), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let told = loop {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        // The server's own word was checked above.
        drop(server.process_new_packets());
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        if let Err(error) = client.process_new_packets() {
            break error;
        }
    };
    assert_eq!(
        told,
        rustls::Error::AlertReceived(AlertDescription::CertificateRevoked)
    );
}

#[test]
fn only_the_pinned_authoritys_controller_is_the_controller() {
    let (lab, other) = (Lab::new(), Lab::new());
    let refused = refusal(other.server(), anonymous(&lab.pin()), "127.0.0.1");
    let Trust::Pin(wanted) = lab.pin() else {
        unreachable!()
    };
    let Some(ServerRefused::NotPinned { wanted: said, sent }) = ServerRefused::find(&refused)
    else {
        panic!("{refused:?}");
    };
    assert_eq!((*said, sent.len()), (wanted, 1));

    // An authority's certificate is public: sending it along proves nothing.
    let ca = CertificateDer::from_pem_slice(lab.authority.cert_pem().as_bytes()).unwrap();
    let mut chain = crate::tls::chain(&other.controller.cert_pem, "test").unwrap();
    chain.push(ca);
    let posing = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain,
            crate::tls::key(&other.controller.key_pem, "test").unwrap(),
        )
        .unwrap();
    for trust in [lab.pin(), lab.ca()] {
        let refused = handshake(Arc::new(posing.clone()), anonymous(&trust), "127.0.0.1");
        assert!(
            matches!(
                refused.err(),
                Some(rustls::Error::InvalidCertificate(
                    CertificateError::BadSignature | CertificateError::UnknownIssuer
                ))
            ),
            "{trust:?}"
        );
    }
    assert!(handshake(other.server(), anonymous(&lab.ca()), "127.0.0.1").is_err());

    // The hash of the controller's own certificate is not its authority's.
    let own = Trust::Pin(Pin::of_pem(&lab.controller.cert_pem).unwrap());
    let refused = refusal(lab.server(), anonymous(&own), "127.0.0.1");
    assert!(matches!(
        ServerRefused::find(&refused),
        Some(ServerRefused::NotPinned { .. })
    ));
}

#[test]
fn a_good_certificate_for_something_else_is_not_the_controllers() {
    let lab = Lab::new();
    for trust in [lab.pin(), lab.ca()] {
        let refused = handshake(lab.server(), anonymous(&trust), "elsewhere");
        assert!(matches!(
            refused.err(),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. }
            ))
        ));

        // Every node's certificate for serving has this address among its names.
        let node = lab
            .authority
            .issue_node(&["127.0.0.1"], Validity::days(1))
            .unwrap();
        let chain = node.cert_pem + lab.authority.cert_pem();
        let node =
            server_config(lab.authority.cert_pem(), &chain, &node.key_pem).expect("a node's port");
        let refused = refusal(node, anonymous(&trust), "127.0.0.1");
        assert_eq!(
            ServerRefused::find(&refused),
            Some(&ServerRefused::NotController {
                subject: "127.0.0.1".into()
            })
        );

        let late = lab
            .authority
            .issue_controller(&["127.0.0.1"], Validity::expired())
            .unwrap();
        let late = controller_server_config(
            lab.authority.cert_pem(),
            &late.cert_pem,
            &late.key_pem,
            Arc::<Revoked>::default(),
        )
        .unwrap();
        assert!(matches!(
            handshake(late, anonymous(&trust), "127.0.0.1").err(),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::ExpiredContext { .. }
            ))
        ));
    }
}

#[test]
fn an_authority_that_has_expired_or_is_none_is_not_trusted() {
    let lab = Lab::of(Authority::generate_for("old", Validity::expired()).unwrap());
    for trust in [lab.pin(), lab.ca()] {
        let refused = refusal(lab.server(), anonymous(&trust), "127.0.0.1");
        let expired = ServerRefused::AuthorityNotValidNow {
            subject: "old".into(),
        };
        assert_eq!(ServerRefused::find(&refused), Some(&expired));
    }

    // Nobody can make a certificate an authority's by pinning it.
    let lab = Lab::new();
    let leaf = lab
        .authority
        .issue_node(&["leaf"], Validity::days(1))
        .unwrap();
    let chain = lab.controller.cert_pem.clone() + &leaf.cert_pem;
    let server = controller_server_config(
        lab.authority.cert_pem(),
        &chain,
        &lab.controller.key_pem,
        Arc::<Revoked>::default(),
    )
    .unwrap();
    let trust = Trust::Pin(Pin::of_pem(&leaf.cert_pem).unwrap());
    let refused = refusal(server, anonymous(&trust), "127.0.0.1");
    assert_eq!(
        ServerRefused::find(&refused),
        Some(&ServerRefused::NotAnAuthority {
            subject: "leaf".into()
        })
    );
}

#[test]
fn a_joined_node_is_nobody_at_another_nodes_port() {
    let lab = Lab::new();
    let joined = lab.join("node-1", Validity::days(1));
    let client = client_config(
        lab.authority.cert_pem(),
        &joined.cert.cert_pem,
        &joined.key_pem,
    )
    .unwrap();
    assert_eq!(
        handshake(server(&lab.authority), client, "127.0.0.1").err(),
        Some(CertificateError::ApplicationVerificationFailure.into())
    );
}
