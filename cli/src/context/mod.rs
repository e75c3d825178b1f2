//! Contexts: which controllers there are, and as whom they are called.
//!
//! ```text
//! $XDG_CONFIG_HOME/stillmetal/current                                          the name of one
//! $XDG_CONFIG_HOME/stillmetal/contexts/NAME/{context.toml,ca.pem,cert.pem,key.pem}
//! ```

mod command;
mod store;

pub(crate) use command::{ContextArguments, run};
pub(crate) use store::{ContextName, Contexts};

use anyhow::Context as _;
use client::{Client, Context};

use crate::outcome::Misuse;

/// Which context a command uses.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Chosen {
    /// The controller to use, by its context [default: the current one, see `still context`].
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "STILLMETAL_CONTEXT",
        help_heading = "Everywhere"
    )]
    context: Option<String>,
}

impl Chosen {
    /// Its name.
    pub(crate) fn name(&self, contexts: &Contexts) -> anyhow::Result<ContextName> {
        let known = contexts.names()?;
        if let Some(name) = &self.context {
            let found = known.iter().find(|it| it.as_str() == name);
            return found.cloned().ok_or_else(|| {
                let known = known.iter().map(ToString::to_string).collect();
                let name = name.clone();
                Misuse::NoSuchContext { name, known }.into()
            });
        }
        let current = contexts.current()?;
        let found = known.iter().find(|it| Some(*it) == current.as_ref());
        Ok(found.cloned().ok_or(Misuse::NoContext)?)
    }

    /// All that is in it.
    pub(crate) fn read(&self) -> anyhow::Result<(ContextName, Context)> {
        let contexts = Contexts::of_user()?;
        let name = self.name(&contexts)?;
        let context = contexts.read(&name);
        let context = context.with_context(|| format!("read context {name}"))?;
        Ok((name, context))
    }

    /// A client of its controller.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let (name, context) = self.read()?;
        Client::new(&context).with_context(|| format!("use context {name}"))
    }
}
