//! What a machine of the lab boots: the distribution's cloud kernel, and an initramfs of busybox that obeys a NoCloud seed.
//!
//! Boots to READY in some five CPU-seconds where QEMU emulates. What it understands of a seed stands at the head of `guest/init.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages::Apt;
use crate::run::{Error, file, succeed};
use crate::{Reporter, cache};

const INIT: &str = include_str!("../guest/init.sh");
const HALT: &str = include_str!("../guest/halt.sh");
const BUILD: &str = include_str!("../guest/build.sh");
/// The series of the kernel: its unpacked form can be booted without firmware.
const KERNEL: &str = "6.12";
/// What the kernel must be told: the serial console, and nothing that costs an emulated processor time.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet cryptomgr.notests mitigations=off nokaslr";

/// The files that a machine boots, readable by the user that QEMU runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The unpacked kernel (an ELF file with an entry for direct boot).
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
}

impl Guest {
    /// Makes it, or takes it from the cache: some 20 s the first time.
    pub fn get(reporter: &dyn Reporter) -> Result<Self, Error> {
        let made_of = [KERNEL, INIT, HALT, BUILD].map(str::as_bytes);
        let folder = cache::entry_in(&cache::shared(), "guest", &cache::key(&made_of), |out| make(out, reporter))?;
        Ok(Self {
            kernel: folder.join("kernel"),
            initrd: folder.join("initrd"),
        })
    }
}

fn make(out: &Path, reporter: &dyn Reporter) -> Result<(), Error> {
    reporter.say(&format!("making the guest with a kernel {KERNEL} (once)"));
    let apt = Apt::ready()?;
    let image = apt.behind("linux-image-cloud-amd64", KERNEL, "linux-image-")?;
    let (parts, scripts) = (out.join("parts"), out.join("scripts"));
    for (package, folder) in [(image.as_str(), "kernel"), ("qemu-guest-agent", "agent")] {
        apt.unpack(package, &parts.join(folder))?;
    }
    file("make", &scripts, std::fs::create_dir_all(&scripts))?;
    for (name, text) in [("init", INIT), ("halt", HALT), ("build.sh", BUILD)] {
        let path = scripts.join(name);
        file("write", &path, std::fs::write(&path, text))?;
    }
    let boot = parts.join("kernel/boot");
    let packed = file("read", &boot, std::fs::read_dir(&boot))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .ok_or_else(|| Error::Unexpected(format!("`{image}` holds no kernel")))?;
    unpack_kernel(&packed, &out.join("kernel"))?;
    succeed(
        Command::new("bash").arg(scripts.join("build.sh")).args([&parts, &scripts]).arg(out),
        None,
    )?;
    for folder in [parts, scripts] {
        file("remove", &folder, std::fs::remove_dir_all(&folder))?;
    }
    let mut mode = Command::new("chmod");
    succeed(mode.args(["-R", "a+rX"]).arg(out).arg(cache::shared()), None).map(drop)
}

/// The kernel that a compressed image carries, at the place that its setup header names.
fn unpack_kernel(packed: &Path, target: &Path) -> Result<(), Error> {
    let bytes = file("read", packed, std::fs::read(packed))?;
    let (payload, program) =
        payload(&bytes).ok_or_else(|| Error::Unexpected(format!("`{}` is packed in a way that is not known", packed.display())))?;
    let part = target.with_extension("packed");
    file("write", &part, std::fs::write(&part, payload))?;
    let mut unpack = Command::new("sh");
    unpack
        .arg("-c")
        .arg(format!("exec {program} -dc < \"$0\" > \"$1\""))
        .arg(&part)
        .arg(target);
    succeed(&mut unpack, None)?;
    file("remove", &part, std::fs::remove_file(&part))?;
    let kernel = file("read", target, std::fs::read(target))?;
    if !kernel.starts_with(b"\x7fELF") {
        return Err(Error::Unexpected(format!("what `{}` carries is no kernel", packed.display())));
    }
    Ok(())
}

/// The compressed kernel in an image of the x86 boot protocol, and the program that unpacks it.
fn payload(image: &[u8]) -> Option<(&[u8], &'static str)> {
    let word = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // Sectors of the setup code: none stands for four.
    let sectors = match usize::from(*image.get(0x1f1)?) {
        0 => 4,
        some => some,
    };
    let begin = (sectors + 1) * 512 + word(0x248)?;
    let whole = image.get(begin..begin + word(0x24c)?)?;
    // The last four bytes are the unpacked size, which is no part of the stream.
    let (stream, _size) = whole.split_at_checked(whole.len().checked_sub(4)?)?;
    match stream {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some((stream, "zstd")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some((stream, "xz")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::payload;

    fn image(magic: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 512 * 2];
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&8_u32.to_le_bytes());
        image.extend_from_slice(&[0; 8]);
        let stream = [magic, b"stream", &[1, 2, 3, 4]].concat();
        let length = u32::try_from(stream.len()).unwrap();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(&stream);
        image
    }

    #[test]
    fn the_packed_kernel_lies_where_the_header_says() {
        let zstd = [0x28, 0xb5, 0x2f, 0xfd];
        assert_eq!(payload(&image(&zstd)), Some((&[&zstd[..], b"stream"].concat()[..], "zstd")));
        assert_eq!(payload(&image(b"GZIP")), None);
        assert_eq!(payload(&image(&zstd)[..1020]), None);
    }
}
