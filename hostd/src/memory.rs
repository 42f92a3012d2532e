//! Drivers that only remember: for fault injection and scale. Their world is a file that outlives a kill, as disks and
//! hypervisors do. They run nothing, and a host with them says so (`engine: memory`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dejima_crds::bounded::{Digest, Label, Uid, WrappedKey};
use dejima_crds::host::{Capacity, Engine, EngineKind};
use dejima_crds::host_plan::{DomainPlan, ProjectPlan, Segment, ShardPlan, VolumePlan};
use dejima_plan::Seen;
use dejima_plan::host::{DomainSeen, DomainState, MapEntry, NetworkSeen, VolumeSeen, definition, map_digest, segment_digest};
use dejima_plan::sweep::{Kind, Owned, Thing};
use serde::{Deserialize, Serialize};

use crate::driver::{Bell, Error, Machines, Network, PlainKey, Proof, Storage};
use crate::kept::write_whole;
use crate::network::{no_room, not_sealed, read};

/// The remembered world of one host.
#[derive(Clone, Debug)]
pub struct Memory {
    path: PathBuf,
    capacity: Capacity,
    kind: EngineKind,
    // Whether the networks are remembered here as well: then machines ask for them.
    networks: bool,
    lock: Arc<Mutex<()>>,
    // Projects whose network was proved in this life since rules were last reloaded: who starts again proves again.
    life: Arc<Mutex<BTreeSet<String>>>,
    bell: Bell,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct World {
    projects: BTreeMap<String, Things>,
    // Shards that were fetched, by the digest of the encrypted file and their serial.
    #[serde(default)]
    fetched: BTreeMap<String, Label>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Things {
    network: Option<NetworkSeen>,
    // What its rules are made from: two that clash are refused.
    #[serde(default)]
    segment: Option<Segment>,
    volumes: BTreeMap<String, VolumeSeen>,
    domains: BTreeMap<String, DomainSeen>,
    // The volumes that each machine was defined with: what it has when it is off.
    #[serde(default)]
    defined: BTreeMap<String, BTreeSet<Label>>,
    // Serials whose key was handed over: the keys themselves are nobody's to remember.
    given: BTreeSet<String>,
}

impl Things {
    fn is_empty(&self) -> bool {
        self.network.is_none() && self.volumes.is_empty() && self.domains.is_empty() && self.given.is_empty()
    }
}

impl Memory {
    /// A world in a file.
    pub fn new(dir: &Path, capacity: Capacity, kind: EngineKind) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|cause| Error::driver("make", dir.display().to_string(), cause))?;
        Ok(Self {
            path: dir.join("world.json"),
            capacity,
            kind,
            networks: true,
            lock: Arc::default(),
            life: Arc::default(),
            bell: Bell::default(),
        })
    }

    /// Machines and volumes that are remembered beside networks that are real: whether those stand is the plan's to ask.
    #[must_use]
    pub fn beside_real_networks(self) -> Self {
        Self { networks: false, ..self }
    }

    fn read(&self) -> Result<World, Error> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|cause| Error::driver("read", "the world", cause)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(World::default()),
            Err(error) => Err(Error::driver("read", "the world", error)),
        }
    }

    fn change_all<T>(&self, change: impl FnOnce(&mut World) -> Result<T, Error>) -> Result<T, Error> {
        let _held = self
            .lock
            .lock()
            .map_err(|_| Error::Missing("the world was lost in a panic".to_owned()))?;
        let mut world = self.read()?;
        let answer = change(&mut world)?;
        world.projects.retain(|_, things| !things.is_empty());
        let bytes = serde_json::to_vec_pretty(&world).map_err(|cause| Error::driver("write", "the world", cause))?;
        write_whole(&self.path, &bytes).map_err(|cause| Error::driver("write", "the world", cause))?;
        Ok(answer)
    }

    fn change<T>(&self, project: &Uid, change: impl FnOnce(&mut Things) -> Result<T, Error>) -> Result<T, Error> {
        self.change_all(|world| change(world.projects.entry(project.to_string()).or_default()))
    }

    /// Rules were reloaded: every proof on the host is void.
    fn reloaded(&self) {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn proved(&self, project: &Uid) -> bool {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).contains(project.as_str())
    }

    /// What of a kind is in the world, whoever's it is.
    fn list(&self, kind: Kind, list: impl Fn(&World, &str, &Things) -> Vec<Thing>) -> Owned {
        match self.read() {
            Ok(world) => Owned::found(world.projects.iter().flat_map(|(uid, things)| list(&world, uid, things))),
            Err(_) => Owned::unknown(kind),
        }
    }

    fn look<T>(&self, project: &Uid, look: impl FnOnce(&Things) -> Option<T>) -> Seen<T> {
        let Ok(world) = self.read() else { return Seen::Unknown };
        let things = world.projects.get(project.as_str());
        things.and_then(look).map_or(Seen::Absent, Seen::Present)
    }
}

fn domain<'a>(things: &'a mut Things, machine: &Label) -> Result<&'a mut DomainSeen, Error> {
    things
        .domains
        .get_mut(machine.as_str())
        .ok_or_else(|| Error::Missing(format!("there is no machine {machine}")))
}

/// How large volumes are: as remembered, and those that are real beside it as the plan says.
fn sizes<'a>(things: &Things, volumes: impl IntoIterator<Item = &'a VolumePlan>) -> BTreeMap<Label, u64> {
    let size = |volume: &VolumePlan| things.volumes.get(volume.name.as_str()).map_or(volume.bytes, |known| known.bytes);
    let one = |volume: &'a VolumePlan| (volume.name.clone(), size(volume));
    volumes.into_iter().map(one).collect()
}

#[async_trait]
impl Storage for Memory {
    async fn observe(&self, project: &Uid) -> Seen<Vec<VolumeSeen>> {
        self.look(project, |things| {
            (!things.volumes.is_empty()).then(|| things.volumes.values().cloned().collect())
        })
    }

    async fn keep_key(&self, project: &Uid, volume: &VolumePlan, wrapped: &WrappedKey) -> Result<(), Error> {
        self.change(project, |things| {
            let fresh = VolumeSeen {
                name: volume.name.clone(),
                bytes: 0,
                wrapped_key: None,
                formatted: false,
            };
            let known = things.volumes.entry(volume.name.to_string()).or_insert(fresh);
            if known.formatted {
                return Err(Error::Missing(format!(
                    "volume {} is formatted: another key would lose it",
                    volume.name
                )));
            }
            known.wrapped_key = Some(wrapped.clone());
            Ok(())
        })
    }

    async fn format(&self, project: &Uid, volume: &VolumePlan, _: &PlainKey) -> Result<(), Error> {
        self.change(project, |things| {
            let missing = || Error::Missing(format!("volume {} has no wrapped key: it could never be opened", volume.name));
            let known = things
                .volumes
                .get_mut(volume.name.as_str())
                .filter(|known| known.wrapped_key.is_some())
                .ok_or_else(missing)?;
            if !known.formatted {
                (known.formatted, known.bytes) = (true, volume.bytes);
            }
            Ok(())
        })
    }

    async fn grow(&self, project: &Uid, volume: &VolumePlan) -> Result<(), Error> {
        self.change(project, |things| {
            if let Some(known) = things.volumes.get_mut(volume.name.as_str()) {
                known.bytes = known.bytes.max(volume.bytes);
            }
            Ok(())
        })
    }

    async fn remove(&self, project: &Uid, name: &Label) -> Result<(), Error> {
        self.change(project, |things| {
            things.volumes.remove(name.as_str());
            Ok(())
        })
    }

    async fn list_owned(&self) -> Owned {
        self.list(Kind::Volumes, |_, uid, things| {
            let names = things.volumes.keys();
            names.map(|name| Thing::Volume(uid.into(), name.as_str().into())).collect()
        })
    }

    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        Err(Error::Missing(format!("no {} is ever swept from a pool", thing.word())))
    }
}

#[async_trait]
impl Network for Memory {
    async fn observe(&self, project: &Uid) -> Seen<NetworkSeen> {
        let proved = self.proved(project);
        self.look(project, |things| {
            let mut network = things.network.clone()?;
            network.proved = network.proved.filter(|rules| proved && *rules == network.rules);
            Some(network)
        })
    }

    async fn seal(&self, project: &Uid, segment: &Segment) -> Result<(), Error> {
        let closed = read(segment)?;
        let rules = segment_digest(segment);
        let reloaded = self.change_all(|world| {
            for (uid, things) in world.projects.iter().filter(|(uid, _)| *uid != project.as_str()) {
                if let Some(other) = things.segment.as_ref().map(read).transpose()?
                    && closed.clashes(&other)
                {
                    return Err(no_room(project, uid));
                }
            }
            let things = world.projects.entry(project.to_string()).or_default();
            let reloaded = things.network.as_ref().is_none_or(|network| network.rules != rules);
            if reloaded {
                things.network = Some(NetworkSeen { rules, proved: None });
            }
            things.segment = Some(segment.clone());
            Ok(reloaded)
        })?;
        if reloaded {
            self.reloaded();
        }
        Ok(())
    }

    async fn prove(&self, project: &Uid, segment: &Segment) -> Result<Proof, Error> {
        self.change(project, |things| {
            let network = things.network.as_mut().filter(|network| network.rules == segment_digest(segment));
            let network = network.ok_or_else(not_sealed)?;
            network.proved = Some(network.rules.clone());
            Ok(())
        })?;
        self.life.lock().unwrap_or_else(PoisonError::into_inner).insert(project.to_string());
        // Nothing was sent: a host that only remembers proves nothing, and says so with its numbers.
        Ok(Proof { refused: 0, passed: 0 })
    }

    async fn remove(&self, project: &Uid) -> Result<(), Error> {
        let removed = self.change(project, |things| {
            if !things.domains.is_empty() {
                return Err(Error::Missing("machines still have ports on this network".to_owned()));
            }
            things.segment = None;
            Ok(things.network.take().is_some())
        })?;
        if removed {
            self.reloaded();
        }
        Ok(())
    }

    async fn list_owned(&self) -> Owned {
        self.list(Kind::Networks, |_, uid, things| {
            things.network.iter().map(|_| Thing::Network(uid.into())).collect()
        })
    }

    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        let Thing::Network(uid) = thing else {
            return Err(Error::Missing(format!("no {} is a network", thing.word())));
        };
        Network::remove(self, uid).await
    }
}

#[async_trait]
impl Machines for Memory {
    async fn capacity(&self) -> Result<(Capacity, Engine), Error> {
        Ok((
            self.capacity.clone(),
            Engine {
                kind: self.kind,
                versions: BTreeMap::new(),
            },
        ))
    }

    async fn images(&self) -> Result<BTreeSet<Digest>, Error> {
        // It runs nothing, and needs nothing to boot.
        Ok(BTreeSet::new())
    }

    async fn observe(&self, project: &Uid) -> Seen<Vec<DomainSeen>> {
        self.look(project, |things| {
            (!things.domains.is_empty()).then(|| things.domains.values().cloned().collect())
        })
    }

    async fn define(&self, plan: &ProjectPlan, wanted: &DomainPlan) -> Result<(), Error> {
        self.change(&plan.of.uid, |things| {
            if self.networks && things.network.is_none() {
                return Err(Error::Missing("no machine without a sealed network".to_owned()));
            }
            let machine = wanted.machine.clone();
            let own = plan.volumes.iter().filter(|volume| volume.attach_to.as_ref() == Some(&machine));
            let own = sizes(things, own);
            let fresh = DomainSeen {
                machine,
                state: DomainState::Shutoff,
                definition: definition(plan, wanted),
                shards: BTreeSet::new(),
                volumes: own.clone(),
                map: None,
                answered: false,
                changed: false,
            };
            let names = own.into_keys().collect();
            things.defined.entry(wanted.machine.to_string()).or_insert(names);
            things.domains.entry(wanted.machine.to_string()).or_insert(fresh);
            Ok(())
        })
    }

    async fn give_key(&self, project: &Uid, serial: &Label, _: &PlainKey) -> Result<(), Error> {
        self.change(project, |things| {
            things.given.insert(serial.to_string());
            Ok(())
        })
    }

    async fn start_paused(&self, plan: &ProjectPlan, wanted: &DomainPlan) -> Result<(), Error> {
        self.change(&plan.of.uid, |things| {
            let defined = things.defined.get(wanted.machine.as_str()).cloned().unwrap_or_default();
            let own = sizes(things, plan.volumes.iter().filter(|volume| defined.contains(&volume.name)));
            let found = domain(things, &wanted.machine)?;
            if found.state == DomainState::Shutoff {
                (found.state, found.volumes) = (DomainState::Paused, own);
            }
            // The machine has them now: nobody else keeps them.
            for volume in plan
                .volumes
                .iter()
                .filter(|volume| volume.attach_to.as_ref() == Some(&wanted.machine))
            {
                things.given.remove(volume.serial.as_str());
            }
            Ok(())
        })
    }

    async fn resume(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.change(project, |things| {
            let stands = |network: &NetworkSeen| network.proved.as_ref() == Some(&network.rules);
            let proved = !self.networks || (self.proved(project) && things.network.as_ref().is_some_and(stands));
            let found = domain(things, machine)?;
            if !proved || found.state == DomainState::Shutoff {
                return Err(Error::Missing(format!(
                    "machine {machine} cannot run: it is off, or its network was not proved"
                )));
            }
            // Its guest does what it was told.
            (found.state, found.answered) = (DomainState::Running, found.map.is_some());
            Ok(())
        })
    }

    async fn fetch(&self, shard: &ShardPlan) -> Result<(), Error> {
        self.change_all(|world| {
            world.fetched.insert(shard.stored_digest.to_string(), shard.serial.clone());
            Ok(())
        })
    }

    async fn attach(&self, project: &Uid, machine: &Label, shard: &ShardPlan) -> Result<(), Error> {
        self.change_all(|world| {
            let things = world.projects.entry(project.to_string()).or_default();
            if !world.fetched.contains_key(shard.stored_digest.as_str()) {
                return Err(Error::Missing(format!("shard {} was not fetched", shard.id)));
            }
            if !things.given.remove(shard.serial.as_str()) {
                return Err(Error::Missing(format!("shard {} has no key", shard.id)));
            }
            domain(things, machine)?.shards.insert(shard.serial.clone());
            Ok(())
        })
    }

    async fn detach(&self, project: &Uid, machine: &Label, serial: &Label) -> Result<(), Error> {
        self.change(project, |things| {
            domain(things, machine)?.shards.remove(serial);
            Ok(())
        })
    }

    async fn attach_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error> {
        self.change(project, |things| {
            if !things.given.remove(volume.serial.as_str()) {
                return Err(Error::Missing(format!("volume {} has no key", volume.name)));
            }
            let has = |other: &DomainSeen| other.state != DomainState::Shutoff && other.volumes.contains_key(&volume.name);
            if things.domains.values().any(|other| other.machine != *machine && has(other)) {
                return Err(Error::Missing(format!("volume {} is in another machine", volume.name)));
            }
            let own = sizes(things, [volume]);
            domain(things, machine)?.volumes.extend(own);
            Ok(())
        })
    }

    async fn resize_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error> {
        self.change(project, |things| {
            let own = sizes(things, [volume]);
            let found = domain(things, machine)?;
            if !found.volumes.contains_key(&volume.name) {
                return Err(Error::Missing(format!("machine {machine} has no volume {}", volume.name)));
            }
            found.volumes.extend(own);
            Ok(())
        })
    }

    async fn detach_volume(&self, project: &Uid, machine: &Label, name: &Label) -> Result<(), Error> {
        self.change(project, |things| {
            domain(things, machine)?.volumes.remove(name);
            Ok(())
        })
    }

    async fn tell(&self, project: &Uid, machine: &Label, map: &[MapEntry]) -> Result<(), Error> {
        self.change(project, |things| {
            let found = domain(things, machine)?;
            (found.map, found.answered) = (Some(map_digest(map)), found.state == DomainState::Running);
            Ok(())
        })
    }

    async fn destroy(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.change(project, |things| {
            let defined = things.defined.get(machine.as_str()).cloned().unwrap_or_default();
            if let Some(found) = things.domains.get_mut(machine.as_str()) {
                (found.state, found.map, found.answered) = (DomainState::Shutoff, None, false);
                // What it gets again at its next start, as large as it is then.
                let size = |name: &Label| things.volumes.get(name.as_str()).map_or(0, |volume| volume.bytes);
                found.volumes = defined.iter().map(|name| (name.clone(), size(name))).collect();
                found.shards.clear();
            }
            Ok(())
        })
    }

    async fn undefine(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.change(project, |things| {
            things.domains.remove(machine.as_str());
            things.defined.remove(machine.as_str());
            Ok(())
        })
    }

    async fn list_owned(&self) -> Owned {
        let here = self.list(Kind::Domains, |world, uid, things| {
            let domains = things.domains.values();
            let attached = domains.clone().flat_map(|domain| &domain.shards);
            let files = world.fetched.iter();
            let digests = attached.flat_map(|serial| files.clone().filter(move |(_, own)| *own == serial));
            domains
                .map(|domain| Thing::Domain(uid.into(), domain.machine.clone()))
                .chain(digests.map(|(digest, _)| Thing::Attached(digest.as_str().into())))
                .chain(things.given.iter().map(|serial| Thing::Secret(serial.as_str().into())))
                .collect()
        });
        let fetched = self.read().map(|world| world.fetched).unwrap_or_default();
        here.and(Owned::found(fetched.keys().map(|digest| Thing::Fetched(digest.as_str().into()))))
    }

    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        self.change_all(|world| {
            if let Thing::Secret(serial) = thing {
                for things in world.projects.values_mut() {
                    things.given.remove(serial.as_str());
                }
            } else if let Thing::Fetched(digest) = thing {
                world.fetched.remove(digest.as_str());
            } else {
                return Err(Error::Missing(format!("no machine's {} is ever swept", thing.word())));
            }
            Ok(())
        })
    }

    fn bell(&self) -> Bell {
        self.bell.clone()
    }
}
