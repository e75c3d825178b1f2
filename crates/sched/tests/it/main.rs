//! What a scheduler must never do, and what it must do in scenes that broke others.

#![allow(clippy::unwrap_used, reason = "tests")]

mod histories;
mod lab;
mod scenes;
