//! The one front door: `cargo xtask up | down | test | bench | codegen`.

mod bench;
mod codegen;
mod consent;
mod step;
mod story;
mod test;
mod tidy;
mod up;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Builds, runs and tests Dejima")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a platform on this machine that stays, and shows the story on it
    Up(up::UpArguments),
    /// Ends that platform; leaves nothing behind but what was built and fetched
    Down(up::DownArguments),
    /// Writes what is generated: the resource definitions in the chart
    Codegen {
        /// Changes nothing; fails where something is stale
        #[arg(long)]
        check: bool,
    },
    /// Runs every check and test; installs what they need
    Test {
        /// Fault matrices whole, and not a sample of each
        #[arg(long)]
        all: bool,
    },
    /// Measures, beside a rival in the same run: a table, and a line of JSON
    Bench(bench::BenchArguments),
    /// Runs the checks of the repository itself: walls, promises, what must not stand in it
    Tidy,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up(arguments) => up::up(arguments),
        Command::Down(arguments) => up::down(arguments),
        Command::Codegen { check } => codegen::run(check),
        Command::Test { all } => test::run(all),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Tidy => tidy::run(),
    }
}
