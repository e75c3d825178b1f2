//! The lab's nodes: virtual machines of our image that know where the controller is and may join it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::fleet::TokenRequest;
use client::Client;
use stillmetal_image::config;
use testkit::{Artifacts, Cmdline, Nic, OnReset, Vm, VmBuilder, node};

use super::controller::SEEN_FROM_GUESTS;
use super::folder::LabFolder;
use super::record::{MachineRecord, MachineState, Settings};

/// From power-on to the first process: emulated, several at once, on a busy machine.
const INIT_WITHIN: Duration = Duration::from_secs(300);
/// How long a machine can use its token: as long as it may take to boot.
const TOKEN_SECONDS: u32 = 1800;

/// Identities for all of them, different from those of any other lab.
pub(super) fn identities(folder: &LabFolder, nodes: u32) -> anyhow::Result<Vec<MachineRecord>> {
    let one = |number: u32| {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random)
            .map_err(anyhow::Error::from)
            .context("get random numbers from the system")?;
        let name = format!("node{number}");
        Ok(MachineRecord {
            console: folder.consoles().join(format!("{name}.log")),
            name,
            uuid: uuid(random),
            mac: mac(random),
            state: MachineState::Waiting,
            process: None,
        })
    };
    (1..=nodes).map(one).collect()
}

/// Version 4, as RFC 9562 says.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// In QEMU's own range.
fn mac(bytes: [u8; 16]) -> String {
    let [a, b, c, ..] = bytes;
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The image: that of the build, or of a folder.
pub(super) fn artifacts(settings: &Settings) -> anyhow::Result<Artifacts> {
    Ok(match &settings.image {
        Some(folder) => Artifacts::in_folder(folder)?,
        None => Artifacts::find().context("find the image; --image names its folder")?,
    })
}

/// A machine that is ready to be started.
#[derive(Debug)]
pub(super) struct Prepared {
    builder: VmBuilder,
    config: PathBuf,
}

/// Makes a token for a machine, an archive that carries it, and the machine's description.
pub(super) async fn prepare(
    client: &Client,
    folder: &LabFolder,
    settings: &Settings,
    machine: &MachineRecord,
    port: u16,
    pin: &pki::Pin,
) -> anyhow::Result<Prepared> {
    let image = artifacts(settings)?;
    let request = TokenRequest {
        valid_seconds: TOKEN_SECONDS,
        machine: Some(machine.uuid.clone()),
    };
    let token = client.create_token(&request).await?;
    let token = token
        .token
        .context("the controller made a token without a secret")?;
    let config = write_config(folder, &machine.name, &token)?;
    let cmdline = Cmdline::read(&image.cmdline)?
        .set("panic=-1")
        .set(&format!("stillmetal.hostname={}", machine.name))
        .set(&format!("stillmetal.controller={SEEN_FROM_GUESTS}:{port}"))
        .set(&format!("stillmetal.ca={pin}"));
    let builder = VmBuilder::new(&machine.name)
        .kernel(image.kernel)
        .initrd(image.initrd)
        .initrd(&config)
        .cmdline(cmdline)
        .cpus(settings.cpus)
        .memory_mib(settings.memory_mib)
        .uuid(&machine.uuid)
        .nic(Nic::user().mac(&machine.mac))
        .on_reset(OnReset::Restart)
        .init_marker(node::INIT_STARTED)
        .logs_dir(folder.consoles());
    Ok(Prepared { builder, config })
}

/// The archive with the token, for its owner only.
fn write_config(folder: &LabFolder, name: &str, token: &str) -> anyhow::Result<PathBuf> {
    let secret = folder.path().join(format!("{name}.token"));
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&secret)
        .and_then(|mut file| writeln!(file, "{token}"))
        .with_context(|| format!("write {}", secret.display()))?;
    let out = folder.path().join(format!("{name}.img"));
    let request = config::Request {
        join_token: Some(secret.clone()),
        ..config::Request::default()
    };
    let written = config::write(&request, &out);
    fs::remove_file(&secret).with_context(|| format!("remove {}", secret.display()))?;
    written.with_context(|| format!("write {}", out.display()))?;
    Ok(out)
}

impl Prepared {
    /// Starts it, and waits for its first process.
    pub(super) fn boot(self) -> anyhow::Result<Vm> {
        let booted = self.builder.boot(INIT_WITHIN);
        // the machine has read it, or will never
        drop(fs::remove_file(&self.config));
        Ok(booted?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_well_formed() {
        let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n).unwrap() * 17);
        assert_eq!(uuid(bytes), "00112233-4455-4677-8899-aabbccddeeff");
        assert_eq!(mac(bytes), "52:54:00:00:11:22");
        let folder = LabFolder::at("/x".into());
        let machines = identities(&folder, 3).unwrap();
        let names: Vec<_> = machines.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["node1", "node2", "node3"]);
        assert_ne!(machines[0].uuid, machines[1].uuid);
        assert_ne!(machines[0].mac, machines[1].mac);
    }
}
