//! Step 1: a provider's data is sealed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dejima_lab::people::{ADMIN, OFFICE, PROVIDER};
use dejima_lab::{ToStderr, dicom};
use serde_json::Value;

use super::screen::{says, took};
use super::{Story, example, items, text};
use crate::step::shown;
use crate::up::{INTAKE, PROVIDER_SPACE};

/// The dataset that lies in several shards, and the size that makes it so.
pub(super) const SMALL: &str = "ct-mr-small";
const SHARD: &str = "400000";

impl Story<'_> {
    pub(super) fn data_is_sealed(&mut self) -> Result<()> {
        self.chapter(1, "A provider's data is sealed")?;
        self.provider_space()?;
        let root = self.platform.sources(INTAKE)?.join(PROVIDER_SPACE);
        for name in ["ct-mr", SMALL] {
            copy(&dicom::images(&ToStderr)?, &root.join(name))?;
        }
        let already = !self.versions("ct-mr").is_empty();
        let begun = Instant::now();
        for name in ["usagepolicy-story.yaml", "usagepolicy-open.yaml", "dataset-story.yaml"] {
            self.apply(&example(name, &[])?)?;
        }
        let first = self.sealed("ct-mr", 1)?;
        let digest = text(&first, "/digest");
        let count = |field: &str| first.get(field).and_then(Value::as_u64).unwrap_or_default();
        took(
            &format!(
                "{} CT and MR files, {:.1} MB, sealed {}as {}",
                count("files"),
                megabytes(count("bytes")),
                if already { "before " } else { "" },
                digest.get(..19).unwrap_or_default()
            ),
            begun,
        )?;

        let keys = self.shard_keys()?;
        let begun = Instant::now();
        let second = self.again("ct-mr")?;
        if text(&second, "/digest") != digest || self.shard_keys()? != keys {
            bail!("the same files gave another digest, or another key");
        }
        took("the same files again: the same digest, no new shard, no new key", begun)?;

        let begun = Instant::now();
        let small = [
            ("name: ct-mr,", format!("name: {SMALL},")),
            ("path: ct-mr}", format!("path: {SMALL}}}, shardBytes: {SHARD}")),
            ("policyRef: ct-mr-2026", "policyRef: open-2026".to_owned()),
        ];
        let small: Vec<(&str, &str)> = small.iter().map(|(from, to)| (*from, to.as_str())).collect();
        self.apply(&example("dataset-story.yaml", &small)?)?;
        let first = self.latest(SMALL, 1)?;
        let shards = items(&first, "/shards");
        took(&format!("in shards of at most 400 kB: {} shards, one tree", shards.len()), begun)?;
        let begun = Instant::now();
        change_one(&root.join(SMALL))?;
        let second = self.again(SMALL)?;
        let shared = items(&second, "/shards").iter().filter(|id| shards.contains(id)).count();
        if shards.len() < 3 || shared + 1 != shards.len() {
            bail!("of {} shards {shared} are shared by a version with one file changed", shards.len());
        }
        took(&format!("one file changed: {shared} of {} shards are shared", shards.len()), begun)?;

        for name in ["ct-mr", SMALL] {
            self.vouch(name)?;
        }
        says("the office vouches for the platform's approval and the agreement")?;
        self.shows(PROVIDER, &["get", "datasets", "-n", PROVIDER_SPACE])
    }

    fn provider_space(&self) -> Result<()> {
        let world = &self.platform.world;
        if world.run(ADMIN, &["get", "namespace", PROVIDER_SPACE]).accepted {
            return Ok(());
        }
        let bindings = [
            ("dejima-provider", "dejima.dev/provider-jichi"),
            // Who accepts terms reads them first.
            ("dejima-reviewer", "dejima.dev/tenant-osaka"),
            ("dejima-reviewer", "dejima.dev/tenant-kyoto"),
        ];
        Ok(world.namespace(PROVIDER_SPACE, &bindings)?)
    }

    pub(super) fn apply(&self, manifest: &str) -> Result<()> {
        // Where it is there already, this changes nothing: what people write is kept.
        self.platform.world.apply(PROVIDER, manifest).ok().map(drop).map_err(Into::into)
    }

    fn versions(&self, name: &str) -> Vec<Value> {
        let dataset = self.platform.world.get(PROVIDER_SPACE, "dataset", name).unwrap_or_default();
        items(&dataset, "/status/versions")
    }

    pub(super) fn sealed(&self, name: &str, version: u64) -> Result<Value> {
        let find = || {
            let number = |found: &Value| found.get("version").and_then(Value::as_u64);
            self.versions(name).into_iter().find(|found| number(found) == Some(version))
        };
        self.awaits(&format!("version {version} of {name}"), 120, || find().is_some())?;
        find().context("a sealed version stays")
    }

    /// The newest version, once there are so many.
    fn latest(&self, name: &str, at_least: u64) -> Result<Value> {
        self.sealed(name, at_least)?;
        let number = |found: &Value| found.get("version").and_then(Value::as_u64).unwrap_or_default();
        let newest = self.versions(name).into_iter().max_by_key(number);
        newest.context("a sealed version stays")
    }

    /// Raises the revision and waits for the version that comes of it.
    fn again(&self, name: &str) -> Result<Value> {
        let dataset = self.platform.world.get(PROVIDER_SPACE, "dataset", name)?;
        let revision = dataset.pointer("/spec/revision").and_then(Value::as_u64).unwrap_or(1) + 1;
        let patch = format!(r#"[{{"op":"add","path":"/spec/revision","value":{revision}}}]"#);
        self.platform.world.patch(PROVIDER, PROVIDER_SPACE, "dataset", name, &patch).ok()?;
        self.sealed(name, revision)
    }

    fn shard_keys(&self) -> Result<usize> {
        Ok(self.platform.keys.run(&["list", "transit/keys"], None)?.matches("shard-").count())
    }

    pub(super) fn vouch(&self, name: &str) -> Result<()> {
        let mountable = || self.platform.world.condition(PROVIDER_SPACE, "dataset", name, "Mountable").0 == "True";
        if mountable() {
            return Ok(());
        }
        let reference = format!("{PROVIDER_SPACE}/{name}");
        for claim in ["approval", "agreement"] {
            self.dejima(OFFICE, &["attest", "dataset", &reference, claim])?;
        }
        self.awaits(&format!("{name} mountable"), 30, mountable)
    }
}

fn megabytes(bytes: u64) -> f64 {
    // Enough for a figure with one digit behind the point.
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    shown(Command::new("cp").arg("-r").arg(from).arg(to))
}

/// Changes the last byte of one file.
fn change_one(folder: &Path) -> Result<()> {
    let path = super::inside::digests(folder)?.into_keys().next().context("a dataset has files")?;
    let path = folder.join(path);
    let mut bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    fs::write(&path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}
