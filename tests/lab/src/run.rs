//! Commands that are run to their end, and conditions that are waited for.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What can go wrong with a real part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("cannot {what} `{path}`")]
    File {
        /// What was attempted.
        what: &'static str,
        /// Where.
        path: String,
        /// What happened.
        #[source]
        cause: std::io::Error,
    },
    /// A command could not be started.
    #[error("cannot run `{command}`")]
    Start {
        /// The command.
        command: String,
        /// What happened.
        #[source]
        cause: std::io::Error,
    },
    /// A command ended badly.
    #[error("`{command}` failed ({status}): {output}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// Something did not come about in time.
    #[error("{what} did not come about within {seconds} s; see {log}")]
    Late {
        /// What was awaited.
        what: String,
        /// For how long.
        seconds: u64,
        /// Where to look.
        log: String,
    },
    /// What was read is not what it must be.
    #[error("{0}")]
    Unexpected(String),
}

/// A file operation, with the path in its error.
pub fn file<T>(what: &'static str, path: &std::path::Path, result: std::io::Result<T>) -> Result<T, Error> {
    result.map_err(|cause| Error::File {
        what,
        path: path.display().to_string(),
        cause,
    })
}

fn shown(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ").chars().take(300).collect()
}

/// Runs a command to its end, with `input` on its standard input; whatever way it ends.
pub fn finish(command: &mut Command, input: Option<&[u8]>) -> Result<Output, Error> {
    let words = shown(command);
    let start = |cause| Error::Start {
        command: words.clone(),
        cause,
    };
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let spawned = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(start)?;
    if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
        // A command that reads no further has said why on its standard error.
        let _ = pipe.write_all(bytes);
    }
    child.wait_with_output().map_err(start)
}

/// Runs a command that must succeed; its standard output.
pub fn succeed(command: &mut Command, input: Option<&[u8]>) -> Result<String, Error> {
    let output = finish(command, input)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Failed {
        command: shown(command),
        status: output.status.to_string(),
        output: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
        .trim()
        .to_owned(),
    })
}

/// Asks again and again until something is so, for at most `seconds`.
pub fn await_until(what: &str, seconds: u64, log: &str, mut so: impl FnMut() -> bool) -> Result<(), Error> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !so() {
        if Instant::now() > end {
            return Err(Error::Late {
                what: what.to_owned(),
                seconds,
                log: log.to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
