//! What holds on both databases.

mod events;
mod groups;
mod leaders;
mod model;
mod opening;
mod reading;
mod rules;
