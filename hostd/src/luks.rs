//! LUKS1 by cryptsetup: a fast header, since a key is 256 random bits. A plain key goes through a pipe and is in no file.
//!
//! QEMU reads LUKS1 alone; its own header takes seconds to make and to open.

use std::io::{Error, Result, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::driver::PlainKey;

/// How much the header takes in front of the data, in bytes, with a key of 512 bits.
pub const HEADER: u64 = 2 << 20;

/// Runs a program to its end, with a key on its standard input where it needs one; its own words where it fails.
pub(crate) fn run(command: &mut Command, key: Option<&PlainKey>) -> Result<()> {
    let stdin = if key.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let (Some(key), Some(mut pipe)) = (key, child.stdin.take()) {
        pipe.write_all(key.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Writes a header that the key opens.
pub(crate) fn format(file: &Path, key: &PlainKey) -> Result<()> {
    let mut command = Command::new("cryptsetup");
    command.args(["luksFormat", "--batch-mode", "--type", "luks1", "--cipher", "aes-xts-plain64"]);
    // There is nothing for iterations to slow down.
    command.args(["--pbkdf-force-iterations", "1000", "--key-size", "512", "--hash", "sha256"]);
    run(command.args(["--key-file", "-"]).arg(file), Some(key))
}
