//! `cargo xtask test`: every check and test, in the order in which a failure is cheapest to find.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::{say, shown, step};
use crate::{codegen, tidy};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run(all: bool) -> Result<()> {
    let root = codegen::root()?;
    let cargo = || {
        let mut command = Command::new("cargo");
        command.current_dir(&root);
        command
    };
    step("what must be there", tools)?;
    step("format", || shown(cargo().args(["fmt", "--all", "--check"])))?;
    step("tidy", tidy::run)?;
    step("generated files are fresh", || codegen::run(true))?;
    step("lints", || {
        shown(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    step("licences, sources, duplicates", || {
        let deny = cargo_deny()?;
        shown(Command::new(deny).current_dir(&root).args(["check", "bans", "licenses", "sources"]))
    })?;
    step("unit and component tests", || {
        shown(cargo().args(["test", "--quiet", "--workspace", "--exclude", "dejima-tests"]))
    })?;
    step("the binary, with the seam for faults", || {
        shown(cargo().args(["build", "--quiet", "--package", "dejima", "--features", "faults"]))
    })?;
    let mut tests = cargo();
    tests.args(["test", "--package", "dejima-tests"]);
    if all {
        // tests/e2e/matrix.rs: everything instead of a sample.
        tests.env("DEJIMA_TEST_ALL", "1");
    } else {
        // tests/e2e/recover_real.rs: a guest that boots for each case takes minutes.
        tests.args(["--", "--skip", "on_real_parts"]);
    }
    step("end-to-end tests", || shown(&mut tests))?;
    if let Some(summary) = faults()? {
        say(&format!("fault matrices:\n{summary}"));
    }
    say("all steps passed");
    Ok(())
}

/// What the fault matrices of the latest run came to, as it lies in that run's directory.
fn faults() -> Result<Option<String>> {
    let runs = dejima_lab::cache::root().join("runs");
    let mut latest = None;
    for run in std::fs::read_dir(&runs).with_context(|| format!("cannot read `{}`", runs.display()))? {
        let path = run?.path().join("faults.txt");
        if let Ok(written) = path.metadata().and_then(|data| data.modified()) {
            latest = latest.max(Some((written, path)));
        }
    }
    latest
        .map(|(_, path)| std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display())))
        .transpose()
}

/// Installs what is missing, and says what. What the lab needs of Debian is the lab's to say.
fn tools() -> Result<()> {
    dejima_lab::packages::install(&dejima_lab::ToStderr).context("cannot install what the tests need")?;
    shown(Command::new("go").arg("version")).context("Go is needed to build the Kubernetes control plane: install the package golang")
}

/// The program cargo-deny, of one version, built once into the user's cache.
fn cargo_deny() -> Result<PathBuf> {
    let home = dejima_lab::cache::root().join(format!("cargo-deny-{CARGO_DENY}"));
    let program = home.join("bin/cargo-deny");
    if !program.exists() {
        say(&format!("    building cargo-deny {CARGO_DENY} (once)"));
        let version = format!("cargo-deny@{CARGO_DENY}");
        let mut install = Command::new("cargo");
        install
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(&home)
            .arg(version)
            .env_remove("CARGO_TARGET_DIR");
        shown(&mut install)?;
    }
    Ok(program)
}
