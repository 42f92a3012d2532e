//! `cargo xtask bench NAME`: figures, taken with the binary as it is released.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::codegen::root;
use crate::step::{shown, step};

/// Which bench, and how long.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What is measured
    name: Name,
    /// A few rounds, to see that it works
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Projects, data that comes and goes, sealing, memory: beside the same by hand
    Provision,
}

/// Builds what is measured, and measures. Nothing else should run on the machine meanwhile.
pub(crate) fn run(arguments: &BenchArguments) -> Result<()> {
    let Name::Provision = arguments.name;
    let root = root()?;
    let cargo = || {
        let mut command = Command::new("cargo");
        command.current_dir(&root);
        command
    };
    step("packages", || Ok(dejima_lab::packages::install(&dejima_lab::ToStderr)?))?;
    step("the binary dejima, as it is released", || {
        shown(cargo().args(["build", "--quiet", "--release", "--package", "dejima"]))
    })?;
    let metadata = cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.context("cannot run cargo")?.stdout)?;
    let Some(target) = metadata.get("target_directory").and_then(serde_json::Value::as_str) else {
        bail!("cargo does not say where it builds");
    };
    step("figures", || {
        let mut bench = cargo();
        bench.args([
            "bench",
            "--quiet",
            "--package",
            "dejima-tests",
            "--bench",
            "bench",
            "--profile",
            "dev",
        ]);
        bench.env("DEJIMA_BIN", format!("{target}/release/dejima"));
        if arguments.short {
            bench.env("DEJIMA_BENCH_SHORT", "1");
        }
        shown(&mut bench)
    })
}
