//! Handshakes in memory between every kind of certificate.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;

mod controller;
mod requests;
mod texts;

fn server(authority: &Authority) -> Arc<ServerConfig> {
    let node = authority
        .issue_node(&["127.0.0.1", "node-1"], Validity::days(1))
        .unwrap();
    server_config(authority.cert_pem(), &node.cert_pem, &node.key_pem).unwrap()
}

fn client(trusts: &Authority, issued: &Issued) -> Arc<ClientConfig> {
    client_config(trusts.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap()
}

/// Both ends until neither has anything to say.
fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &'static str,
) -> Result<ServerConnection, rustls::Error> {
    let mut server = ServerConnection::new(server).unwrap();
    let mut client = ClientConnection::new(client, ServerName::try_from(name).unwrap()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!server.is_handshaking());
    Ok(server)
}

#[test]
fn a_clients_role_comes_from_its_certificate() {
    let authority = Authority::generate("test").unwrap();
    for role in [RoleName::Admin, RoleName::User] {
        let issued = authority
            .issue_client("alice", role, Validity::days(1))
            .unwrap();
        for name in ["127.0.0.1", "node-1"] {
            let done = handshake(server(&authority), client(&authority, &issued), name).unwrap();
            let peer = peer_of(&done.peer_certificates().unwrap()[0]).unwrap();
            assert_eq!(
                (peer.role, peer.subject),
                (role.to_string(), "alice".into())
            );
            assert_eq!(peer.node, None);
            assert_eq!(done.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }
}

#[test]
fn tls_1_2_works_and_nothing_is_resumed() {
    let authority = Authority::generate("test").unwrap();
    let issued = authority
        .issue_client("a", RoleName::User, Validity::days(1))
        .unwrap();
    let server = server(&authority);
    let mut old = (*client(&authority, &issued)).clone();
    old.resumption = rustls::client::Resumption::in_memory_sessions(8);
    for versions in [
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13][..],
    ] {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates({
                let mut roots = rustls::RootCertStore::empty();
                let ca = CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap();
                roots.add(ca).unwrap();
                roots
            })
            .with_client_cert_resolver(old.client_auth_cert_resolver.clone());
        config.resumption = rustls::client::Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        for _ in 0..3 {
            let done = handshake(server.clone(), config.clone(), "127.0.0.1").unwrap();
            assert_ne!(done.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
            assert!(done.peer_certificates().is_some());
        }
    }
}

#[test]
fn wrong_certificates_are_refused() {
    let authority = Authority::generate("test").unwrap();
    let other = Authority::generate("test").unwrap();
    let good = Validity::days(1);

    let foreign = other.issue_client("a", RoleName::Admin, good).unwrap();
    assert!(
        handshake(
            server(&authority),
            client(&authority, &foreign),
            "127.0.0.1"
        )
        .is_err()
    );

    let late = authority
        .issue_client("a", RoleName::Admin, Validity::expired())
        .unwrap();
    assert!(handshake(server(&authority), client(&authority, &late), "127.0.0.1").is_err());

    let node = authority.issue_node(&["127.0.0.1"], good).unwrap();
    assert!(handshake(server(&authority), client(&authority, &node), "127.0.0.1").is_err());
    let der = CertificateDer::from_pem_slice(node.cert_pem.as_bytes()).unwrap();
    assert!(matches!(
        peer_of(&der),
        Err(ClientRefused::NotForClients { .. })
    ));

    let odd = authority.issue_client_as("a", "root", good).unwrap();
    let refused = handshake(server(&authority), client(&authority, &odd), "127.0.0.1");
    assert_eq!(
        refused.err(),
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure
        ))
    );

    // A client must not pass itself off as a node, and a node not as another.
    let posing = authority
        .issue_client("127.0.0.1", RoleName::User, good)
        .unwrap();
    let posing = server_config(authority.cert_pem(), &posing.cert_pem, &posing.key_pem).unwrap();
    let honest = authority.issue_client("a", RoleName::User, good).unwrap();
    assert!(handshake(posing, client(&authority, &honest), "127.0.0.1").is_err());
    assert!(handshake(server(&authority), client(&authority, &honest), "node-2").is_err());

    // The other way round: a client does not talk to a node of another authority.
    assert!(handshake(server(&other), client(&authority, &honest), "127.0.0.1").is_err());
}

#[test]
fn without_a_certificate_there_is_no_handshake() {
    let authority = Authority::generate("test").unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap())
        .unwrap();
    let anonymous = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(handshake(server(&authority), Arc::new(anonymous), "127.0.0.1").is_err());
}

#[test]
fn an_authority_can_be_read_back() {
    let first = Authority::generate("test").unwrap();
    let again = Authority::from_pem(first.cert_pem(), &first.key_pem()).unwrap();
    let issued = again
        .issue_client("a", RoleName::Admin, Validity::days(1))
        .unwrap();
    handshake(server(&first), client(&first, &issued), "127.0.0.1").unwrap();
}

#[test]
fn malformed_texts_and_names_are_told_apart() {
    let authority = Authority::generate("test").unwrap();
    assert!(matches!(
        authority.issue_node(&["not a name"], Validity::days(1)),
        Err(Error::BadName { .. })
    ));
    let node = authority.issue_node(&["a"], Validity::days(1)).unwrap();
    assert!(matches!(
        server_config("", &node.cert_pem, &node.key_pem),
        Err(Error::Empty {
            what: "authority's certificate"
        })
    ));
    assert!(matches!(
        server_config(authority.cert_pem(), &node.cert_pem, "nonsense"),
        Err(Error::Pem {
            what: "node's key",
            ..
        })
    ));
    let stranger = authority.issue_node(&["b"], Validity::days(1)).unwrap();
    assert!(matches!(
        server_config(authority.cert_pem(), &node.cert_pem, &stranger.key_pem),
        Err(Error::Tls { .. })
    ));
}

#[test]
fn a_bundle_works_and_its_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("session");
    write_bundle(&root, &["192.0.2.7", "node-7"], Validity::days(1)).unwrap();
    write_bundle(&root, &["192.0.2.7", "node-7"], Validity::days(1)).unwrap();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    for key in ["ca.key", "node.key", "admin/key.pem", "user/key.pem"] {
        let mode = std::fs::metadata(root.join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let server = server_config(&read("ca.pem"), &read("node.pem"), &read("node.key")).unwrap();
    for role in ["admin", "user"] {
        for name in ["192.0.2.7", "node-7", "127.0.0.1", "localhost", "10.0.2.15"] {
            let client = client_config(
                &read(&format!("{role}/ca.pem")),
                &read(&format!("{role}/cert.pem")),
                &read(&format!("{role}/key.pem")),
            )
            .unwrap();
            let done = handshake(server.clone(), client, name).unwrap();
            assert_eq!(
                peer_of(&done.peer_certificates().unwrap()[0]).unwrap().role,
                role
            );
        }
    }
}

#[test]
fn a_signature_is_by_one_key_over_one_text() {
    let authority = Authority::generate("lab").unwrap();
    let [node, other] =
        ["node-1", "node-2"].map(|name| authority.issue_node(&[name], Validity::days(1)).unwrap());
    let signature = sign(&node.key_pem, b"quiet").unwrap();
    assert!(verify(&node.cert_pem, b"quiet", &signature).is_ok());
    assert!(verify(&node.cert_pem, b"noisy", &signature).is_err());
    assert!(verify(&other.cert_pem, b"quiet", &signature).is_err());
    let mut unknown = signature.clone();
    unknown.scheme = "ROT13".into();
    assert!(verify(&node.cert_pem, b"quiet", &unknown).is_err());
    let mut cut = signature;
    cut.bytes.pop();
    assert!(verify(&node.cert_pem, b"quiet", &cut).is_err());

    assert!(issued_to_node(&node.cert_pem, authority.cert_pem()).is_ok());
    let stranger = Authority::generate("lab").unwrap();
    assert!(issued_to_node(&node.cert_pem, stranger.cert_pem()).is_err());
    assert!(issued_to_node("nonsense", authority.cert_pem()).is_err());
    let person = authority
        .issue_client("mallory", RoleName::Admin, Validity::days(1))
        .unwrap();
    let refused = issued_to_node(&person.cert_pem, authority.cert_pem()).unwrap_err();
    assert!(matches!(refused, SignatureRefused::Role { subject } if subject == "mallory"));
}
