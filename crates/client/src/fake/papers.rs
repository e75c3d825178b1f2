//! What a node writes for an image job: sealed certificates, the series, where it was measured, and what
//! the program wrote. All of it fits together, as it does when it comes from a real node.

use std::collections::BTreeMap;

use api::fleet::NodeId;
use api::job::{JobPart, JobStatus};
use api::provenance;
use api::run::{Attempt, RunState, RunStatus};
use api::work::{Ending, PartOutcome};
use pki::Issued;
use quiet::seal::{Chain, SEAL};
use quiet::{Certificate, Conditions, Evidence, Hardware, JobOutcome, Platform, TickMode, Verdict};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::state::ending;

/// Digest of the image that ran.
pub const IMAGE_DIGEST: &str =
    "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// What its one run wrote.
pub const STDOUT: &[u8] = b"42 ops\n";
/// The same to standard error.
pub const STDERR: &[u8] = b"a warning\n";

/// A part's documents by name, each of one run, and its ending without them.
#[derive(Debug, Clone)]
pub struct Papers {
    pub documents: Vec<(String, Vec<u8>)>,
    pub ending: Ending,
}

/// Those of a job's part; `change` may make the evidence another before it is judged and sealed.
///
/// # Errors
/// When the certificate cannot be signed.
pub fn papers(
    job: &JobStatus,
    part: &JobPart,
    signer: &Issued,
    change: impl FnOnce(&mut Evidence),
) -> Result<Papers, pki::Error> {
    let mut evidence = evidence(job, part);
    change(&mut evidence);
    let certificate = Certificate::new(evidence);
    let run = attempt(&certificate);
    let series = RunStatus {
        id: "series".into(),
        state: match certificate.verdict {
            Verdict::Quiet => RunState::Done,
            Verdict::Noisy => RunState::Noisy,
            Verdict::Unproven => RunState::Unproven,
        },
        error: None,
        request: serde_json::from_value(json!({ "image": "x", "cpus": part.cpus }))
            .unwrap_or_else(|_| unreachable!("these are its required fields")),
        image: IMAGE_DIGEST.into(),
        cpus: part.cpus.parse().ok(),
        left_out: vec![run.number],
        attempts: vec![run],
        duration_ns: None,
        metrics: BTreeMap::new(),
    };
    let documents = vec![
        ("certificate-1.json".into(), seal(&certificate, signer)?),
        ("result.json".into(), text(&json!(series))),
        (
            provenance::DOCUMENT.into(),
            text(&provenance(job, part, &certificate)),
        ),
        ("stdout".into(), STDOUT.to_vec()),
        ("stderr".into(), STDERR.to_vec()),
    ];
    let ending = Ending {
        verdict: Some(certificate.verdict),
        exit_code: Some(0),
        figures: [("median".to_owned(), "0.012345678 s".to_owned())].into(),
        ..ending(PartOutcome::Done)
    };
    Ok(Papers { documents, ending })
}

/// Of a run in which nothing was counted: unproven.
fn evidence(job: &JobStatus, part: &JobPart) -> Evidence {
    let mut outcome = JobOutcome {
        exit_code: Some(0),
        ended_ns: Some(20_000_000),
        ..JobOutcome::default()
    };
    outcome.gate.exec_ns = Some(7_654_322);
    outcome.output.stdout = digest(STDOUT);
    outcome.output.stderr = digest(STDERR);
    Evidence {
        run_id: "run".into(),
        container_id: format!("container-{}-{}", job.id, part.node),
        image: IMAGE_DIGEST.into(),
        argv: job.request.argv.clone(),
        class: job.request.measure.class,
        tick_mode: TickMode::NohzFull,
        platform: Platform {
            kernel: "6.12.0".into(),
            cmdline: "nohz_full=1".into(),
            cpu_model: "QEMU TCG CPU".into(),
            hypervisor: Some(true),
            agent_version: "0.1.0".into(),
        },
        job_cpus: part.cpus.parse().unwrap_or_default(),
        housekeeping_cpus: [0].into_iter().collect(),
        before: Conditions::default(),
        after: Conditions::default(),
        windows: Vec::new(),
        interruptions: None,
        hardware: Hardware::unobservable("a test"),
        actions_in_window: Vec::new(),
        troubles: Vec::new(),
        job: outcome,
    }
}

fn digest(bytes: &[u8]) -> quiet::Digest {
    quiet::Digest::Measured {
        sha256: hex(&Sha256::digest(bytes)),
        bytes: bytes.len() as u64,
    }
}

/// As a node tells of it in its series.
fn attempt(certificate: &Certificate) -> Attempt {
    let job = &certificate.evidence.job;
    Attempt {
        number: 1,
        repetition: Some(1),
        container: certificate.evidence.container_id.clone(),
        verdict: Some(certificate.verdict),
        reasons: Vec::new(),
        outcome: certificate.outcome,
        failure: job.failure(),
        exit_code: job.exit_code,
        signal: job.signal,
        duration_ns: job.duration_ns(),
        metrics: BTreeMap::new(),
        artifacts: BTreeMap::new(),
        tools: api::tool::ToolResults::new(),
        stdout: String::new(),
        stderr: String::new(),
        truncated: true,
    }
}

fn provenance(job: &JobStatus, part: &JobPart, certificate: &Certificate) -> Value {
    let platform = &certificate.evidence.platform;
    let mut all = json!({});
    for name in provenance::REQUIRED {
        all[name] = format!("{}a test", provenance::NOT_OBSERVABLE).into();
    }
    all["schema"] = provenance::SCHEMA.into();
    all["job"] = json!({ "job": job.id, "attempt": job.attempts, "fence": job.fence });
    all["cpus"] = json!(part.cpus);
    all["hostname"] = part.node_name.as_str().into();
    all["kernel"] = platform.kernel.as_str().into();
    all["agent_version"] = platform.agent_version.as_str().into();
    all[provenance::IMAGE] = json!({ "name": job.request.image, "digest": IMAGE_DIGEST });
    all
}

/// The certificate as the node keeps it.
///
/// # Errors
/// When the key does not sign.
pub fn seal(certificate: &Certificate, signer: &Issued) -> Result<Vec<u8>, pki::Error> {
    let mut document = json!(certificate);
    document["signer"] = signer.cert_pem.as_str().into();
    let chain = Chain::of(&document);
    let signature = pki::sign(&signer.key_pem, chain.root.as_bytes())?;
    let mut seal = json!(chain);
    seal["scheme"] = signature.scheme.into();
    seal["signature"] = hex(&signature.bytes).into();
    document[SEAL] = seal;
    Ok(text(&document))
}

fn text(value: &Value) -> Vec<u8> {
    // a value cannot fail to be text
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A part as a node has it that was given a job.
#[must_use]
pub fn part(node: &NodeId, cpus: &str) -> JobPart {
    JobPart {
        node: node.clone(),
        node_name: node.to_string(),
        cpus: cpus.to_owned(),
        ending: None,
        documents: Vec::new(),
    }
}
