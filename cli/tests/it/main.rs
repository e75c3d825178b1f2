//! The real program against the fake controller, over mutual TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod calls;
mod context;
mod help;
mod lab;
mod outputs;
mod program;
mod results;
mod run;
