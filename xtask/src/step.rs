//! Steps with names and times, told on standard error.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Tells one line.
pub(crate) fn say(line: &str) {
    // Progress that cannot be shown is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs a step and says how long it took; what it gave.
pub(crate) fn step<T>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("==> {name}"));
    let begun = Instant::now();
    let result = run();
    let seconds = begun.elapsed().as_secs_f64();
    match &result {
        Ok(_) => say(&format!("    {name}: done in {seconds:.1} s")),
        Err(error) => say(&format!("    {name}: FAILED after {seconds:.1} s: {error:#}")),
    }
    result.with_context(|| format!("step `{name}`"))
}

/// Runs a command whose output is shown as it comes.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{words}`"))?;
    if !status.success() {
        bail!("`{words}` failed ({status})");
    }
    Ok(())
}
