//! A Stillmetal node in a virtual machine: our image, its credentials and its ways in. The only
//! module that knows the product.

use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::builder::VmBuilder;
use crate::cmdline::Cmdline;
use crate::credentials::{Client, ConfigOptions, Credentials};
use crate::docker::Docker;
use crate::error::{Error, Result};
use crate::http::ApiClient;
use crate::net::Nic;
use crate::places::Artifacts;
use crate::vm::Vm;

/// The API's port in the guest.
pub const API_PORT: u16 = 2376;
/// The port of the engine's own TLS, if it was asked for.
pub const ENGINE_PORT: u16 = 2377;
/// The first line of our first process.
pub const INIT_STARTED: &str = "stillmetal: init started";
/// From power-on to the first process; emulated and on a busy host.
const INIT_WITHIN: Duration = Duration::from_secs(120);
/// From there to the API.
const API_WITHIN: Duration = Duration::from_secs(120);
/// From there to the engine.
const ENGINE_WITHIN: Duration = Duration::from_secs(240);

/// Describes a node that boots our image: 2 CPUs, 1 GiB, one network card with the API forwarded.
/// Change what the test is about, then [`Node::boot`].
///
/// # Errors
/// [`Error::Missing`] if the image is not built; [`Error::CommandFailed`] from the image tool.
pub fn describe(
    name: &str,
    credentials: &Credentials,
    options: &ConfigOptions,
) -> Result<VmBuilder> {
    let image = Artifacts::find()?;
    let mut nic = Nic::user().forward(API_PORT);
    if options.engine_tls {
        nic = nic.forward(ENGINE_PORT);
    }
    if options.authorized_keys.is_some() {
        nic = nic.forward(22);
    }
    Ok(VmBuilder::new(name)
        .cmdline(Cmdline::read(&image.cmdline)?.set("panic=-1"))
        .kernel(image.kernel)
        .initrd(image.initrd)
        .initrd(credentials.config_img(options)?)
        .init_marker(INIT_STARTED)
        .nic(nic))
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The machine.
    pub vm: Vm,
    credentials: Arc<Credentials>,
}

impl Node {
    /// Boots a described node up to its first process.
    ///
    /// # Errors
    /// As [`VmBuilder::boot`].
    pub fn boot(description: &VmBuilder, credentials: &Arc<Credentials>) -> Result<Self> {
        let vm = description.boot(INIT_WITHIN)?;
        Ok(Self {
            vm,
            credentials: Arc::clone(credentials),
        })
    }

    /// Boots a described node until containers can run.
    ///
    /// # Errors
    /// As [`VmBuilder::boot`], and [`Error::ApiTimedOut`].
    pub fn boot_ready(description: &VmBuilder, credentials: &Arc<Credentials>) -> Result<Self> {
        let node = Self::boot(description, credentials)?;
        node.wait_api()?;
        node.wait_engine()?;
        Ok(node)
    }

    /// Its certificates.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// An API client.
    ///
    /// # Errors
    /// [`Error::Certificates`]; [`Error::Describe`] when the machine does not forward the port.
    pub fn api(&self, client: Client) -> Result<ApiClient> {
        let tls = self.credentials.tls(client)?;
        let console = self.vm.console().clone();
        Ok(ApiClient::new(self.address(API_PORT)?, tls).with_console(console))
    }

    /// A docker client of the node's API.
    ///
    /// # Errors
    /// As [`Docker::connect`].
    pub fn docker(&self, client: Client) -> Result<Docker> {
        Docker::connect(
            self.address(API_PORT)?,
            &self.credentials.client_folder(client),
        )
    }

    /// A docker client of the engine itself, past our API.
    ///
    /// # Errors
    /// As [`Docker::connect`].
    pub fn bare_engine(&self) -> Result<Docker> {
        let folder = self.credentials.client_folder(Client::Admin);
        Docker::connect(self.address(ENGINE_PORT)?, &folder)
    }

    fn address(&self, guest_port: u16) -> Result<std::net::SocketAddr> {
        self.vm.address(guest_port).ok_or_else(|| Error::Describe {
            vm: self.vm.name().to_owned(),
            why: format!("port {guest_port} is not forwarded"),
        })
    }

    /// `GET` as this client.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn get(&self, client: Client, path: &str) -> Result<Answer> {
        self.api(client)?.get(path)
    }

    /// `POST` of JSON as this client.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub fn post(&self, client: Client, path: &str, body: &serde_json::Value) -> Result<Answer> {
        self.api(client)?.post(path, body)
    }

    /// Waits until the API answers; returns its report on the node.
    ///
    /// # Errors
    /// [`Error::ApiTimedOut`].
    pub fn wait_api(&self) -> Result<Answer> {
        let api = self.api(Client::Admin)?;
        api.wait_for(
            "the node's report",
            "/stillmetal/v1/node",
            API_WITHIN,
            |answer| answer.status == 200,
        )
    }

    /// Waits until the engine answers through the API.
    ///
    /// # Errors
    /// [`Error::ApiTimedOut`].
    pub fn wait_engine(&self) -> Result<Answer> {
        let api = self.api(Client::Admin)?;
        api.wait_for("the engine", "/_ping", ENGINE_WITHIN, |answer| {
            answer.status == 200
        })
    }
}
