//! `sweep`: what an agent that was killed left in the engine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use stillmetal_node::engine::client::EngineClient;
use stillmetal_node::runs;

#[derive(Debug, Args)]
pub(crate) struct SweepArguments {
    /// The engine's socket.
    #[arg(long, value_name = "SOCKET", default_value = "/run/docker.sock")]
    engine: PathBuf,
    /// The agent's identity: its --instance, or what machine-id in its state directory says.
    #[arg(long, value_name = "UUID")]
    owner: String,
}

/// Removes all containers of one agent, running or not.
pub(crate) fn sweep(arguments: &SweepArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let client = EngineClient::new(&arguments.engine);
    let removed = runtime
        .block_on(runs::sweep(&client, &arguments.owner))
        .with_context(|| format!("remove what is left in {}", arguments.engine.display()))?;
    println!("{removed} containers removed");
    Ok(ExitCode::SUCCESS)
}
