//! A migration that was added is built in without a change of the code.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
