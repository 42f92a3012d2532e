//! `dejima doctor`: what this machine lacks to be a host, each with its remedy.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use dejima_crds::text::Language;
use dejima_hostd::doctor::{Finding, Grade, Roles, judge, look};

use crate::print;

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// It runs machines
    Machines,
    /// It seals datasets
    Intake,
}

/// What is looked at.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// What the host is to do; both, where absent
    #[arg(long, value_enum)]
    role: Vec<Role>,
    /// Where the key server answers
    #[arg(long, env = "DEJIMA_KEYS")]
    keys: Option<String>,
    /// Where the platform's API answers
    #[arg(long, env = "DEJIMA_API")]
    api: Option<String>,
    /// libvirt's address
    #[arg(long, env = "DEJIMA_LIBVIRT", default_value = "qemu:///system")]
    libvirt: String,
    /// The directory in memory for seeds and maps of machines
    #[arg(long, env = "DEJIMA_RUN", default_value = "/run/dejima")]
    run: PathBuf,
}

/// Looks, and says; an error where this machine is no host as it is.
pub(crate) async fn run(arguments: DoctorArguments, lang: Language) -> Result<()> {
    let does = |role| arguments.role.is_empty() || arguments.role.contains(&role);
    let roles = Roles {
        machines: does(Role::Machines),
        intake: does(Role::Intake),
    };
    let addresses = [("key-server", arguments.keys), ("api", arguments.api)];
    let addresses = addresses.into_iter().filter_map(|(name, address)| Some((name, address?))).collect();
    let found = judge(&look(roles, &arguments.libvirt, &arguments.run, addresses).await);
    for finding in &found {
        print(&line(finding, lang))?;
    }
    match found.iter().filter(|finding| finding.grade == Grade::Lacking).count() {
        0 => Ok(()),
        lacking => match lang {
            Language::Ja => bail!("このマシンはホストになれない: {lacking} 件"),
            Language::En => bail!("this machine cannot be a host yet: {lacking} to mend"),
        },
    }
}

fn line(finding: &Finding, lang: Language) -> String {
    let grade = match (finding.grade, lang) {
        (Grade::Good, Language::Ja) => "良",
        (Grade::Good, Language::En) => "good",
        (Grade::Advice, Language::Ja) => "助言",
        (Grade::Advice, Language::En) => "advice",
        (Grade::Lacking, Language::Ja) => "不足",
        (Grade::Lacking, Language::En) => "lacking",
    };
    let said = format!("{grade:<8}{:<12}{}", finding.about, finding.found.get(lang));
    match finding.remedy.get(lang) {
        "" => said,
        remedy => format!("{said}\n{:20}-> {remedy}", ""),
    }
}
