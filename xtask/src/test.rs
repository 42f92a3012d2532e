//! `cargo xtask test`: every check and test, in the order in which a failure is cheapest to find.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::{say, shown, step};
use crate::{codegen, tidy};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
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
    step("end-to-end tests", || shown(cargo().args(["test", "--package", "dejima-tests"])))?;
    say("all steps passed");
    Ok(())
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
