//! Builds what a Stillmetal node boots from: a read-only root image (squashfs) inside a plain cpio
//! initramfs, the per-node configuration archive beside it, and container images for the tests.
//!
//! Everything comes from Debian packages pinned in `image.lock`; files are copied by an explicit
//! allow-list and libraries by ELF closure, so no maintainer script ever runs and nothing that is not
//! listed can be in the image. Outputs are a pure function of their inputs, byte for byte.
//!
//! It does not download by itself (`apt-trixie.sh` does) and does not build the kernel or the agent.

pub mod build;
pub mod cache;
pub mod closure;
pub mod config;
pub mod contents;
pub mod cpio;
pub mod digest;
pub mod docker_cli;
pub mod docker_image;
pub mod fetch;
pub mod file;
pub mod initramfs;
pub mod kernel;
pub mod lock;
pub mod manifest;
pub mod program;
pub mod relock;
pub mod rootfs;
pub mod squash;
pub mod tree;
pub mod unpack;

/// Part of every cache key: raise it when the builder's output changes for the same inputs.
pub const BUILDER_VERSION: u32 = 2;
