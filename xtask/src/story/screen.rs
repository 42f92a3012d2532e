//! What the story prints.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dejima_lab::world::Answer;

/// Prints a line.
pub(super) fn line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}

/// Says what was seen.
pub(super) fn says(what: &str) -> Result<()> {
    line(&format!("   - {what}"))
}

/// Says what was seen, and how long it took.
pub(super) fn took(what: &str, since: Instant) -> Result<()> {
    let seconds = since.elapsed().as_secs_f64();
    line(&format!("   - {what:<90} {seconds:>6.1} s"))
}

/// Shows a command of a login, and what it said.
pub(super) fn screen(command: &str, login: &str, text: &str) -> Result<()> {
    line(&format!("     {}$ {command}", login.split('@').next().unwrap_or(login)))?;
    text.trim_end().lines().try_for_each(|said| line(&format!("     {said}")))
}

/// Something must have been refused, for a reason; says so.
pub(super) fn refused(what: &str, answer: &Answer, because: &str) -> Result<()> {
    if answer.accepted || !answer.text.contains(because) {
        bail!(
            "{what}: this must be refused because `{because}`, and was not: {}",
            answer.text.trim()
        );
    }
    says(&format!("refused: {what}"))
}
