//! What a host can do, as small traits: one driver a file, and one fake of each that is held to the same tests.
//!
//! Every verb can be repeated: it looks, and does what is missing. `observe` says what is there, and where it cannot
//! tell it says so.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use dejima_crds::act::Act;
use dejima_crds::bounded::{Digest, KeyName, Label, Uid, WrappedKey};
use dejima_crds::grant::ProjectRef;
use dejima_crds::host::{Capacity, Engine};
use dejima_crds::host_plan::{DomainPlan, ProjectPlan, Segment, ShardPlan, VolumePlan};
use dejima_plan::Seen;
use dejima_plan::effect::{Gate, Injected};
use dejima_plan::host::{DomainSeen, MapEntry, NetworkSeen, VolumeSeen};
use dejima_plan::sweep::{Owned, Thing};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// What can go wrong on a host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A driver.
    #[error("cannot {what} {on}")]
    Driver {
        /// What was attempted.
        what: &'static str,
        /// On what.
        on: String,
        /// What happened.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server.
    #[error("cannot {what} at the API server")]
    Api {
        /// What was attempted.
        what: &'static str,
        /// What happened.
        #[source]
        cause: Box<kube::Error>,
    },
    /// A driver gave no answer in time: what it was asked may have taken effect, or not.
    #[error("no answer in time when it was asked to {0}")]
    Silent(&'static str),
    /// Something that a verb needs is not there.
    #[error("{0}")]
    Missing(String),
    /// Something is not what was sealed: it is not used.
    #[error("{0}")]
    Damaged(String),
    /// A test let it fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Error {
    /// A driver's error, with what was attempted.
    pub fn driver(what: &'static str, on: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Driver {
            what,
            on: on.into(),
            cause: cause.into(),
        }
    }

    /// One word for status, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Driver { .. } | Self::Injected(_) => "DriverFailed",
            Self::Api { .. } => "ApiFailed",
            Self::Silent(_) => "DriverSilent",
            Self::Missing(_) => "Missing",
            Self::Damaged(_) => "Damaged",
        }
    }
}

/// A plain data key: base64 text of 256 random bits, wiped when it is dropped. Never a file, never in a log.
pub type PlainKey = Zeroizing<String>;

/// The key server, as a host may use it.
#[async_trait]
pub trait Keys: Send + Sync {
    /// A new data key under a key of the host's projects, plain and wrapped.
    async fn data_key(&self, key: &KeyName) -> Result<(PlainKey, WrappedKey), Error>;
    /// A wrapped data key, opened.
    async fn unwrap(&self, key: &KeyName, wrapped: &WrappedKey) -> Result<PlainKey, Error>;
}

/// Volumes.
#[async_trait]
pub trait Storage: Send + Sync {
    /// The volumes of a project.
    async fn observe(&self, project: &Uid) -> Seen<Vec<VolumeSeen>>;
    /// Keeps a wrapped key beside a volume that is to be; synced before it returns.
    async fn keep_key(&self, project: &Uid, volume: &VolumePlan, wrapped: &WrappedKey) -> Result<(), Error>;
    /// Makes the volume's file and its header. What is formatted already stays as it is.
    async fn format(&self, project: &Uid, volume: &VolumePlan, key: &PlainKey) -> Result<(), Error>;
    /// Makes it larger.
    async fn grow(&self, project: &Uid, volume: &VolumePlan) -> Result<(), Error>;
    /// Destroys the wrapped key first, then the bytes.
    async fn remove(&self, project: &Uid, name: &Label) -> Result<(), Error>;
    /// What of ours is here: volumes, and what never became one.
    async fn list_owned(&self) -> Owned;
    /// Takes away what is nobody's.
    async fn sweep(&self, thing: &Thing) -> Result<(), Error>;
}

/// A proof of isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Forbidden frames that were sent and did not arrive.
    pub refused: u32,
    /// Permitted frames that arrived.
    pub passed: u32,
}

/// Networks.
#[async_trait]
pub trait Network: Send + Sync {
    /// The network of a project.
    async fn observe(&self, project: &Uid) -> Seen<NetworkSeen>;
    /// Rules, then the bridge; flows of entries that closed are ended.
    async fn seal(&self, project: &Uid, segment: &Segment) -> Result<(), Error>;
    /// Sends what is forbidden and what is permitted.
    async fn prove(&self, project: &Uid, segment: &Segment) -> Result<Proof, Error>;
    /// Takes the bridge away, then its rules.
    async fn remove(&self, project: &Uid) -> Result<(), Error>;
    /// What of ours is here: networks, and bridges of which nobody knows whose they are.
    async fn list_owned(&self) -> Owned;
    /// Takes away what is nobody's.
    async fn sweep(&self, thing: &Thing) -> Result<(), Error>;
}

/// Machines.
#[async_trait]
pub trait Machines: Send + Sync {
    /// What runs them, and what the host can take.
    async fn capacity(&self) -> Result<(Capacity, Engine), Error>;
    /// The digests of what machines could boot here: what lies below `images` in the image store.
    async fn images(&self) -> Result<BTreeSet<Digest>, Error>;
    /// The machines of a project.
    async fn observe(&self, project: &Uid) -> Seen<Vec<DomainSeen>>;
    /// Defines a machine of a plan.
    async fn define(&self, plan: &ProjectPlan, domain: &DomainPlan) -> Result<(), Error>;
    /// Hands over the plain key of a disk, in memory only.
    async fn give_key(&self, project: &Uid, serial: &Label, key: &PlainKey) -> Result<(), Error>;
    /// Starts a machine with its processors standing still.
    async fn start_paused(&self, plan: &ProjectPlan, domain: &DomainPlan) -> Result<(), Error>;
    /// Lets it run.
    async fn resume(&self, project: &Uid, machine: &Label) -> Result<(), Error>;
    /// Checks a shard that was fetched before; fetches it, where it is not there or is not what was sealed, and checks it.
    async fn fetch(&self, shard: &ShardPlan) -> Result<(), Error>;
    /// Attaches a shard that was fetched, read-only.
    async fn attach(&self, project: &Uid, machine: &Label, shard: &ShardPlan) -> Result<(), Error>;
    /// Takes a shard away, whether or not the guest agrees.
    async fn detach(&self, project: &Uid, machine: &Label, serial: &Label) -> Result<(), Error>;
    /// Attaches a volume to a machine that runs, for reading and writing.
    async fn attach_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error>;
    /// Lets a machine that runs see as much of a volume as the plan says; the file is as large already.
    async fn resize_volume(&self, project: &Uid, machine: &Label, volume: &VolumePlan) -> Result<(), Error>;
    /// Takes a volume from a machine that runs. One that does not leave harms nothing: it is tried again.
    async fn detach_volume(&self, project: &Uid, machine: &Label, name: &Label) -> Result<(), Error>;
    /// Replaces the map of mounts.
    async fn tell(&self, project: &Uid, machine: &Label, map: &[MapEntry]) -> Result<(), Error>;
    /// Pulls the plug.
    async fn destroy(&self, project: &Uid, machine: &Label) -> Result<(), Error>;
    /// Forgets it.
    async fn undefine(&self, project: &Uid, machine: &Label) -> Result<(), Error>;
    /// What of ours is here: machines, keys in memory, what they are told by, what was fetched.
    async fn list_owned(&self) -> Owned;
    /// Takes away what is nobody's.
    async fn sweep(&self, thing: &Thing) -> Result<(), Error>;
    /// Rings when something may have happened to a machine.
    fn bell(&self) -> Bell;
}

/// Rings when something may have happened on a host by somebody else's hand. One ring or many: who listens looks once.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<watch::Sender<u64>>);

/// A bell that is not held: it rings as long as somebody else holds it.
#[derive(Clone, Debug)]
pub struct FarBell(Weak<watch::Sender<u64>>);

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// An ear of its own: it hears each ring from now on, also one that came while it was busy.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    /// The same bell, not held.
    pub fn far(&self) -> FarBell {
        FarBell(Arc::downgrade(&self.0))
    }
}

impl FarBell {
    /// Rings, where somebody holds the bell.
    pub fn ring(&self) {
        if let Some(bell) = self.0.upgrade() {
            Bell(bell).ring();
        }
    }

    /// Whether somebody holds it.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Where acts go; returns when they are durable.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Records an act.
    async fn record(&self, act: &Act) -> Result<(), Error>;
}

/// All drivers of a host.
#[derive(Clone)]
pub struct Drivers {
    /// The key server.
    pub keys: Arc<dyn Keys>,
    /// Volumes.
    pub storage: Arc<dyn Storage>,
    /// Networks.
    pub network: Arc<dyn Network>,
    /// Machines.
    pub machines: Arc<dyn Machines>,
    /// Acts.
    pub recorder: Arc<dyn Recorder>,
    /// The seam for faults.
    pub gate: Arc<dyn Gate>,
}

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drivers")
    }
}

/// Of whom, in the words of logs.
pub fn shown(of: &ProjectRef) -> String {
    of.to_string()
}
