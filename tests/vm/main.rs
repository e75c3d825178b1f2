//! The VM lane: boots the built image in QEMU and looks at it from outside, through the API and
//! the stock `docker` client. Run with `--ignored --test-threads=1`: an emulated boot takes all
//! CPUs of a small machine.

mod boot;
mod certificates;
mod docker;
mod shared;
mod transcript;
