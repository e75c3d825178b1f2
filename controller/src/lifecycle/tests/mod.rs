//! Scenes with a known end, and random histories with crashes of everybody.

mod histories;
mod scenes;
mod world;
