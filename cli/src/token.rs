//! `still token`.

use api::fleet::{TokenRequest, TokenView};
use clap::{Args, Subcommand};

use crate::context::Chosen;
use crate::outcome::{Ended, Outcome};
use crate::output::Output;
use crate::quantity::{ahead, now_ms, parse_limit};

/// Tokens let machines join without anybody's approval, once each.
#[derive(Debug, Args)]
#[command(
    after_help = "A token is printed once, when it is made. Give it to the machine as a file, never on the kernel
command line, which every container can read.

Examples:
  still token create --valid 10m > join-token
  still token create --machine 52:54:00:12:34:56      only for the machine with this MAC or SMBIOS UUID
  still token revoke ID"
)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make a token and print it.
    Create {
        /// How long it can be used.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_limit)]
        valid: u32,
        /// Only for the machine with this SMBIOS UUID or MAC.
        #[arg(long, value_name = "UUID|MAC")]
        machine: Option<String>,
    },
    /// List the tokens, without their secrets.
    List,
    /// Make a token worthless.
    Revoke { id: String },
}

pub(crate) async fn run(arguments: TokenArguments, chosen: &Chosen, output: Output) -> Ended {
    let client = chosen.client()?;
    match arguments.command {
        Task::Create { valid, machine } => {
            let request = TokenRequest {
                valid_seconds: valid,
                machine,
            };
            let token = client.create_token(&request).await?;
            output.value(&token, || token.token.clone().unwrap_or_default())?;
        }
        Task::List => list(&client.tokens().await?, output)?,
        Task::Revoke { id } => {
            client.delete_token(&id).await?;
            let text = || format!("token {id} is worth nothing now");
            output.value(&serde_json::json!({ "revoked": id }), text)?;
        }
    }
    Ok(Outcome::Done)
}

fn list(tokens: &[TokenView], output: Output) -> anyhow::Result<()> {
    let now = now_ms();
    output.list(tokens, &["TOKEN", "MACHINE", "ENDS", "USED BY"], |token| {
        let ends = match token.expires_ms > now {
            true => ahead(token.expires_ms, now),
            false => "over".into(),
        };
        vec![
            token.id.clone(),
            token.machine.clone().unwrap_or_else(|| "any".into()),
            ends,
            token
                .used_by
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ]
    })
}
