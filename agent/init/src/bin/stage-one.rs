//! `/init` of the initramfs: stage one alone, without the agent around it. It lies uncompressed in the
//! initramfs, so its size is paid in full; the agent is only in the compressed root image.

fn main() {
    stillmetal_init::run_stage_one();
}
