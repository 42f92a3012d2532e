//! Step 6: access ends: by revocation, and by itself.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use dejima_lab::people::PROVIDER;
use dejima_lab::run::succeed;
use dejima_lab::{Agent, host};
use serde_json::{Value, json};

use super::inside::{digests, digests_inside, domain};
use super::screen::{refused, says, took};
use super::seal::SMALL;
use super::{Story, Tenant, text};
use crate::up::{INTAKE, PROVIDER_SPACE};

/// Reads the largest file past the cache again and again until that fails; how often it succeeded, and when it failed by the machine's clock.
/// The end of a small file may lie with its metadata, which is read through the cache whatever is asked for; the first block of a large one
/// does not.
const READ_ON: &str = "cd /data/ct-mr; f=$(find . -type f -exec ls -1S {} + | head -n 1); n=0; \
     while dd if=\"$f\" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null; do n=$((n + 1)); done; echo $n $(cat /proc/uptime)";

/// What is silent when a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silent {
    /// Operator and API.
    ControlPlane,
    /// And libvirt on the host.
    LibvirtToo,
}

impl Story<'_> {
    pub(super) fn access_ends(&mut self, whole: bool) -> Result<()> {
        self.chapter(6, "A grant is revoked; another's window ends by itself")?;
        let osaka = self.osaka.clone();
        self.revoked_while_read(&osaka)?;
        let back = json!([{"op": "remove", "path": "/spec/revoked"}]);
        let (_, back) = self.patch_grant(&osaka, &back)?;
        refused("a revocation is taken back", &back, "final")?;

        let kyoto = self.kyoto.clone();
        self.agree(&kyoto)?;
        self.mounted(&kyoto)?;
        self.with_disk(&kyoto)?;
        let begun = self.revoke(&kyoto)?;
        self.without_disk(&kyoto)?;
        took("a guest that does no hot-plug loses it just as fast", begun)?;
        if whole {
            self.delete(&kyoto)?;
            self.window_ends(Silent::LibvirtToo)?;
            let brief = self.kyoto.clone();
            self.delete(&brief)?;
            self.window_ends(Silent::ControlPlane)?;
        }
        Ok(())
    }

    /// Patches the grant of a project as the provider; when that began, and what came of it.
    fn patch_grant(&self, tenant: &Tenant, patch: &Value) -> Result<(Instant, dejima_lab::world::Answer)> {
        let grant = self.grant(tenant)?;
        let name = grant.rsplit('/').next().unwrap_or_default();
        let begun = Instant::now();
        let world = &self.platform.world;
        let answer = world.patch(PROVIDER, PROVIDER_SPACE, "accessgrant", name, &patch.to_string());
        Ok((begun, answer))
    }

    /// The provider revokes a project's grant; when that began.
    fn revoke(&self, tenant: &Tenant) -> Result<Instant> {
        let patch = json!([{"op": "add", "path": "/spec/revoked", "value": {"by": PROVIDER, "reason": "the story"}}]);
        let (begun, answer) = self.patch_grant(tenant, &patch)?;
        answer.ok()?;
        Ok(begun)
    }

    fn revoked_while_read(&self, tenant: &Tenant) -> Result<()> {
        let agent = self.agent()?;
        let reader = agent.clone();
        let reading = std::thread::spawn(move || reader.run(READ_ON, 60));
        // Some reads succeed before: they are the control.
        std::thread::sleep(Duration::from_secs(1));
        let clock = uptime(&agent.succeed("cat /proc/uptime", 10)?)?;
        let looked = Instant::now();
        let begun = self.revoke(tenant)?;
        let (given, taken) = (begun.saturating_duration_since(looked), looked.elapsed());
        let ran = reading.join().ok().context("the reader ended badly")??;
        let (reads, failed) = ran.output.split_once(' ').context("the reader counts")?;
        if reads == "0" {
            bail!("the control: nothing could be read before either");
        }
        // The machine's clock was read before its answer was here: what is said is rather too much than too little.
        let failed = uptime(failed)? - clock;
        let after = |moment: Duration| ((failed - moment.as_secs_f64()) * 1000.0).max(0.0);
        says(&format!(
            "in the machine: {reads} uncached reads succeed; the next one fails {:.0} ms after the order was given, {:.0} ms after it was taken",
            after(given),
            after(taken)
        ))?;
        self.without_disk(tenant)?;
        agent.succeed("touch /scratch/goes-on && sync", 10)?;
        took("its disk is gone, and the rest goes on: the volume is written", begun)?;
        self.shows(tenant.lead, &["get", "isolatedprojects", "-n", &tenant.space])
    }

    /// The host that a project is on.
    pub(super) fn host_of(&self, tenant: &Tenant) -> Result<&host::Host> {
        let name = text(&self.object(tenant), "/status/summary/host");
        Ok(self.platform.host(&name)?)
    }

    /// Whether the machine of a project has a shard attached, as its QEMU tells.
    fn has_disk(&self, tenant: &Tenant) -> Result<bool> {
        let host = self.host_of(tenant)?;
        let listed = host.ask(&["domblklist", &domain(host)?, "--details"], None)?;
        Ok(listed.contains("/fetched/"))
    }

    fn with_disk(&self, tenant: &Tenant) -> Result<()> {
        if self.has_disk(tenant)? {
            return Ok(());
        }
        bail!("the control: {} has no disk of the dataset before either", tenant.reference())
    }

    fn without_disk(&self, tenant: &Tenant) -> Result<()> {
        self.awaits("the machine without the disk", 30, || {
            self.has_disk(tenant).is_ok_and(|there| !there)
        })
    }

    /// A window ends by itself, whoever is silent.
    fn window_ends(&mut self, silent: Silent) -> Result<()> {
        let brief = Tenant {
            project: if silent == Silent::LibvirtToo { "brief" } else { "briefer" },
            image: "probe",
            dataset: SMALL,
            ..self.kyoto.clone()
        };
        // A whole second, long enough for the machine to come up before it.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock stands before 1970")?;
        let seconds = now.as_secs() + 60;
        let end = Instant::now() + Duration::from_secs(seconds).saturating_sub(now);
        let words = ["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"];
        let until = succeed(Command::new("date").args(words), None)?;
        let until = until.trim();
        self.create(&brief, &[("until: \"2027-03-31\"", &format!("until: \"{until}\""))])?;
        let name = self.platform.ready(&brief.space, brief.project, 45)?;
        self.mounted(&brief)?;
        if silent == Silent::ControlPlane {
            let agent = self.look_into(&name)?;
            self.one_tree(&agent, &brief)?;
        }
        for part in ["operator", "dejima-api"] {
            self.platform.stop(part)?;
        }
        self.with_disk(&brief)?;
        let host = self.platform.host(&name)?;
        let machine = domain(host)?;
        if silent == Silent::LibvirtToo {
            host.stop_libvirt(true)?;
        }
        std::thread::sleep(end.saturating_duration_since(Instant::now() + Duration::from_secs(1)));
        let late = || Instant::now().saturating_duration_since(end).as_millis();
        if silent == Silent::LibvirtToo {
            if host.domain_pid(&machine).is_none() {
                bail!("the control: the machine does not run before the end");
            }
            self.awaits("the end of the machine", 60, || host.domain_pid(&machine).is_none())?;
            says(&format!(
                "with operator, API and libvirt silent: a second before {until} the machine runs, {} ms after it is ended",
                late()
            ))?;
            self.platform.host_mut(&name)?.start_libvirt()?;
        } else {
            self.with_disk(&brief)?;
            self.without_disk(&brief)?;
            says(&format!(
                "with operator and API silent: a second before {until} the disks are there, {} ms after they are gone",
                late()
            ))?;
        }
        self.revive()?;
        self.kyoto = brief;
        Ok(())
    }

    /// A dataset of several shards is one tree in the machine.
    fn one_tree(&self, agent: &Agent, tenant: &Tenant) -> Result<()> {
        let begun = Instant::now();
        let source = digests(&self.platform.sources(INTAKE)?.join(PROVIDER_SPACE).join(tenant.dataset))?;
        self.files_inside(agent, source.len())?;
        if digests_inside(agent, "/data/ct-mr")? != source {
            bail!("the machine of {} does not see the files of the source", tenant.reference());
        }
        took(
            &format!("in {}: {} files of several shards are one tree", tenant.reference(), source.len()),
            begun,
        )
    }
}

/// The first of the two numbers in /proc/uptime.
fn uptime(text: &str) -> Result<f64> {
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().with_context(|| format!("`{text}` is no uptime"))
}
