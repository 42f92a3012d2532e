//! Whether machines can have the processor's help.

use std::path::Path;

/// Whether a machine runs with the processor's help: a small one is tried. A `/dev/kvm` that is there may still be of no use.
///
/// Its boot sector (mov al, 0x10; out 0xf4, al; hlt; jmp) writes to the port of QEMU's `isa-debug-exit`, which ends QEMU with the status 33.
pub fn kvm_works() -> bool {
    const SECTOR: [u8; 7] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    let tried = || -> std::io::Result<bool> {
        let mut sector = [0; 512];
        for (place, byte) in sector.iter_mut().zip(SECTOR) {
            *place = byte;
        }
        for (place, byte) in sector.iter_mut().rev().zip([0xaa, 0x55]) {
            *place = byte;
        }
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, &sector)?;
        let mut command = std::process::Command::new("timeout");
        command.args([
            "--signal=KILL",
            "20",
            "qemu-system-x86_64",
            "-accel",
            "kvm",
            "-m",
            "32",
            "-display",
            "none",
            "-nodefaults",
        ]);
        command.args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive"]);
        command.arg(format!("if=ide,format=raw,file={}", file.path().display()));
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        Ok(command.status()?.code() == Some(33))
    };
    tried().unwrap_or(false)
}
