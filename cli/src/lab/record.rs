//! What the supervisor writes down for `up` and `down`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::identity::ProcessIdentity;
use crate::text::count;

/// What the nodes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Provider {
    /// Virtual machines of our image.
    #[default]
    Vm,
    /// Agents on this machine itself, at its own container engine; nothing can be proven there.
    Local,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    #[serde(default)]
    pub(super) provider: Provider,
    pub(super) nodes: u32,
    /// Of each node.
    pub(super) cpus: u32,
    /// Of each virtual machine.
    pub(super) memory_mib: u32,
    /// The engine of nodes that are processes; `None`: they are not.
    #[serde(default)]
    pub(super) engine: Option<PathBuf>,
    /// Folder with kernel, initramfs and command line; `None`: that of the build.
    pub(super) image: Option<PathBuf>,
    /// The controller's port; `None`: 7443 if it is free, else any.
    pub(super) port: Option<u16>,
}

impl Settings {
    /// Folder of the image in words of an option, for messages.
    pub(super) fn describe(&self) -> String {
        let nodes = count(usize::try_from(self.nodes).unwrap_or_default(), "node");
        let mut text = match self.provider {
            Provider::Vm => format!("{nodes} of {} CPUs and {} MiB", self.cpus, self.memory_mib),
            Provider::Local => format!("{nodes} of {} CPUs on this machine itself", self.cpus),
        };
        if let Some(engine) = &self.engine {
            text.push_str(&format!(" at the engine {}", engine.display()));
        }
        if let Some(image) = &self.image {
            text.push_str(&format!(" from {}", image.display()));
        }
        if let Some(port) = self.port {
            text.push_str(&format!(", controller on port {port}"));
        }
        text
    }
}

/// How far the supervisor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub(super) enum Phase {
    /// The controller does not answer yet.
    Starting,
    /// It does; not all machines have been started.
    Booting,
    /// All that was asked for has been started.
    Running,
    /// It ends, and all with it.
    Failed { why: String },
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) settings: Settings,
    #[serde(flatten)]
    pub(super) phase: Phase,
    pub(super) supervisor: ProcessIdentity,
    pub(super) controller: Option<ControllerRecord>,
    pub(super) machines: Vec<MachineRecord>,
}

/// The controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ControllerRecord {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    pub(super) process: Option<ProcessIdentity>,
    /// How often it ended and was started again.
    pub(super) restarts: u32,
}

/// One virtual machine, or agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MachineRecord {
    /// Its hostname.
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) mac: String,
    pub(super) console: PathBuf,
    #[serde(flatten)]
    pub(super) state: MachineState,
    pub(super) process: Option<ProcessIdentity>,
}

/// How far a machine is, as far as this side of it can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum MachineState {
    Waiting,
    Booting,
    Running,
    Ended { how: String },
}

impl Record {
    /// Every process that there is, the supervisor last.
    pub(super) fn processes(&self) -> Vec<&ProcessIdentity> {
        let machines = self.machines.iter().filter_map(|it| it.process.as_ref());
        let controller = self.controller.iter().filter_map(|it| it.process.as_ref());
        machines
            .chain(controller)
            .chain([&self.supervisor])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was_written() {
        let own = ProcessIdentity::own().unwrap();
        let record = Record {
            settings: Settings {
                provider: Provider::Vm,
                nodes: 1,
                cpus: 2,
                memory_mib: 1024,
                engine: None,
                image: Some("/b".into()),
                port: None,
            },
            phase: Phase::Failed { why: "x".into() },
            supervisor: own.clone(),
            controller: Some(ControllerRecord {
                address: "127.0.0.1:1".into(),
                process: Some(own.clone()),
                restarts: 2,
            }),
            machines: vec![MachineRecord {
                name: "node1".into(),
                uuid: "u".into(),
                mac: "m".into(),
                console: "/c".into(),
                state: MachineState::Ended { how: "y".into() },
                process: None,
            }],
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_eq!(record.processes().len(), 2);
        assert_eq!(
            record.settings.describe(),
            "1 node of 2 CPUs and 1024 MiB from /b"
        );
        let local = Settings {
            provider: Provider::Local,
            engine: Some("/e".into()),
            image: None,
            ..record.settings
        };
        let text = "1 node of 2 CPUs on this machine itself at the engine /e";
        assert_eq!(local.describe(), text);
    }
}
