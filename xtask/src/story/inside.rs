//! A look into the running machine, and step 4: what the machine can do and what it cannot.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dejima_lab::{Agent, Host};

use super::outside::{LISTED, Site};
use super::screen::{says, took};
use super::{Story, text};

/// What is told to the machine and written in it, where nobody else may read it again.
pub(super) const CANARY: &str = "canary-of-the-story-7f3a91c2";

/// Where machines of clouds ask who they are.
const METADATA: &str = "169.254.169.254";

/// Path and SHA-256 of every file below a directory, by the program of that name.
pub(super) fn digests(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut find = Command::new("find");
    find.current_dir(folder).args([".", "-type", "f", "-exec", "sha256sum", "{}", "+"]);
    let listed = dejima_lab::run::succeed(&mut find, None)?;
    Ok(listed.lines().filter_map(entry).collect())
}

/// The same in the machine.
pub(super) fn digests_inside(agent: &Agent, folder: &str) -> Result<BTreeMap<String, String>> {
    let listed = agent.succeed(&format!("cd {folder} && find . -type f -exec sha256sum {{}} +"), 60)?;
    Ok(listed.lines().filter_map(entry).collect())
}

fn entry(line: &str) -> Option<(String, String)> {
    line.split_once("  ./").map(|(digest, path)| (path.to_owned(), digest.to_owned()))
}

/// The only machine that runs on a host: a host is held by one project, and the story's project has one machine.
pub(super) fn domain(host: &Host) -> Result<String> {
    let listed = host.ask(&["list", "--name"], None)?;
    let mut names = listed.split_whitespace();
    match (names.next(), names.next()) {
        (Some(one), None) => Ok(one.to_owned()),
        _ => bail!("on {} there is not one machine: `{}`", host.name(), listed.trim()),
    }
}

impl Story<'_> {
    /// A look into the only machine of a host.
    pub(super) fn look_into(&self, host: &str) -> Result<Agent> {
        let host = self.platform.host(host)?;
        let agent = Agent::new(&host.uri(), &domain(host)?);
        agent.plug_in()?;
        agent.ready(60)?;
        Ok(agent)
    }

    /// Waits until a machine sees so many files of its dataset.
    pub(super) fn files_inside(&self, agent: &Agent, count: usize) -> Result<()> {
        let command = format!("[ $(find /data/ct-mr -type f | wc -l) = {count} ]");
        self.awaits("the data in the running machine", 60, || {
            agent.run(&command, 10).is_ok_and(|ran| ran.is_success())
        })
    }

    pub(super) fn inside_the_machine(&mut self) -> Result<()> {
        self.chapter(4, "In the machine, and on the host's disk")?;
        let agent = self.agent()?.clone();
        let begun = Instant::now();
        agent
            .succeed(&format!("grep -q {CANARY} /run/told"), 10)
            .context("the control: user data is obeyed")?;
        agent.succeed(&format!("echo {CANARY} > /scratch/kept && sync"), 10)?;
        let before = agent.succeed("cat /proc/sys/kernel/random/boot_id", 10)?;
        // The agent goes with the machine: what it answers says nothing.
        let _ = agent.run("reboot", 5);
        self.awaits("the machine after its reboot", 90, || {
            agent
                .succeed("cat /proc/sys/kernel/random/boot_id", 5)
                .is_ok_and(|after| after != before)
        })?;
        self.awaits("the volume after the reboot", 30, || {
            agent.succeed("cat /scratch/kept", 5).is_ok_and(|kept| kept == CANARY)
        })?;
        self.awaits("the dataset after the reboot", 30, || agent.succeed("ls /data/ct-mr/*", 5).is_ok())?;
        took("after a reboot the volume and the dataset are there again", begun)?;
        agent.succeed(&format!("echo {CANARY} > /run/in-memory"), 10)?;
        nobody_answers(&agent, self.host_of(&self.osaka)?)?;
        self.nothing_is_readable()
    }

    /// What the machine wrote, and the key itself, are nowhere on the host's disk.
    fn nothing_is_readable(&self) -> Result<()> {
        let begun = Instant::now();
        let object = self.object(&self.osaka);
        let (uid, name) = (text(&object, "/metadata/uid"), text(&object, "/status/summary/host"));
        let host = self.platform.host(&name)?;
        let wrapped = self.platform.volumes(&name).join(&uid).join("work.key");
        let wrapped = std::fs::read_to_string(&wrapped).with_context(|| format!("cannot read `{}`", wrapped.display()))?;
        let key = self.volume_key(&uid, &wrapped)?;
        let control = host.dir().join("control");
        std::fs::write(&control, format!("{CANARY} {key}")).context("cannot write the control")?;
        let found = |word: &str| -> Result<Vec<String>> {
            let mut grep = Command::new("grep");
            grep.args(["-rlaF", "--", word]).arg(host.dir());
            // It fails where it finds nothing.
            let output = dejima_lab::run::finish(&mut grep, None)?;
            Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
        };
        for (what, word) in [("what the machine was told and wrote", CANARY), ("the volume's key", key.as_str())] {
            let places = found(word)?;
            if places != [control.display().to_string()] {
                bail!("{what} is found on the host's disk, or the control is not: {places:?}");
            }
        }
        std::fs::remove_file(&control).context("cannot remove the control")?;
        took(
            "what it was told and wrote, and its key, are nowhere on the host's disk; in a control file they are found",
            begun,
        )
    }
}

pub(super) fn writing_fails(agent: &Agent) -> Result<()> {
    agent
        .succeed("touch /scratch/control", 10)
        .context("the control: a volume is writable")?;
    let refused = agent.run("touch /data/ct-mr/mark; cp /scratch/control /data/ct-mr/", 10)?;
    if refused.is_success() {
        bail!("the machine wrote into the dataset");
    }
    let said = refused.errors.lines().next().unwrap_or_default().to_owned();
    says(&format!("in the machine: writing fails ({said}); the volume beside it is writable"))
}

/// Addresses that answer the host itself do not answer the machine on it.
fn nobody_answers(agent: &Agent, host: &Host) -> Result<()> {
    let routes = agent.succeed("ip -o -4 addr show scope global | awk '{print $4}'", 10)?;
    let (own, _) = routes.split_once('/').context("the machine has an address")?;
    let (net, _) = own.rsplit_once('.').context("an IPv4 address")?;
    let _site = Site::behind(host)?;
    // Where a cloud has one, a service of the host's answers there.
    let metadata = [METADATA, "dev", "lo"];
    host.run(&[&["ip", "address", "replace"][..], &metadata].concat(), None)?;
    let gateway = format!("{net}.1");
    let mut answering = Vec::new();
    for address in [gateway.as_str(), METADATA, LISTED] {
        let ping = ["busybox", "ping", "-c", "1", "-W", "1", address];
        host.run(&ping, None)
            .with_context(|| format!("the control: {address} answers the host itself"))?;
        if agent.run(&format!("ping -c 1 -W 1 {address}"), 10)?.is_success() {
            answering.push(address);
        }
    }
    host.run(&[&["ip", "address", "del"][..], &metadata].concat(), None)?;
    if !answering.is_empty() {
        bail!("{} answers the machine", answering.join(", "));
    }
    says(&format!(
        "the machine is {own}; its gateway, a metadata service and a site outside answer the host, and not the machine"
    ))
}
