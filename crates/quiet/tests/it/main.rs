//! From texts of `/proc` to a verdict, on a machine of the test's own making.

mod fixtures;
mod node;
mod pictures;
mod selftest;
mod trace;
mod verdicts;
