//! Bundles as they are packed from a controller, and what becomes of them on their way.

use std::collections::BTreeMap;
use std::io::Read as _;

use api::fleet::NodeId;
use api::job::{JobId, JobState, JobStatus};
use api::work::Document;
use client::Client;
use client::fake::FakeController;
use client::fake::papers::{self, papers};
use pki::{Authority, Issued, Validity};
use proptest::prelude::*;
use quiet::{Certificate, Evidence};
use serde_json::{Value, json};

use super::listing::{AUTHORITY, LISTING, Listing, Place, SCHEMA, Versions};
use super::pack::Packing;
use super::verify::{Contents, Failure, verify};
use super::{admit, digest, layout};

/// A bundle, who issued the certificates in it, and the node that signed.
struct Made {
    bytes: Vec<u8>,
    ca_pem: String,
    signer: Issued,
}

fn request(image: &str) -> api::job::JobRequest {
    serde_json::from_value(json!({ "image": image, "argv": ["spin"] })).unwrap()
}

/// Of a job on two nodes.
async fn make() -> Made {
    let fake = FakeController::start().await.unwrap();
    let authority = fake.authority();
    let signer = authority.issue_node(&["n1"], Validity::days(1)).unwrap();
    let id = JobId(1);
    fake.change(|state| {
        state.submit(None, &[request("x")]);
        for name in ["n1", "n2"] {
            let node = NodeId::try_from(name.to_owned()).unwrap();
            state.assign(id, &node, "1");
            let job = state.jobs[&id].status.clone();
            // the fence of the attempt in which all of them are
            let job = JobStatus {
                fence: Some(2),
                ..job
            };
            let part = papers::part(&node, "1");
            let papers = papers(&job, &part, &signer, |_| {}).unwrap();
            for (name, bytes) in &papers.documents {
                state.store(id, &node, name, bytes);
            }
            if name == "n2" {
                state.end(id, JobState::Done, &papers.ending);
            }
        }
    });
    let ca_pem = authority.cert_pem().to_owned();
    let client = Client::new(&fake.context()).unwrap();
    let packing = Packing::of(&client, &[id], &ca_pem).await.unwrap();
    let mut bytes = Vec::new();
    packing.write(&client, &mut bytes).await.unwrap();
    assert_eq!(bytes.len() as u64, packing.bytes().unwrap());
    Made {
        bytes,
        ca_pem,
        signer,
    }
}

fn made() -> Made {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(make())
}

fn broken(bytes: &[u8], given: Option<&str>) -> String {
    match verify(bytes, given) {
        Err(Failure::Changed(changed)) => changed.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Somebody who changes files and makes all digests fit again.
#[derive(Clone)]
struct Forger(BTreeMap<String, Vec<u8>>);

const CERTIFICATE: &str = "job-1/n1/certificate-1.json";
const RESULT: &str = "job-1/n1/result.json";
const PROVENANCE: &str = "job-1/n1/provenance.json";
const JOB: &str = "job-1/job.json";

impl Forger {
    fn of(bytes: &[u8]) -> Self {
        let mut archive = tar::Archive::new(bytes);
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        });
        let mut files: BTreeMap<_, _> = files.collect();
        files.remove(LISTING).unwrap();
        Self(files)
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let bytes = self.0.get_mut(name).unwrap();
        let mut value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = serde_json::to_vec_pretty(&value).unwrap();
    }

    /// Has `job.json` name the documents that there are.
    fn rename(&mut self) {
        let files = self.0.clone();
        self.change(JOB, |job| {
            for part in job["parts"].as_array_mut().unwrap() {
                let prefix = format!("job-1/{}/", part["node"].as_str().unwrap());
                let own = files
                    .iter()
                    .filter_map(|(name, bytes)| Some(file(name.strip_prefix(&prefix)?, bytes)));
                let own: Vec<_> = own.collect();
                part["documents"] = json!(own);
                part["ending"]["documents"] = json!(own);
            }
        });
    }

    fn pack(&self) -> Vec<u8> {
        let job: JobStatus = serde_json::from_slice(&self.0[JOB]).unwrap();
        let agents = self
            .0
            .iter()
            .filter(|(name, _)| name.ends_with("provenance.json"));
        let agents = agents.map(|(_, text)| {
            admit::agent_version(&serde_json::from_slice(text).unwrap_or_default())
        });
        let listing = Listing {
            schema: SCHEMA.into(),
            made_ms: job.ended_ms.unwrap(),
            versions: Versions {
                still: "9".into(),
                agents: agents.collect(),
            },
            jobs: vec![JobId(1)],
            files: self
                .0
                .iter()
                .map(|(name, bytes)| file(name, bytes))
                .collect(),
        };
        tape(&listing, self.0.values())
    }
}

fn file(name: &str, bytes: &[u8]) -> Document {
    Document {
        name: name.into(),
        bytes: bytes.len() as u64,
        sha256: digest(bytes),
    }
}

fn tape<'a>(listing: &Listing, files: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let text = listing.text().into_bytes();
    let mut all = Vec::new();
    let mut put = |file: &Document, bytes: &[u8]| {
        all.extend(layout::head(&file.name, file.bytes, listing.made_ms).unwrap());
        all.extend(bytes);
        all.resize(all.len() + layout::padding(file.bytes), 0);
    };
    put(&file(LISTING, &text), &text);
    for (file, bytes) in listing.files.iter().zip(files) {
        put(file, bytes);
    }
    all.resize(all.len() + layout::END, 0);
    all
}

#[test]
fn what_was_packed_holds_and_says_who_signed() {
    let made = made();
    for given in [None, Some(made.ca_pem.as_str())] {
        let contents: Contents = verify(&made.bytes[..], given).unwrap();
        assert_eq!(contents.files, 13, "{contents:?}");
        assert_eq!(contents.certificates, 2);
        assert_eq!(contents.signers, ["n1".to_owned()].into());
        assert_eq!(contents.jobs[0].state, JobState::Done);
    }
    // the forger's own hand is as good as long as nothing is changed
    let mut forger = Forger::of(&made.bytes);
    verify(&forger.pack()[..], None).unwrap();
    forger.rename();
    verify(&forger.pack()[..], Some(&made.ca_pem)).unwrap();
}

#[test]
fn any_byte_that_is_changed_is_noticed() {
    let Made { bytes, ca_pem, .. } = made();
    // those around the files: headers, padding, the end
    let mut archive = tar::Archive::new(&bytes[..]);
    let files: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let at = usize::try_from(entry.raw_file_position()).unwrap();
            at..at + usize::try_from(entry.size()).unwrap()
        })
        .collect();
    let around = (0..bytes.len()).filter(|at| !files.iter().any(|file| file.contains(at)));
    for at in around.step_by(53) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let said = broken(&changed, Some(&ca_pem));
        assert!(!said.is_empty(), "byte {at}");
    }
    let anywhere = (0..bytes.len(), 1..=u8::MAX);
    proptest!(ProptestConfig::with_cases(150), |((at, flip) in anywhere)| {
        let mut changed = bytes.clone();
        changed[at] ^= flip;
        prop_assert!(matches!(verify(&changed[..], None), Err(Failure::Changed(_))), "byte {at}");
    });
}

#[test]
fn what_is_cut_or_continued_or_no_bundle_is_said_clearly() {
    let Made { bytes, .. } = made();
    for length in (0..bytes.len()).step_by(311) {
        let said = broken(&bytes[..length], None);
        assert!(
            said.contains(&format!("after {length} bytes in all: it was cut")),
            "{said}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(broken(&longer, None).contains("there is something behind it, from byte"));
    let said = broken(&[b'x'; 9000], None);
    assert!(said.contains("does not begin as a bundle"), "{said}");
    let other = layout::head("ca.pem", 0, 0).unwrap();
    assert!(broken(&other, None).contains("does not begin as a bundle"));
    // sizes that nobody has memory for
    let huge = layout::head(LISTING, u64::MAX >> 2, 0).unwrap();
    assert!(broken(&huge, None).contains("more than the 67108864 of any listing"));
    let mut forger = Forger::of(&bytes);
    forger
        .0
        .retain(|name, _| [AUTHORITY, JOB].contains(&name.as_str()));
    let mut listing = Listing {
        schema: SCHEMA.into(),
        made_ms: 1,
        versions: Versions {
            still: "9".into(),
            agents: Default::default(),
        },
        jobs: vec![JobId(1)],
        files: forger
            .0
            .iter()
            .map(|(name, bytes)| file(name, bytes))
            .collect(),
    };
    listing.files[1].bytes = u64::MAX >> 2;
    let said = broken(&tape(&listing, forger.0.values()), None);
    assert!(
        said.starts_with(JOB) && said.contains("more than"),
        "{said}"
    );
}

#[test]
fn no_name_leads_out_of_the_bundle() {
    for name in [
        "../job.json",
        "/etc/passwd",
        "job-1/n1/../../x",
        "job-1/n1/..",
        "",
    ] {
        assert_eq!(Place::of(name), None, "{name}");
    }
}

#[test]
fn a_forger_is_caught_by_what_is_signed() {
    let made = made();
    let forger = Forger::of(&made.bytes);
    type Change = Box<dyn Fn(&mut Forger)>;
    let json = |name: &'static str, pointer: &'static str, to: Value| -> Change {
        Box::new(move |forger| {
            forger.change(name, |value| match value.pointer_mut(pointer) {
                Some(at) => *at = to.clone(),
                None => panic!("{pointer} of {name}"),
            });
        })
    };
    let remove =
        |name: &'static str| -> Change { Box::new(move |forger| drop(forger.0.remove(name))) };
    let cases: Vec<(Change, &str)> = vec![
        (
            json(CERTIFICATE, "/verdict", json!("quiet")),
            "job-1/n1/certificate-1.json: /verdict was changed",
        ),
        (
            json(RESULT, "/attempts/0/verdict", json!("quiet")),
            "result.json: run 1: it has another verdict, which certificate-1.json does not say",
        ),
        (
            json(RESULT, "/attempts/0/duration_ns", json!(1)),
            "it took another time",
        ),
        (
            json(RESULT, "/attempts/0/exit_code", json!(3)),
            "another exit code",
        ),
        (
            json(RESULT, "/attempts/0/container", json!("c")),
            "another container",
        ),
        (
            json(RESULT, "/left_out", json!([])),
            "its figures are not those of its runs",
        ),
        (
            json(RESULT, "/image", json!("sha256:1")),
            "provenance.json: it tells of another image",
        ),
        (json(RESULT, "/cpus", json!("2")), "other CPUs"),
        (
            json(JOB, "/parts/0/ending/verdict", json!("quiet")),
            "its verdict is not the one that its runs give",
        ),
        (
            json(JOB, "/parts/0/ending/outcome", json!("noisy")),
            "one of its parts is not",
        ),
        (json(JOB, "/parts/0/cpus", json!("2")), "other CPUs"),
        (json(JOB, "/state", json!("queued")), "job 1 is queued"),
        (json(JOB, "/id", json!(2)), "job.json: it is of job 2"),
        (
            json(JOB, "/fence", json!(9)),
            "provenance.json: it is of another job, or of another attempt",
        ),
        (
            json(JOB, "/request/argv", json!(["other"])),
            "/evidence/argv is not that of job 1",
        ),
        (
            json(JOB, "/request/measure/class", json!("io")),
            "/evidence/class is not that of job 1",
        ),
        (json(PROVENANCE, "/job/job", json!(8)), "of another job"),
        (
            json(PROVENANCE, "/kernel", Value::Null),
            "provenance.json: it lacks kernel",
        ),
        (remove(PROVENANCE), "no provenance.json"),
        (
            Box::new(|it| drop(it.0.insert("job-1/n1/stdout".into(), b"43 ops\n".to_vec()))),
            "job-1/n1/stdout: it is not what certificate-1.json says",
        ),
        (
            Box::new(|it| {
                drop(it.0.insert(
                    "job-1/n1/certificate-2.json".into(),
                    it.0[CERTIFICATE].clone(),
                ))
            }),
            "certificate-2.json: the series has no such run",
        ),
        // without the certificate nobody vouches for a verdict
        (
            Box::new(|it| {
                it.0.remove(CERTIFICATE);
                it.change(RESULT, |value| {
                    value["attempts"][0]["verdict"] = json!("quiet")
                });
            }),
            "run 1: it has a verdict, and there is no certificate of it",
        ),
        (
            Box::new(|it| drop(it.0.insert(RESULT.into(), b"[]".to_vec()))),
            "there is no series that it is of",
        ),
        (
            Box::new(|it| drop(it.0.insert("job-1/n3/stdout".into(), Vec::new()))),
            "it names the part on n3 0 times",
        ),
    ];
    for (change, expected) in cases {
        let mut forger = forger.clone();
        change(&mut forger);
        forger.rename();
        let said = broken(&forger.pack(), Some(&made.ca_pem));
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // a document that job.json does not name as it is
    let mut other = forger.clone();
    other.0.insert("job-1/n1/stderr".into(), Vec::new());
    let said = broken(&other.pack(), None);
    assert!(
        said.contains("job.json names other documents than there are: stderr is another one"),
        "{said}"
    );
}

/// The certificate as it was, signed again after a change.
fn signed_again(text: &[u8], signer: &Issued, change: impl FnOnce(&mut Evidence)) -> Vec<u8> {
    let certificate: Certificate = serde_json::from_slice(text).unwrap();
    let mut evidence = certificate.evidence;
    change(&mut evidence);
    papers::seal(&Certificate::new(evidence), signer).unwrap()
}

#[test]
fn a_true_certificate_of_another_run_does_not_do() {
    let made = made();
    let forger = Forger::of(&made.bytes);
    let said = |change: fn(&mut Evidence)| {
        let mut forger = forger.clone();
        let own = &forger.0[CERTIFICATE];
        let other = signed_again(own, &made.signer, change);
        forger.0.insert(CERTIFICATE.into(), other);
        forger.rename();
        broken(&forger.pack(), Some(&made.ca_pem))
    };
    for (said, expected) in [
        (
            said(|it| it.image = "sha256:other".into()),
            "/evidence/image is not that of job 1",
        ),
        (
            said(|it| it.job_cpus = [2].into_iter().collect()),
            "/evidence/job_cpus is not",
        ),
        (
            said(|it| it.container_id = "c".into()),
            "run 1: it is of another container",
        ),
        (
            said(|it| it.job.ended_ns = Some(9_000_000)),
            "run 1: it took another time",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
    // that of the other node, of the same job
    let mut swapped = forger.clone();
    let other = swapped.0["job-1/n2/certificate-1.json"].clone();
    swapped.0.insert(CERTIFICATE.into(), other);
    swapped.rename();
    assert!(broken(&swapped.pack(), None).contains("another container"));
}

#[test]
fn only_the_given_authority_says_whose_it_is() {
    let made = made();
    let stranger = Authority::generate("stranger").unwrap();
    let signer = stranger.issue_node(&["n1"], Validity::days(1)).unwrap();
    let said = broken(&made.bytes, Some(stranger.cert_pem()));
    assert_eq!(
        said,
        "ca.pem: it is another authority than the one given by --ca"
    );
    // with all certificates signed by a stranger's node
    let mut forger = Forger::of(&made.bytes);
    for name in [CERTIFICATE, "job-1/n2/certificate-1.json"] {
        let text = signed_again(&forger.0[name], &signer, |_| {});
        forger.0.insert(name.into(), text);
    }
    forger.rename();
    let said = broken(&forger.pack(), None);
    assert!(
        said.contains("certificate-1.json: /signer is not trusted"),
        "{said}"
    );
    // and the stranger's authority in it: it is consistent, and not ours
    forger
        .0
        .insert(AUTHORITY.into(), stranger.cert_pem().into());
    verify(&forger.pack()[..], None).unwrap();
    broken(&forger.pack(), Some(&made.ca_pem));
}
