//! Machines on libvirt and QEMU.
//!
//! ```text
//! plan -> typed XML -> define -> keys into libvirt's memory -> start paused -> LUNs come and go -> destroy -> undefine
//! <run>/<project uid>/<machine>/    in memory: seed, map of mounts, which process it is
//! ```
//! A domain bears a stamp with its project, its machine and the digest of what it was defined from: whatever is found can be
//! attributed. Where libvirt does not answer, a machine is unknown, and its QEMU process is what access is ended by.

mod calls;
mod console;
mod disks;
mod domains;
mod events;
mod kvm;
mod owned;
mod process;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dejima_crds::bounded::{Digest, Label, Uid};
use dejima_crds::host::{Capacity, Engine, EngineKind};
use dejima_crds::host_plan::{DomainPlan, ProjectPlan, ShardPlan, VolumePlan};
use dejima_crds::names;
use dejima_plan::Seen;
use dejima_plan::host::{DomainSeen, DomainState, MapEntry, MapKind, definition, map_digest};
use dejima_plan::sweep::{Owned, Thing};
use serde::{Deserialize, Serialize};
use virt::connect::Connect;
use virt::sys;

pub use self::kvm::kvm_works;

use self::calls::Calls;
use self::domains::{bytes_read, describe, forget_secret, libvirt, lookup, next_definition, size, state, there};
use self::owned::SECRETS;
use self::process::Process;
use self::xml::{Disk, Found, Machine, secret_id};
use crate::driver::{Bell, Error, Machines, PlainKey};
use crate::fetch::Cache;
use crate::map::{ANSWER, map_disk, map_serial, write_disk};
use crate::seed::seed;
use crate::volumes::Pool;

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(3);
/// How long a change may take; a start reads the machine's disks.
const CHANGE: Duration = Duration::from_secs(30);
/// How long an end may take before it is brought about without libvirt.
const END: Duration = Duration::from_secs(3);
/// Whom a call concerns that is about no machine alone.
const EVERYBODY: &str = "everybody";

/// Where a host keeps and finds what its machines need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// libvirt's address: `qemu:///system`.
    pub uri: String,
    /// A directory in memory for seeds and maps.
    pub run: PathBuf,
    /// Where libvirt keeps the pids of its machines: `/run/libvirt/qemu`.
    pub pids: PathBuf,
    /// Whether the processor helps (KVM); else QEMU emulates.
    pub kvm: bool,
}

/// libvirt on this host.
#[derive(Clone, Debug)]
pub struct Libvirt {
    calls: Calls,
    settings: Settings,
    cache: Cache,
    pool: Pool,
    bell: Bell,
    unplugging: Arc<tokio::sync::Mutex<()>>,
}

/// What is kept of a machine that was started: enough to know later whether it is gone, without libvirt.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Started {
    machine: Label,
    definition: Digest,
    process: Process,
    // Of the definition as libvirt has it for the next start: who changes it is found out.
    xml: Digest,
}

/// A domain of ours, as it was found.
struct Look {
    found: Found,
    state: DomainState,
    // Of the definition that the next start takes.
    xml: Digest,
    // How large its volumes are in it, by file; of one that is off nobody can tell.
    sizes: BTreeMap<PathBuf, u64>,
    // How much it has read of its map of mounts.
    read: u64,
}

/// The disk with the map of mounts: the newest of two, while one replaces the other.
fn map_of(found: &Found) -> Option<&Disk> {
    found.disks.iter().rev().find(|disk| told(disk).is_some())
}

/// The digest of the map that a disk holds.
fn told(disk: &Disk) -> Option<Digest> {
    let name = disk.file.file_name()?.to_str()?;
    Some(Digest::from(format!("sha256:{}", name.strip_prefix("map-")?)))
}

/// Whether nothing was ever written to a volume behind its header: its file has no data there (lseek(2), SEEK_DATA).
fn is_untouched(volume: &Path) -> bool {
    let Ok(file) = std::fs::File::open(volume) else { return false };
    let found = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(crate::luks::HEADER));
    // A file system that cannot tell counts as written: nothing is formatted over.
    found == Err(rustix::io::Errno::NXIO)
}

impl Libvirt {
    /// A driver for this libvirt.
    pub fn new(settings: Settings, cache: Cache, pool: Pool) -> Result<Self, Error> {
        let made = std::fs::create_dir_all(&settings.run);
        made.map_err(|cause| Error::driver("make", settings.run.display().to_string(), cause))?;
        events::begin();
        let bell = Bell::default();
        events::listen(&settings.uri, &bell);
        Ok(Self {
            calls: Calls::new(&settings.uri, bell.clone()),
            settings,
            cache,
            pool,
            bell,
            unplugging: Arc::default(),
        })
    }

    fn uuid(project: &Uid, machine: &Label) -> String {
        names::id(project, &format!("domain/{machine}")).to_string()
    }

    fn place(&self, project: &Uid, machine: &Label) -> Result<PathBuf, Error> {
        let safe = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if safe(project.as_str()) && safe(machine.as_str()) {
            return Ok(self.settings.run.join(project.as_str()).join(machine.as_str()));
        }
        Err(Error::Missing(format!("`{project}` and `{machine}` are no names of files")))
    }

    /// The place of a machine in memory. Who is no user of this host's QEMU finds the way and sees no names.
    fn make_place(&self, project: &Uid, machine: &Label) -> Result<PathBuf, Error> {
        let place = self.place(project, machine)?;
        let failed = |cause| Error::driver("make", place.display().to_string(), cause);
        std::fs::create_dir_all(&place).map_err(failed)?;
        for folder in [place.as_path(), place.parent().unwrap_or(&place)] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
        }
        Ok(place)
    }

    /// What was started for a project, as far as it is kept.
    fn started(&self, project: &Uid) -> Vec<Started> {
        let all = std::fs::read_dir(self.settings.run.join(project.as_str()))
            .into_iter()
            .flatten()
            .flatten();
        all.filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path().join("started.json")).ok()?).ok())
            .collect()
    }

    /// Ends the process of a machine without libvirt. Whether it is gone beyond doubt.
    fn end_process(&self, project: &Uid, machine: &Label) -> Result<bool, Error> {
        let uuid = Self::uuid(project, machine);
        let kept = self.started(project).into_iter().find(|started| started.machine == *machine);
        let name = domain_name(&uuid, machine);
        let found = Process::find(&self.settings.pids.join(format!("{name}.pid")), &uuid);
        let known = kept.map(|started| started.process).into_iter().chain(found);
        let mut gone = false;
        for process in known {
            let ended = process.end(END);
            gone = ended.map_err(|cause| Error::driver("end the process of", machine.to_string(), cause))?;
        }
        Ok(gone)
    }

    /// The machine ends: by libvirt, or where that does not answer, without it.
    async fn pull_the_plug(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        let uuid = Self::uuid(project, machine);
        let about = uuid.clone();
        let pull = move |connection: &Connect| match lookup(connection, &uuid)? {
            Some((domain, _)) if state(&domain)? != DomainState::Shutoff => match domain.destroy() {
                // It ended by itself meanwhile.
                Err(_) if state(&domain)? == DomainState::Shutoff => Ok(()),
                other => other.map_err(libvirt("destroy", uuid)),
            },
            Some(_) | None => Ok(()),
        };
        let Err(error) = self.calls.call("destroy a machine", &about, END, pull).await else {
            return Ok(());
        };
        let (own, of, named) = (self.clone(), project.clone(), machine.clone());
        let ended = tokio::task::spawn_blocking(move || own.end_process(&of, &named)).await;
        let gone = ended.map_err(|cause| Error::driver("end", machine.to_string(), cause))??;
        if gone { Ok(()) } else { Err(error) }
    }

    fn seen(&self, look: Look) -> DomainSeen {
        let Look {
            found,
            state,
            xml,
            sizes,
            read,
        } = look;
        let started = self.started(&found.project);
        let kept = started.iter().find(|started| started.machine == found.machine);
        let shards = self.cache.shards();
        let serial = |disk: &Disk| disk.file.starts_with(&shards).then(|| disk.serial.as_str().into());
        let map = map_of(&found).and_then(told);
        let volume = |disk: &Disk| {
            let name = self.pool.name_of(&found.project, &disk.file)?;
            Some((name, sizes.get(&disk.file).copied().unwrap_or(0)))
        };
        DomainSeen {
            shards: found.disks.iter().filter_map(serial).collect(),
            volumes: found.disks.iter().filter_map(volume).collect(),
            map: map.filter(|_| state != DomainState::Shutoff),
            answered: read >= ANSWER,
            changed: kept.is_some_and(|started| started.xml != xml),
            machine: found.machine,
            definition: found.definition,
            state,
        }
    }

    /// All domains of ours.
    async fn all(&self) -> Result<Vec<Look>, Error> {
        let pool = self.pool.clone();
        let look = move |connection: &Connect| {
            let domains = connection.list_all_domains(0).map_err(libvirt("list", "domains"))?;
            let mut all = Vec::new();
            for domain in domains {
                if let Some((domain, found)) = describe(domain)? {
                    let state = state(&domain)?;
                    let on = state != DomainState::Shutoff;
                    let volumes = found
                        .disks
                        .iter()
                        .filter(|disk| on && pool.name_of(&found.project, &disk.file).is_some());
                    all.push(Look {
                        sizes: volumes.map(|disk| (disk.file.clone(), size(&domain, disk))).collect(),
                        read: map_of(&found).filter(|_| on).map_or(0, |map| bytes_read(&domain, map)),
                        xml: next_definition(&domain)?,
                        found,
                        state,
                    });
                }
            }
            Ok(all)
        };
        self.calls.call("look at the machines", EVERYBODY, LOOK, look).await
    }
}

/// The name of a domain, libvirt's.
fn domain_name(uuid: &str, machine: &Label) -> String {
    format!("dejima-{}-{machine}", uuid.get(..8).unwrap_or(uuid))
}

#[async_trait]
impl Machines for Libvirt {
    async fn capacity(&self) -> Result<(Capacity, Engine), Error> {
        let ask = |connection: &Connect| {
            let node = connection.node_info().map_err(libvirt("ask", "the node"))?;
            let version = |number: u32| format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000);
            let libvirt_version = connection.lib_version().map_err(libvirt("ask", "for its version"))?;
            let qemu = connection.hyp_version().map_err(libvirt("ask", "for QEMU's version"))?;
            Ok((node.cpus, node.memory, version(libvirt_version), version(qemu)))
        };
        let (cpus, kibibytes, libvirt_version, qemu) = self.calls.call("ask what this host has", EVERYBODY, CHANGE, ask).await?;
        let kind = if self.settings.kvm { EngineKind::Kvm } else { EngineKind::Tcg };
        let versions = BTreeMap::from([("libvirt".into(), libvirt_version.into()), ("qemu".into(), qemu.into())]);
        let capacity = Capacity {
            cpus,
            memory: kibibytes << 10,
            bytes: self.pool.capacity()?,
        };
        Ok((capacity, Engine { kind, versions }))
    }

    async fn images(&self) -> Result<BTreeSet<Digest>, Error> {
        self.cache.offered().await
    }

    async fn observe(&self, project: &Uid) -> Seen<Vec<DomainSeen>> {
        let Ok(all) = self.all().await else {
            // libvirt does not answer. What was started and is gone beyond doubt is off; anything else nobody can tell.
            let started = self.started(project);
            let places = std::fs::read_dir(self.settings.run.join(project.as_str())).map_or(0, Iterator::count);
            // A machine of which it is not known which process it is may be running.
            if started.is_empty() || started.len() < places || started.iter().any(|started| started.process.is_there()) {
                return Seen::Unknown;
            }
            let off = |started: Started| DomainSeen {
                machine: started.machine,
                state: DomainState::Shutoff,
                definition: started.definition,
                shards: BTreeSet::new(),
                volumes: BTreeMap::new(),
                map: None,
                answered: false,
                changed: false,
            };
            return Seen::Present(started.into_iter().map(off).collect());
        };
        let own = all.into_iter().filter(|look| look.found.project == *project);
        let seen: Vec<DomainSeen> = own.map(|look| self.seen(look)).collect();
        if seen.is_empty() { Seen::Absent } else { Seen::Present(seen) }
    }

    async fn define(&self, plan: &ProjectPlan, wanted: &DomainPlan) -> Result<(), Error> {
        let kernel = wanted.image.kernel.as_ref();
        let kernel = kernel.ok_or_else(|| Error::Missing(format!("image {} names no kernel", wanted.image.name)))?;
        let boot = (
            self.cache.image(&kernel.path, &kernel.digest).await?,
            self.cache.image(&kernel.initrd, &kernel.initrd_digest).await?,
        );
        let place = self.make_place(&plan.of.uid, &wanted.machine)?;
        let own = plan
            .volumes
            .iter()
            .filter(|volume| volume.attach_to.as_ref() == Some(&wanted.machine));
        let volumes: Vec<(Label, PathBuf)> = own
            .map(|volume| Ok((volume.serial.clone(), self.pool.file(&plan.of.uid, &volume.name)?)))
            .collect::<Result<_, Error>>()?;
        let (digest, name) = (definition(plan, wanted), domain_name(wanted.uid.as_str(), &wanted.machine));
        let machine = Machine {
            plan,
            domain: wanted,
            name: &name,
            definition: &digest,
            kvm: self.settings.kvm,
            boot: (&boot.0, &boot.1),
            seed: &place.join("seed.iso"),
            volumes: &volumes,
        };
        let text = xml::domain(&machine)?.text()?;
        let define = move |connection: &Connect| {
            let defined = connection.define_domain_xml(&text);
            defined.map(drop).map_err(libvirt("define", name))
        };
        self.calls.call("define a machine", wanted.uid.as_str(), CHANGE, define).await
    }

    async fn give_key(&self, _: &Uid, serial: &Label, key: &PlainKey) -> Result<(), Error> {
        let (uuid, serial, key) = (secret_id(serial)?, serial.to_string(), key.clone());
        let give = move |connection: &Connect| {
            let text = xml::secret(&uuid, &serial).text()?;
            let secret = connection
                .define_secret_xml(&text, 0)
                .map_err(libvirt("keep the key of", serial.clone()))?;
            secret.set_value(key.as_bytes(), 0).map_err(libvirt("keep the key of", serial))
        };
        self.calls.call("hand a key over", SECRETS, CHANGE, give).await
    }

    async fn start_paused(&self, plan: &ProjectPlan, domain: &DomainPlan) -> Result<(), Error> {
        let place = self.make_place(&plan.of.uid, &domain.machine)?;
        // Until it is known which process it is, nobody can say that it is gone.
        let known = place.join("started.json");
        match std::fs::remove_file(&known) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::driver("forget the last life of", domain.machine.to_string(), cause));
            }
            Ok(()) | Err(_) => {}
        }
        let file = place.join("seed.iso");
        let bytes = seed(plan, domain)?;
        let written = std::fs::write(&file, bytes).and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)));
        written.map_err(|cause| Error::driver("write the seed of", domain.machine.to_string(), cause))?;
        let own = plan
            .volumes
            .iter()
            .filter(|volume| volume.attach_to.as_ref() == Some(&domain.machine));
        let secrets: Vec<String> = own.map(|volume| secret_id(&volume.serial)).collect::<Result<_, _>>()?;
        let (uuid, machine) = (domain.uid.to_string(), domain.machine.clone());
        let start = move |connection: &Connect| {
            let (domain, found) = there(connection, &uuid, &machine)?;
            let started = if state(&domain)? == DomainState::Shutoff {
                domain.create_with_flags(sys::VIR_DOMAIN_START_PAUSED).map(drop)
            } else {
                Ok(())
            };
            // QEMU has them now, or nobody: who asks libvirt later finds nothing.
            secrets.iter().try_for_each(|secret| forget_secret(connection, secret))?;
            started.map_err(libvirt("start", machine.to_string()))?;
            Ok((found.definition, next_definition(&domain)?))
        };
        let about = domain.uid.as_str();
        let (definition, xml) = self.calls.call("start a machine", about, CHANGE, start).await?;
        let pid_file = self
            .settings
            .pids
            .join(format!("{}.pid", domain_name(domain.uid.as_str(), &domain.machine)));
        let process = Process::find(&pid_file, domain.uid.as_str());
        let process = process.ok_or_else(|| Error::Missing(format!("machine {} was started and has no process", domain.machine)))?;
        let started = Started {
            machine: domain.machine.clone(),
            definition,
            process,
            xml,
        };
        let bytes = serde_json::to_vec(&started).map_err(|cause| Error::driver("keep", domain.machine.to_string(), cause))?;
        crate::kept::write_whole(&known, &bytes).map_err(|cause| Error::driver("keep", domain.machine.to_string(), cause))
    }

    async fn resume(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        let (uuid, machine) = (Self::uuid(project, machine), machine.clone());
        let about = uuid.clone();
        let resume = move |connection: &Connect| {
            let (domain, _) = there(connection, &uuid, &machine)?;
            match state(&domain)? {
                DomainState::Running => Ok(()),
                DomainState::Paused => domain.resume().map_err(libvirt("resume", machine.to_string())),
                DomainState::Shutoff => Err(Error::Missing(format!("machine {machine} is off"))),
            }
        };
        self.calls.call("let a machine run", &about, CHANGE, resume).await
    }

    async fn fetch(&self, shard: &ShardPlan) -> Result<(), Error> {
        self.cache.shard(shard).await.map(drop)
    }

    async fn attach(&self, project: &Uid, machine: &Label, shard: &ShardPlan) -> Result<(), Error> {
        let file = self.cache.there(shard);
        self.plug_opened(project, machine, file, &shard.serial, false).await
    }

    async fn detach(&self, project: &Uid, machine: &Label, serial: &Label) -> Result<(), Error> {
        let serial = serial.to_string();
        let gone = self.unplug(project, machine, move |disk| disk.serial == serial).await;
        if matches!(gone, Ok(true)) {
            return Ok(());
        }
        // A disk that does not go takes its machine with it, and so does a libvirt that does not answer.
        tracing::warn!(%project, %machine, "a disk does not leave: its machine ends");
        self.pull_the_plug(project, machine).await
    }

    async fn attach_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error> {
        let file = self.pool.file(project, &volume.name);
        self.plug_opened(project, machine, file, &volume.serial, true).await
    }

    async fn resize_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error> {
        let (uuid, machine) = (Self::uuid(project, machine), machine.clone());
        let (file, name, bytes) = (self.pool.file(project, &volume.name)?, volume.name.clone(), volume.bytes);
        let about = uuid.clone();
        let resize = move |connection: &Connect| {
            let (domain, found) = there(connection, &uuid, &machine)?;
            let disk = found.disks.iter().find(|disk| disk.file == file);
            let disk = disk.ok_or_else(|| Error::Missing(format!("machine {machine} has no volume {name}")))?;
            // As the guest sees it: QEMU keeps the header in front of it.
            let resized = domain.block_resize(&disk.target, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES);
            resized.map_err(libvirt("resize", format!("volume {name}")))
        };
        self.calls.call("resize a disk", &about, CHANGE, resize).await
    }

    async fn detach_volume(&self, project: &Uid, machine: &Label, name: &Label) -> Result<(), Error> {
        let file = self.pool.file(project, name)?;
        if self.unplug(project, machine, move |disk| disk.file == file).await? {
            return Ok(());
        }
        Err(Error::Missing(format!("volume {name} does not leave machine {machine}")))
    }

    async fn tell(&self, project: &Uid, machine: &Label, map: &[MapEntry]) -> Result<(), Error> {
        let place = self.make_place(project, machine)?;
        let file = place.join(format!("map-{}", map_digest(map).hex()));
        let uuid = Self::uuid(project, machine);
        let (named, about) = (machine.clone(), uuid.clone());
        let disks = self
            .calls
            .call("look at a machine", &about, LOOK, move |connection| {
                Ok(there(connection, &uuid, &named)?.1.disks)
            })
            .await?;
        let volumes = map
            .iter()
            .filter(|entry| entry.kind == MapKind::Volume)
            .flat_map(|entry| &entry.serials);
        let new: BTreeSet<String> = volumes
            .filter(|serial| disks.iter().any(|disk| disk.serial == **serial && is_untouched(&disk.file)))
            .cloned()
            .collect();
        write_disk(&file, &map_disk(map, &new)).map_err(|cause| Error::driver("write the map of", machine.to_string(), cause))?;
        let current = file.clone();
        let old = move |disk: &Disk| disk.serial.starts_with(crate::map::SERIAL_PREFIX) && disk.file != current;
        // The old one goes first: two would leave the guest in doubt.
        if !self.unplug(project, machine, old).await? {
            return Err(Error::Missing(format!("the old map of machine {machine} does not leave")));
        }
        self.plug(project, machine, file.clone(), map_serial(map), None, false).await?;
        for entry in std::fs::read_dir(&place).into_iter().flatten().flatten() {
            let stale = entry.file_name().to_string_lossy().starts_with("map-") && entry.path() != file;
            if stale {
                // Nothing reads it any more; it goes with the machine otherwise.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    async fn destroy(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        self.pull_the_plug(project, machine).await
    }

    async fn undefine(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        let uuid = Self::uuid(project, machine);
        let about = uuid.clone();
        let undefine = move |connection: &Connect| match lookup(connection, &uuid)? {
            Some((domain, found)) => {
                let undefined = domain.undefine_flags(sys::VIR_DOMAIN_UNDEFINE_NVRAM);
                undefined.map_err(libvirt("undefine", found.machine.to_string()))
            }
            None => Ok(()),
        };
        self.calls.call("undefine a machine", &about, CHANGE, undefine).await?;
        self.clear_place(project, machine)
    }

    async fn list_owned(&self) -> Owned {
        self.owned().await
    }

    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        self.take_away(thing).await
    }

    fn bell(&self) -> Bell {
        self.bell.clone()
    }
}
