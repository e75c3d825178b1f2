//! Signing requests: what is taken from them, and what is not.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::*;

const NODE: NodeIdentity<'_> = NodeIdentity { id: "node-1" };

fn issue(csr_pem: &str) -> Result<SignedCert, Error> {
    Authority::generate("lab")
        .unwrap()
        .issue_joined_node(csr_pem, &NODE, Validity::days(1))
}

fn pem(label: &str, der: &[u8]) -> String {
    use std::fmt::Write;
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for three in der.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = if place <= three.len() {
                char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize])
            } else {
                '='
            };
            text.push(letter);
        }
    }
    writeln!(text, "\n-----END {label}-----").unwrap();
    text
}

#[test]
fn names_and_wishes_in_a_request_are_not_used() {
    let key = KeyPair::generate().unwrap();
    let uri = |text: &str| SanType::URI(Ia5String::try_from(text).unwrap());
    let mut params = CertificateParams::new(vec!["controller".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "somebody else");
    params.subject_alt_names.extend([
        uri("stillmetal:role:admin"),
        uri("stillmetal:node:node-2"),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ]);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::Any,
    ];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr_pem = params.serialize_request(&key).unwrap().pem().unwrap();

    let authority = Authority::generate("lab").unwrap();
    let node = authority
        .issue_joined_node(&csr_pem, &NODE, Validity::days(1))
        .unwrap();
    let der = CertificateDer::from_pem_slice(node.cert_pem.as_bytes()).unwrap();
    let peer = peer_of(&der).unwrap();
    assert_eq!((&*peer.role, &*peer.subject), ("node", "node-1"));
    assert_eq!(peer.node.as_deref(), Some("node-1"));
    let parsed = crate::certificate::parse(&der).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 2);

    let user = authority
        .issue_client_for(&csr_pem, "bob", RoleName::User, Validity::days(1))
        .unwrap();
    let der = CertificateDer::from_pem_slice(user.cert_pem.as_bytes()).unwrap();
    let peer = peer_of(&der).unwrap();
    assert_eq!((&*peer.role, &*peer.subject), ("user", "bob"));
    // It is for that key all the same.
    api_client_config(
        &Trust::Ca(authority.cert_pem().to_owned()),
        Some((&user.cert_pem, &key.serialize_pem())),
    )
    .unwrap();
}

#[test]
fn a_request_that_its_key_has_not_signed_is_refused() {
    let (_, csr_pem) = csr::generate().unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).unwrap();
    assert_eq!(
        csr::fingerprint(&pem("CERTIFICATE REQUEST", &der)),
        csr::fingerprint(&csr_pem)
    );
    // Any one bit of what is signed. Of what is around it the parser does not mind some; the key it
    // reads is then still the one that has signed.
    let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
    let signed = parsed.certification_request_info.raw;
    let start = signed.as_ptr() as usize - der.as_ptr() as usize;
    for place in 0..der.len() {
        let mut bent = der.to_vec();
        bent[place] ^= 1;
        let bent = pem("CERTIFICATE REQUEST", &bent);
        match issue(&bent) {
            Ok(_) => {
                assert!(!(start..start + signed.len()).contains(&place));
                assert_eq!(csr::fingerprint(&bent), csr::fingerprint(&csr_pem));
            }
            Err(error) => assert!(matches!(error, Error::Csr(_)), "byte {place}: {error}"),
        }
    }
    let last = der.len() - 1;
    let mut bent = der.to_vec();
    bent[last] ^= 1;
    assert_eq!(
        csr::fingerprint(&pem("CERTIFICATE REQUEST", &bent)),
        Err(CsrRefused::Signature)
    );
    let mut longer = der.to_vec();
    longer.push(0);
    assert_eq!(
        csr::fingerprint(&pem("CERTIFICATE REQUEST", &longer)),
        Err(CsrRefused::Malformed)
    );
}

#[test]
fn other_texts_are_no_requests() {
    let (key_pem, _) = csr::generate().unwrap();
    let authority = Authority::generate("lab").unwrap();
    for text in ["", "nonsense", &key_pem, authority.cert_pem()] {
        assert_eq!(csr::fingerprint(text), Err(CsrRefused::Malformed));
    }
    let long = "x".repeat(csr::MAX_PEM + 1);
    assert_eq!(csr::fingerprint(&long), Err(CsrRefused::TooLong));
}

#[test]
fn a_fingerprint_is_of_the_key() {
    let key = KeyPair::generate().unwrap();
    let request = |name: &str| {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    };
    let first = csr::fingerprint(&request("a")).unwrap();
    assert_eq!(csr::fingerprint(&request("b")).unwrap(), first);
    let (_, other) = csr::generate().unwrap();
    assert_ne!(csr::fingerprint(&other).unwrap(), first);
    let groups: Vec<&str> = first.split('-').collect();
    assert_eq!(groups.len(), 8);
    assert!(groups.iter().all(|group| {
        group.len() == 4 && group.bytes().all(|b| b"0123456789abcdef".contains(&b))
    }));
}

#[test]
fn ids_and_users_are_checked() {
    let authority = Authority::generate("lab").unwrap();
    let (_, csr_pem) = csr::generate().unwrap();
    for id in ["", "Node", "a b", "a/b", &"a".repeat(65)] {
        let node = NodeIdentity { id };
        let refused = authority.issue_joined_node(&csr_pem, &node, Validity::days(1));
        assert!(matches!(refused, Err(Error::BadNodeId { .. })), "{id:?}");
    }
    for user in ["", " a", "a\n", &"a".repeat(65)] {
        let refused = authority.issue_client_for(&csr_pem, user, RoleName::User, Validity::days(1));
        assert!(matches!(refused, Err(Error::BadUser { .. })), "{user:?}");
    }
}

#[test]
fn numbers_are_never_used_twice() {
    let authority = Authority::generate("lab").unwrap();
    let (_, csr_pem) = csr::generate().unwrap();
    let serials: std::collections::HashSet<String> = (0..200)
        .map(|_| {
            let cert = authority
                .issue_joined_node(&csr_pem, &NODE, Validity::days(1))
                .unwrap();
            let facts = certificate_facts(&cert.cert_pem).unwrap();
            assert_eq!(facts.serial_hex, cert.serial_hex);
            assert_eq!(facts.not_after, cert.not_after);
            assert_eq!(facts.subject, "node-1");
            assert!(facts.not_before < facts.not_after);
            assert_eq!(cert.serial_hex.len(), 32);
            cert.serial_hex
        })
        .collect();
    assert_eq!(serials.len(), 200);
}
