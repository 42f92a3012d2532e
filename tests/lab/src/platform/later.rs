//! A platform that stays after the process that started it: found again, and ended whole.

use std::path::Path;
use std::time::Duration;

use super::{Platform, Setup, parts};
use crate::children::Running;
use crate::host::STATE;
use crate::run::{Error, file};
use crate::{Binaries, Host, KeyServer, World, control_plane, key_server};

/// The hosts of a platform, by name.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Those that run machines, in namespaces of their own.
    pub machines: &'a [&'a str],
    /// The others.
    pub others: &'a [&'a str],
}

impl Names<'_> {
    /// The parts of ours, in the order in which they are stopped, and whether each runs inside a host.
    fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        let inside = self.machines.iter().map(|name| (*name, true));
        let others = self.others.iter().map(|name| (*name, false));
        inside.chain(others).chain([("operator", false), (parts::API, false)])
    }
}

fn part(setup: &Setup, name: &str, inside: bool) -> Option<Running> {
    let running = Running::again(name, &setup.dir.join(format!("{name}.log")))?;
    Some(if inside { running.behind() } else { running })
}

impl Platform {
    /// The platform that an earlier process started to stay; nothing where any part of it runs no more.
    pub fn again(binaries: &Binaries, setup: Setup, names: Names<'_>) -> Option<Self> {
        let mut platform = Self {
            running: std::collections::BTreeMap::new(),
            hosts: std::collections::BTreeMap::new(),
            keys: KeyServer::again(binaries, &setup.dir.join("keys"))?,
            world: World::again(binaries, &setup.dir, &setup.people)?,
            api: std::fs::read_to_string(setup.dir.join(parts::ADDRESS)).ok()?,
            setup,
            namespaces: std::collections::BTreeMap::new(),
        };
        for name in names.machines {
            let host = Host::again(&platform.setup.name, name)?;
            platform.hosts.insert((*name).to_owned(), host);
        }
        for (name, inside) in names.parts() {
            platform.running.insert(name.to_owned(), part(&platform.setup, name, inside)?);
        }
        Some(platform)
    }
}

/// Ends what there is of a platform that was started to stay, and removes its directories. What is not there need not be ended.
pub fn end(setup: &Setup, names: Names<'_>) -> Result<(), Error> {
    let patience = Duration::from_secs(10);
    for (name, inside) in names.parts() {
        if let Some(mut running) = part(setup, name, inside) {
            running.stop(patience)?;
        }
    }
    for name in names.machines {
        if let Some(host) = Host::again(&setup.name, name) {
            host.remove()?;
        }
    }
    let engines = control_plane::PARTS
        .into_iter()
        .map(|(name, log)| (name, setup.dir.join(log)))
        .chain([(key_server::PART, setup.dir.join("keys").join(key_server::LOG))]);
    for (name, log) in engines {
        if let Some(mut running) = Running::again(name, &log) {
            running.stop(patience)?;
        }
    }
    for gone in [setup.dir.clone(), Path::new(STATE).join(&setup.name)] {
        if gone.exists() {
            file("remove", &gone, std::fs::remove_dir_all(&gone))?;
        }
    }
    // Another platform may still use it. What hosts made as places for their mounts (`/run/dejima`) stays: removing such a
    // directory takes the mounts of every other host on this machine away with it.
    let _ = std::fs::remove_dir(STATE);
    Ok(())
}
