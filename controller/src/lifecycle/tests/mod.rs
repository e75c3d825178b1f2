//! Scenes with a known end, and random histories with crashes of everybody.

mod histories;
mod keeping;
mod scenes;
mod world;
