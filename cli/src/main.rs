//! The door: the one binary `dejima`. It wires the rest and decides nothing.
//!
//! Under the name `kubectl-dejima` the same binary is a kubectl plugin: everything it does for people, kubectl can do too.

mod client;
mod console;
mod dial;
mod doctor;
mod door;
mod explain;
mod gate;
mod ledger;
mod listen;
mod people;
mod receipt;
mod roles;
mod words;

use std::io::Write as _;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

/// A private cloud for medical AI.
#[derive(Debug, Parser)]
#[command(name = "dejima", version, about)]
struct Arguments {
    /// The kubeconfig to use; where absent, KUBECONFIG or the usual places
    #[arg(long, global = true, env = "KUBECONFIG")]
    kubeconfig: Option<std::path::PathBuf>,
    /// The language of answers
    #[arg(long, global = true, value_enum)]
    lang: Option<words::Lang>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the resource definitions
    Crd,
    /// Runs operator and API in one process; hosts run their own agents
    Serve(roles::ServeArguments),
    /// Runs the controllers
    Operator(roles::OperatorArguments),
    /// Runs the API, which holds the ledger
    Api(roles::ApiArguments),
    /// Runs the agent of one host
    Hostd(Box<roles::HostdArguments>),
    /// Says in plain words what is waiting for what, and whose turn it is
    #[command(subcommand)]
    Explain(explain::What),
    /// Reviews a request, under your own login
    #[command(subcommand)]
    Review(people::ReviewCommand),
    /// Accepts the terms of a dataset, under your own login
    #[command(subcommand)]
    Terms(people::TermsCommand),
    /// Vouches for one claim, exactly as it stands, under your own login
    Attest(people::AttestArguments),
    /// Acts on a grant, under your own login
    #[command(subcommand)]
    Grant(people::GrantCommand),
    /// Says what this machine lacks to be a host, each with its remedy
    Doctor(doctor::DoctorArguments),
    /// Prints what a shell completes for this program
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    Man,
    /// A machine's console, for effective members of its project
    Console(console::ConsoleArguments),
    /// Reads recordings of visits
    #[command(subcommand)]
    Recording(console::RecordingCommand),
    /// Checks receipts
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
}

/// Prints one line of an answer.
fn print(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

#[tokio::main]
async fn main() -> Result<()> {
    // One TLS provider for everything in this process; a second call would be an error that changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("DEJIMA_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let lang = words::language(arguments.lang);
    let config = arguments.kubeconfig;
    match arguments.command {
        Command::Crd => {
            for definition in dejima_crds::all() {
                print(&format!("---\n{}", serde_yaml::to_string(&definition)?.trim_end()))?;
            }
            Ok(())
        }
        Command::Serve(arguments) => roles::serve(arguments).await,
        Command::Operator(arguments) => roles::operator(config, arguments).await,
        Command::Api(arguments) => roles::api(config, arguments).await,
        Command::Hostd(arguments) => roles::hostd(config, *arguments).await,
        Command::Explain(what) => explain::run(config, what, lang).await,
        Command::Review(command) => people::review(config, command).await,
        Command::Terms(command) => people::terms(config, command).await,
        Command::Attest(arguments) => people::attest(config, arguments).await,
        Command::Grant(command) => people::grant(config, command).await,
        Command::Doctor(arguments) => doctor::run(arguments, lang).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "dejima", &mut std::io::stdout());
            Ok(())
        }
        Command::Man => Ok(clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout())?),
        Command::Console(arguments) => console::run(roles::config(config).await?, arguments).await,
        Command::Recording(command) => console::read(command),
        Command::Receipt(command) => receipt::run(command, lang),
    }
}
