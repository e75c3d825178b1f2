//! The bare init as a program of its own: for boot tests without the rest of the agent. As anything but PID 1 it refuses.

fn main() {
    stillmetal_init::run()
}
