//! Steps 6, 7 and 8: access ends, the project ends, and everything is said in plain words.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use dejima_lab::people::PROVIDER;
use dejima_lab::run::succeed;
use serde_json::json;

use super::inside::domain;
use super::screen::{refused, says, took};
use super::{Story, Tenant, items, remembers, text};
use crate::up::PROVIDER_SPACE;

/// Reads the largest file past the cache again and again until that fails; how often it succeeded. The end of a small file may lie with
/// its metadata, which is read through the cache whatever is asked for; the first block of a large one does not.
const READ_ON: &str = "cd /data/ct-mr; f=$(find . -type f -exec ls -1S {} + | head -n 1); n=0; \
     while dd if=\"$f\" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null; do n=$((n + 1)); done; echo $n";

impl Story<'_> {
    pub(super) fn access_ends(&mut self, whole: bool) -> Result<()> {
        self.chapter(6, "A grant is revoked")?;
        let osaka = self.osaka.clone();
        self.revoked_while_read(&osaka)?;
        let grant = self.grant(&osaka)?;
        let name = grant.rsplit('/').next().unwrap_or_default();
        let back = json!([{"op": "remove", "path": "/spec/revoked"}]);
        let back = self
            .platform
            .world
            .patch(PROVIDER, PROVIDER_SPACE, "accessgrant", name, &back.to_string());
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
            self.window_ends()?;
        }
        Ok(())
    }

    /// The provider revokes a project's grant; when that began.
    fn revoke(&self, tenant: &Tenant) -> Result<Instant> {
        let grant = self.grant(tenant)?;
        let name = grant.rsplit('/').next().unwrap_or_default();
        let patch = json!([{"op": "add", "path": "/spec/revoked", "value": {"by": PROVIDER, "reason": "the story"}}]);
        let begun = Instant::now();
        self.platform
            .world
            .patch(PROVIDER, PROVIDER_SPACE, "accessgrant", name, &patch.to_string())
            .ok()?;
        Ok(begun)
    }

    fn revoked_while_read(&self, tenant: &Tenant) -> Result<()> {
        let Some(agent) = &self.agent else {
            let begun = self.revoke(tenant)?;
            self.awaits("the mount is gone", 30, || {
                text(&self.object(tenant), "/status/summary/datasets") == "0/1"
            })?;
            return took("revoked: the mount is gone", begun);
        };
        let reader = agent.clone();
        let reading = std::thread::spawn(move || (reader.run(READ_ON, 60), Instant::now()));
        // Some reads succeed before: they are the control.
        std::thread::sleep(Duration::from_secs(1));
        let begun = self.revoke(tenant)?;
        let told = begun.elapsed();
        let (ran, failed) = reading.join().ok().context("the reader ended badly")?;
        let reads: u32 = ran?.output.trim().parse().context("the reader counts")?;
        let gone = failed.saturating_duration_since(begun);
        if reads == 0 {
            bail!("the control: nothing could be read before either");
        }
        says(&format!(
            "in the machine: {reads} uncached reads succeed; the next one fails {} ms after the order was given, {} ms after it was taken",
            gone.as_millis(),
            gone.saturating_sub(told).as_millis()
        ))?;
        self.without_disk(tenant)?;
        agent.succeed("touch /scratch/goes-on && sync", 10)?;
        took("its disk is gone, and the rest goes on: the volume is written", begun)?;
        self.shows(tenant.lead, &["get", "isolatedprojects", "-n", &tenant.space])
    }

    /// Whether the machine of a project has a shard attached, as its QEMU tells.
    fn has_disk(&self, tenant: &Tenant) -> Result<bool> {
        let object = self.object(tenant);
        if remembers() {
            return Ok(text(&object, "/status/summary/datasets") == "1/1");
        }
        let host = self.platform.host(&text(&object, "/status/summary/host"))?;
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

    /// A window ends by itself, with operator and API stopped.
    fn window_ends(&mut self) -> Result<()> {
        let brief = Tenant {
            project: "brief",
            image: "probe",
            ..self.kyoto.clone()
        };
        // A whole second, a minute from now.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock stands before 1970")?;
        let seconds = now.as_secs() + 60;
        let end = Instant::now() + Duration::from_secs(seconds).saturating_sub(now);
        let until = succeed(
            Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]),
            None,
        )?;
        self.create(&brief, Some(until.trim()))?;
        self.platform.ready(&brief.space, brief.project, 45)?;
        self.agree(&brief)?;
        self.mounted(&brief)?;
        for part in ["operator", "dejima-api"] {
            self.platform.stop(part)?;
        }
        std::thread::sleep(end.saturating_duration_since(Instant::now() + Duration::from_secs(1)));
        if !remembers() {
            self.with_disk(&brief)?;
            self.without_disk(&brief)?;
            let late = Instant::now().saturating_duration_since(end).as_millis();
            says(&format!(
                "with operator and API stopped a window ends by itself: a second before {} the disk is there, {late} ms after it is gone",
                until.trim()
            ))?;
        }
        self.platform.start_api()?;
        self.platform.start_operator(None)?;
        self.kyoto = brief;
        Ok(())
    }

    /// A tenant's lead deletes the project and waits until it is gone.
    fn delete(&self, tenant: &Tenant) -> Result<()> {
        let words = ["delete", "isolatedproject", tenant.project, "-n", &tenant.space, "--timeout=60s"];
        self.platform.world.run(tenant.lead, &words).ok()?;
        Ok(())
    }

    pub(super) fn the_project_ends(&mut self) -> Result<()> {
        self.chapter(7, "The project is deleted")?;
        let osaka = self.osaka.clone();
        let object = self.object(&osaka);
        let (uid, host) = (text(&object, "/metadata/uid"), text(&object, "/status/summary/host"));
        let plan = self
            .platform
            .world
            .get(&format!("dejima-host-{host}"), "hostplan", &format!("project-{uid}"))?;
        let volume = items(&plan, "/status/items")
            .into_iter()
            .find(|item| text(item, "/item") == "volume/work")
            .context("the host says how the volume stands")?;
        let wrapped = format!("ciphertext={}", text(&volume, "/wrappedKey"));
        let path = format!("transit/decrypt/project-{uid}");
        let open = || self.platform.keys.run(&["write", "-field=plaintext", &path, &wrapped], None);
        open().context("the control: the key server opens the volume's key")?;
        let begun = Instant::now();
        self.delete(&osaka)?;
        took("machines, network, mounts and keys are gone, then the bytes", begun)?;
        if open().is_ok() {
            bail!("the key of a project that is gone still opens");
        }
        says("what the host kept of the volume's key opens no more: its bytes are noise")?;
        let held = self.platform.world.get("", "host", &host)?;
        if held.pointer("/status/heldBy").is_some_and(|by| !by.is_null()) {
            bail!("{host} is still held");
        }
        says(&format!("{host} is free"))?;
        self.agent = None;
        Ok(())
    }

    pub(super) fn in_plain_words(&mut self) -> Result<()> {
        self.chapter(8, "What waits for what, and whose turn it is")?;
        let kyoto = self.kyoto.clone();
        for lang in ["ja", "en"] {
            self.dejima_shows(kyoto.lead, &["explain", "project", &kyoto.reference(), "--lang", lang])?;
        }
        Ok(())
    }
}
