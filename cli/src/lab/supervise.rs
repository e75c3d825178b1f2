//! The supervisor: the one process that owns a lab. Started by `still up`, ended by `still down`.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use client::Client;
use testkit::{Ending, Vm};
use tokio::runtime::Runtime;

use super::controller::{Controller, choose_port};
use super::folder::LabFolder;
use super::identity::ProcessIdentity;
use super::local::{self, Agent};
use super::machine::{identities, prepare};
use super::record::{
    ControllerRecord, MachineRecord, MachineState, Phase, Provider, Record, Settings,
};
use crate::outcome::{Ended, Misuse, Outcome};

/// Own a lab. `still up` calls this.
#[derive(Debug, Args)]
pub(crate) struct SuperviseArguments {
    /// The lab's folder. Its lock is standard input.
    #[arg(long)]
    folder: PathBuf,
    /// What is asked for, as JSON.
    #[arg(long)]
    settings: String,
}

/// Between two looks at what it owns.
const LOOK: Duration = Duration::from_millis(500);
/// A port that was free can be taken by the time the controller wants it.
const PORT_TRIES: u32 = 3;
/// A controller that ends more often than so within `CALM` is not started again.
const RESTARTS: usize = 5;
const CALM: Duration = Duration::from_secs(60);
const BEFORE_RESTART: Duration = Duration::from_secs(1);

/// What came of starting a machine, by its number.
type Booted = (usize, anyhow::Result<Vm>);

/// A node that runs.
enum Machine {
    Vm(Box<Vm>),
    Agent(Agent),
}

impl Machine {
    /// How it ended, if it has.
    fn ended(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Vm(vm) => Ok(vm
                .wait_exit(Duration::ZERO)
                .ok()
                .map(|ending| match ending {
                    Ending::PoweredOff => "powered off".into(),
                    Ending::Reset => "reset".into(),
                    Ending::Quit => "QEMU was told to quit".into(),
                    Ending::Failed { why } => why,
                })),
            Self::Agent(agent) => Ok(agent.ended()?.map(|status| status.to_string())),
        }
    }
}

pub(crate) fn supervise(arguments: &SuperviseArguments) -> Ended {
    let folder = LabFolder::at(arguments.folder.clone());
    let lock = std::io::stdin().as_fd().try_clone_to_owned();
    let lock = File::from(lock.context("look at standard input")?);
    if !folder.is_lock(&lock) {
        return Err(Misuse::NotByHand.into());
    }
    let settings = serde_json::from_str(&arguments.settings).context("read the settings")?;
    // away from the terminal of whoever called, and from its control-C
    if let Err(error) = nix::unistd::setsid() {
        eprintln!("this stays in its caller's session: {error}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("listen for signals")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let record = Record {
        settings,
        phase: Phase::Starting,
        supervisor: ProcessIdentity::own().context("look at this process")?,
        controller: None,
        machines: Vec::new(),
    };
    let mut supervisor = Supervisor {
        folder,
        record,
        runtime,
        stop,
        controller: None,
        machines: Vec::new(),
        ends: Vec::new(),
    };
    let ended = supervisor.run();
    if let Err(error) = &ended {
        let why = format!("{error:#}");
        eprintln!("the lab ends: {why}");
        supervisor.record.phase = Phase::Failed { why };
    }
    supervisor.end();
    let written = supervisor.write();
    ended.and(written).map(|()| Outcome::Done)
}

struct Supervisor {
    folder: LabFolder,
    record: Record,
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    controller: Option<Controller>,
    /// By number; `None`: not started, or ended.
    machines: Vec<Option<Machine>>,
    /// When the controller ended, lately.
    ends: Vec<Instant>,
}

impl Supervisor {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn write(&self) -> anyhow::Result<()> {
        Ok(self.folder.write_record(&self.record)?)
    }

    fn settings(&self) -> &Settings {
        &self.record.settings
    }

    /// Until it is told to stop.
    fn run(&mut self) -> anyhow::Result<()> {
        self.record.machines = identities(&self.folder, self.settings().nodes)?;
        self.write()?;
        let Some(client) = self.start_controller()? else {
            return Ok(());
        };
        self.record.phase = Phase::Booting;
        self.write()?;
        let booted = self.start_machines(&client)?;
        // an idle connection would be one more thing that moves
        drop(client);
        self.watch(&booted)
    }

    /// `None`: told to stop.
    fn start_controller(&mut self) -> anyhow::Result<Option<Client>> {
        let asked = self.settings().port;
        let mut tries = 0;
        loop {
            tries += 1;
            let port = choose_port(asked)?;
            let mut controller = Controller::start(&self.folder, port)?;
            self.record.controller = Some(ControllerRecord {
                address: format!("127.0.0.1:{port}"),
                process: controller.identity(),
                restarts: 0,
            });
            self.write()?;
            let ready = controller.wait_ready(&self.runtime, || self.stopping());
            match ready {
                Ok(client) => {
                    self.controller = Some(controller);
                    return Ok(client);
                }
                Err(error) => {
                    let taken = matches!(controller.ended(), Ok(Some(_)))
                        && controller.last_words().contains("in use");
                    if asked.is_some() || tries == PORT_TRIES || !taken {
                        return Err(error);
                    }
                    eprintln!("port {port} was taken: another one is tried");
                }
            }
        }
    }

    fn start_machines(&mut self, client: &Client) -> anyhow::Result<Receiver<Booted>> {
        let controller = self.controller.as_ref().context("there is no controller")?;
        let (port, context) = (controller.port, controller.context()?);
        let pin = pki::Pin::of_pem(&context.ca_pem)?;
        let (sender, booted) = channel();
        if self.settings().provider == Provider::Local {
            self.start_agents(client, port, &pin)?;
            return Ok(booted);
        }
        for number in 0..self.record.machines.len() {
            let machine = &self.record.machines[number];
            let prepared = prepare(client, &self.folder, self.settings(), machine, port, &pin);
            let prepared = self
                .runtime
                .block_on(prepared)
                .with_context(|| format!("prepare {}", machine.name))?;
            let sender = sender.clone();
            let boot = move || {
                // the other end goes only when all ends; then the machine goes with it
                drop(sender.send((number, prepared.boot())));
            };
            std::thread::Builder::new()
                .name(machine.name.clone())
                .spawn(boot)
                .context("start a thread")?;
            self.record.machines[number].state = MachineState::Booting;
            self.machines.push(None);
        }
        self.write()?;
        Ok(booted)
    }

    /// From this thread, whose end is theirs.
    fn start_agents(&mut self, client: &Client, port: u16, pin: &pki::Pin) -> anyhow::Result<()> {
        let images = local::note_images(&self.folder, self.settings());
        self.runtime.block_on(images)?;
        for number in 0..self.record.machines.len() {
            let machine = &self.record.machines[number];
            let settings = self.settings();
            let start = local::start(client, &self.folder, settings, number, machine, port, pin);
            let agent = self
                .runtime
                .block_on(start)
                .with_context(|| format!("start {}", machine.name))?;
            let machine = &mut self.record.machines[number];
            machine.state = MachineState::Running;
            machine.process = agent.identity();
            self.machines.push(Some(Machine::Agent(agent)));
            self.write()?;
        }
        Ok(())
    }

    fn watch(&mut self, booted: &Receiver<Booted>) -> anyhow::Result<()> {
        let booting = |machine: &&MachineRecord| machine.state == MachineState::Booting;
        let mut left = self.record.machines.iter().filter(booting).count();
        loop {
            if left == 0 && self.record.phase == Phase::Booting {
                self.record.phase = Phase::Running;
                self.write()?;
            }
            match booted.recv_timeout(LOOK) {
                Ok((number, vm)) => {
                    left -= 1;
                    let machine = &mut self.record.machines[number];
                    let vm = vm.with_context(|| format!("boot {}", machine.name))?;
                    machine.state = MachineState::Running;
                    machine.process = ProcessIdentity::of(vm.pid());
                    eprintln!("{} runs ({})", machine.name, vm.accel().name());
                    self.machines[number] = Some(Machine::Vm(Box::new(vm)));
                    self.write()?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // all threads are done
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            }
            if self.stopping() {
                return Ok(());
            }
            self.look_at_controller()?;
            self.look_at_machines()?;
        }
    }

    /// One that ended is started again, on the same port and with what it had written down.
    fn look_at_controller(&mut self) -> anyhow::Result<()> {
        let Some(controller) = &mut self.controller else {
            return Ok(());
        };
        let Some(status) = controller.ended()? else {
            return Ok(());
        };
        eprintln!("the controller ended ({status})");
        let now = Instant::now();
        self.ends.retain(|end| now - *end < CALM);
        self.ends.push(now);
        if self.ends.len() > RESTARTS {
            bail!(
                "the controller ends again and again, the last time with {status}:\n{}",
                controller.last_words()
            );
        }
        let port = controller.port;
        std::thread::sleep(BEFORE_RESTART);
        let controller = Controller::start(&self.folder, port)?;
        if let Some(record) = &mut self.record.controller {
            record.process = controller.identity();
            record.restarts += 1;
        }
        self.controller = Some(controller);
        self.write()
    }

    /// One that ended stays so: whoever powered it off meant it.
    fn look_at_machines(&mut self) -> anyhow::Result<()> {
        let mut changed = false;
        for (slot, machine) in self.machines.iter_mut().zip(&mut self.record.machines) {
            let Some(how) = slot.as_mut().map(Machine::ended).transpose()?.flatten() else {
                continue;
            };
            eprintln!("{} ended: {how}", machine.name);
            machine.state = MachineState::Ended { how };
            machine.process = None;
            *slot = None;
            changed = true;
        }
        if changed {
            self.write()?;
        }
        Ok(())
    }

    /// Machines first, so that they do not see the controller go; what is still booting dies with us.
    fn end(&mut self) {
        let agents: Vec<_> = std::mem::take(&mut self.machines)
            .into_iter()
            .filter_map(|machine| match machine {
                Some(Machine::Agent(agent)) => Some(agent),
                Some(Machine::Vm(_)) | None => None,
            })
            .collect();
        // all at once
        agents.iter().for_each(Agent::tell);
        agents.into_iter().for_each(Agent::stop);
        if let Some(controller) = self.controller.take() {
            controller.stop();
        }
        if let Some(controller) = &mut self.record.controller {
            controller.process = None;
        }
        for machine in &mut self.record.machines {
            machine.process = None;
        }
    }
}
