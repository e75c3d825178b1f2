//! Interrupts that appear while the node runs.

use host::fakes::OnWrite;
use nix::errno::Errno;
use stillmetal_tune::irqs::{Steering, steer};

use super::*;

#[test]
fn later_interrupts_are_steered_and_nothing_is_written_twice() {
    let tree = machine(INTEL);
    let report = tune(&tree).report;
    let housekeeping = report.cpus.housekeeping.clone();
    assert!(!tree.take_writes().is_empty(), "tuning wrote");
    let mut steering = Steering::new(housekeeping.clone());
    let first = steering.run(&tree);
    assert_eq!(
        first.len(),
        1,
        "the one that refuses is told once: {first:?}"
    );
    assert_eq!((first[0].irq, first[0].status), (3, Status::Refused));
    assert_eq!(tree.take_writes().len(), 1, "one more try");
    assert_eq!(steering.run(&tree), []);
    assert_eq!(tree.take_writes(), []);

    tree.set("/proc/irq/99/smp_affinity_list", "0-3");
    tree.set("/proc/irq/100/smp_affinity_list", "0");
    let new = steering.run(&tree);
    assert_eq!(new.len(), 1);
    assert_eq!((new[0].irq, new[0].status), (99, Status::Verified));
    assert_eq!(
        (new[0].before.to_string(), new[0].after.to_string()),
        ("0-3".into(), "0".into())
    );
    assert_eq!(tree.take_writes().len(), 1);

    tree.remove("/proc/irq/3");
    assert_eq!(steer(&tree, &housekeeping), []);
    assert_eq!(tree.take_writes(), []);
}

#[test]
fn an_interrupt_that_refused_is_tried_again_when_it_moved() {
    let tree = FakeTree::new();
    tree.set("/proc/irq/7/smp_affinity_list", "1");
    tree.on_write("/proc/irq/7/smp_affinity_list", OnWrite::Fail(Errno::EIO));
    let mut steering = Steering::new("0".parse().unwrap());
    assert_eq!(steering.run(&tree)[0].status, Status::Refused);
    assert_eq!(steering.run(&tree), []);
    tree.set("/proc/irq/7/smp_affinity_list", "2");
    tree.on_write("/proc/irq/7/smp_affinity_list", OnWrite::Accept);
    assert_eq!(steering.run(&tree)[0].status, Status::Verified);
}
