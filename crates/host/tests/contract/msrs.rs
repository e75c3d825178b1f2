//! Registers: the fake, a directory and the kernel's msr device must agree.

use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use host::fakes::FakeMsrs;
use host::{DevCpu, Msrs};
use nix::errno::Errno;

/// `IA32_TIME_STAMP_COUNTER`: on every x86 CPU.
const TSC: u32 = 0x10;
/// On none, so far as anybody says.
const NOWHERE: u32 = 0xffff_fff0;

/// CPU 0 has the register TSC, and not NOWHERE.
fn behaves_like_the_msr_device(msrs: &dyn Msrs) {
    let first = msrs.read(0, TSC).unwrap();
    assert!(first > 0 && msrs.read(0, TSC).unwrap() >= first);
    // the errors differ (EIO, end of file); that it is none of zero is what matters
    msrs.read(0, NOWHERE).unwrap_err();
    let nobody = msrs.read(u32::MAX, TSC).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
}

#[test]
fn fake() {
    let msrs = FakeMsrs::new();
    msrs.set(0, TSC, 7);
    behaves_like_the_msr_device(&msrs);
    assert_eq!(msrs.reads(0), 3);
    msrs.add(0, TSC, 2);
    assert_eq!(msrs.read(0, TSC).unwrap(), 9);
    msrs.fail(0, TSC, Errno::EPERM);
    let denied = msrs.read(0, TSC).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    msrs.remove(0);
    let gone = msrs.read(0, TSC).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn directory() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("dev/cpu/0")).unwrap();
    let file = std::fs::File::create(root.path().join("dev/cpu/0/msr")).unwrap();
    let value: u64 = 0x0123_4567_89ab_cdef;
    file.write_all_at(&value.to_le_bytes(), TSC.into()).unwrap();
    let msrs = DevCpu::new(root.path());
    behaves_like_the_msr_device(&msrs);
    assert_eq!(msrs.read(0, TSC).unwrap(), value);
}

#[test]
#[ignore = "needs root and the msr device of bare metal: docs/hardware-check.md"]
fn running_kernel() {
    behaves_like_the_msr_device(&DevCpu::live());
}
