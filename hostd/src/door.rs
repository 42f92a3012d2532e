//! The door: people on the consoles of this host's machines. hostd dials out to the API and listens to nobody.
//!
//! ```text
//! console (pty) -> terminal: its state -> visit: differences within a budget -> recorded -> API -> person
//! <state>/visits/open/<visit>/       who, where, the wrapped key; chunks sealed with it
//! <state>/visits/<project>/<visit>/  the same once its end is in the ledger; goes with the project
//! ```
//! A visit is begun in the ledger before the console is opened for it. It is kept on the disk until its end is there too: a second
//! life of hostd ends what the first left open.

pub mod recording;
pub mod screen;
mod terminal;
mod visit;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dejima_crds::HostPlan;
use dejima_crds::act::{Act, Kind, Outcome, Phase};
use dejima_crds::bounded::{Label, Login, Uid};
use dejima_crds::door::{Farewell, FromHost, MACHINE, RECORDING, ToHost, ToPerson, WHO, Why, activity};
use dejima_crds::grant::ProjectRef;
use dejima_crds::host_plan::ProjectPlan;
use dejima_crds::names::{self, PlanKind, host_namespace};
use dejima_plan::effect::{Effect, through};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use self::recording::{Kept, Recording};
use self::terminal::{Seat, Terminal};
use self::visit::{Order, Purse, Visit};
use crate::agent::{chain, patience};
use crate::driver::{Drivers, Error};

/// Visits on one host at the same time.
const ROOM: usize = 32;
/// Orders that wait for one visit: more, and it is over.
const ORDERS: usize = 64;
/// Ends that the ledger does not have yet are said again after so long.
const AGAIN: Duration = Duration::from_secs(5);
/// Purses that are remembered before those of people who have left are forgotten.
const PURSES: usize = 4096;
/// How long to wait before the API is dialled again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The least budget: a row of the loudest colours has to fit into what may go at once.
pub const LEAST_BYTES_A_MINUTE: u64 = 64 << 10;
/// The usual budget of a person at a machine, in bytes a minute: ten busy screens a minute at once, and some 3 kB a second after that.
pub const BYTES_A_MINUTE: u64 = 256 << 10;

/// Where the consoles of machines are.
#[async_trait]
pub trait Consoles: Send + Sync {
    /// The console of a machine that runs, to read and to write. Nothing of it is a file on a disk.
    async fn open(&self, project: &Uid, machine: &Label) -> Result<OwnedFd, Error>;
}

/// The way to the API: what it says, and what is said to it. It is over when either end is closed.
pub type Line = (mpsc::Sender<FromHost>, mpsc::Receiver<ToHost>);

/// How the API is reached.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A new line, under this host's own identity.
    async fn dial(&self) -> Result<Line, Error>;
}

/// The door of one host.
#[derive(Clone)]
pub struct Door {
    /// The API server, under this host's own identity: its own plans say who may come where.
    pub client: Client,
    /// The host's name.
    pub host: String,
    /// Keys, records, the seam for faults.
    pub drivers: Drivers,
    /// Consoles.
    pub consoles: Arc<dyn Consoles>,
    /// The way to the API.
    pub dial: Arc<dyn Dial>,
    /// Where recordings lie.
    pub folder: PathBuf,
    /// What one person may see of one machine, in bytes a minute.
    pub bytes_a_minute: u64,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("host", &self.host).finish_non_exhaustive()
    }
}

type Terminals = Arc<Mutex<BTreeMap<(Uid, Label), Terminal>>>;
// By person and machine.
type Purses = BTreeMap<(Login, Uid, Label), Arc<std::sync::Mutex<Purse>>>;
// An order that cannot be given any more is no order: the visit sees it and ends.
type Visits = BTreeMap<Uid, Option<mpsc::Sender<Order>>>;

/// What outlives a line.
#[derive(Debug)]
struct Memory {
    purses: Purses,
    since: Instant,
    // Projects that are to be destroyed, as their plans say.
    ending: Arc<std::sync::Mutex<BTreeSet<Uid>>>,
}

/// Keeps the door until told to stop.
pub async fn keep(door: Door, mut stop: watch::Receiver<bool>) {
    let mut memory = Memory {
        purses: Purses::new(),
        since: Instant::now(),
        ending: Arc::default(),
    };
    let ends = tokio::spawn(watch_ends(door.clone(), Arc::clone(&memory.ending)));
    let mut pause = PAUSES.0;
    while !*stop.borrow() {
        // Ends that an earlier life, or a line that broke, left unsaid. Nobody is in: no line, no visit.
        door.settle(&Visits::new(), &memory).await;
        let dialled = tokio::select! {
            dialled = door.dial.dial() => dialled,
            _ = stop.changed() => break,
        };
        match dialled {
            Ok(line) => {
                pause = PAUSES.0;
                tracing::info!(host = door.host, "the door is open");
                door.serve(line, &mut memory, &mut stop).await;
            }
            Err(error) => tracing::debug!(error = %chain(&error), "the API cannot be dialled yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
            _ = stop.changed() => {}
        }
    }
    ends.abort();
}

/// Recordings go with their project: once its plan orders the end, and only then.
async fn watch_ends(door: Door, ending: Arc<std::sync::Mutex<BTreeSet<Uid>>>) {
    let api: Api<HostPlan> = Api::namespaced(door.client.clone(), host_namespace(&door.host).as_str());
    let mut plans = std::pin::pin!(watcher(api, watcher::Config::default()).backoff(patience()).applied_objects());
    while let Some(plan) = plans.next().await {
        let ends = plan.ok().filter(|plan| plan.spec.ends).and_then(|plan| plan.spec.project);
        let Some(uid) = ends.map(|plan| plan.of.uid) else { continue };
        if let Ok(mut ending) = ending.lock() {
            ending.insert(uid.clone());
        }
        if let Err(error) = remove(&door.folder.join(uid.as_str())) {
            tracing::warn!(project = %uid, error = %chain(&error), "recordings that nobody can open any more are left");
        }
    }
}

fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::driver("remove", folder.display().to_string(), cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Somebody at the door.
struct Guest {
    visit: Uid,
    login: Login,
    project: ProjectRef,
    machine: Label,
    watch: bool,
}

impl Guest {
    fn begun(&self, host: &str) -> Act {
        Act {
            activity: activity(&self.visit),
            phase: Phase::Begun,
            kind: Kind::Visit,
            project: Some(self.project.clone()),
            host: Some(host.to_owned()),
            used: Vec::new(),
            generated: Vec::new(),
            outcome: None,
            facts: BTreeMap::from([
                (WHO.to_owned(), self.login.to_string()),
                (MACHINE.to_owned(), self.machine.to_string()),
                ("watch".to_owned(), self.watch.to_string()),
            ]),
        }
    }
}

fn refused(why: Why, error: &Error) -> Farewell {
    tracing::warn!(error = %chain(error), "a visit is refused");
    Farewell::new(why, error.to_string())
}

impl Door {
    /// One line, until it breaks: then every visit is over, since nobody says any more who may stay.
    async fn serve(&self, (say, mut hear): Line, memory: &mut Memory, stop: &mut watch::Receiver<bool>) {
        let terminals = Terminals::default();
        let mut visits = Visits::new();
        let mut tasks: JoinSet<Uid> = JoinSet::new();
        let mut again = tokio::time::interval(AGAIN);
        loop {
            tokio::select! {
                said = hear.recv() => match said {
                    Some(ToHost::Enter { visit, login, project, machine, watch }) => {
                        let guest = Guest { visit, login, project, machine, watch };
                        if visits.len() >= ROOM {
                            let farewell = Farewell::new(Why::Full, "too many visits on this host at the same time");
                            // Who has gone needs no answer.
                            let _ = say.try_send(FromHost { visit: guest.visit, says: ToPerson::Left(farewell) });
                            continue;
                        }
                        let (order, orders) = mpsc::channel(ORDERS);
                        visits.insert(guest.visit.clone(), Some(order));
                        let (purse, since) = (memory.purse(&guest, self.bytes_a_minute), memory.since);
                        let (door, terminals, say) = (self.clone(), Arc::clone(&terminals), say.clone());
                        tasks.spawn(async move {
                            let visit = guest.visit.clone();
                            door.receive(guest, &terminals, (purse, since), orders, say).await;
                            visit
                        });
                    }
                    Some(ToHost::Keys { visit, keys }) => tell(&mut visits, &visit, Order::Keys(keys)),
                    Some(ToHost::Leave { visit, farewell }) => tell(&mut visits, &visit, Order::Leave(farewell)),
                    None => break,
                },
                Some(done) = tasks.join_next() => if let Ok(visit) = done {
                    visits.remove(&visit);
                },
                _ = again.tick() => self.settle(&visits, memory).await,
                _ = stop.changed() => break,
            }
        }
        // Each visit sees that nobody gives it orders any more, and says its end.
        visits.clear();
        let ends = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), ends).await.is_err() {
            tracing::warn!("ends of visits are said later");
        }
    }

    /// Lets somebody in, accompanies him, and says why it is over.
    async fn receive(
        &self,
        guest: Guest,
        terminals: &Terminals,
        (purse, since): (Arc<std::sync::Mutex<Purse>>, Instant),
        orders: mpsc::Receiver<Order>,
        say: mpsc::Sender<FromHost>,
    ) {
        let farewell = match self.record(&guest).await {
            Err(farewell) => farewell,
            Ok((mut kept, recording)) => {
                let folder = self.open(&guest.visit);
                let (recording, farewell) = match self.seat(&guest, terminals).await {
                    Ok(seat) => {
                        let visit = Visit {
                            id: guest.visit.clone(),
                            seat,
                            recording,
                            orders,
                            out: say.clone(),
                            purse,
                            since,
                        };
                        let over = visit.run().await;
                        let key = (guest.project.uid.clone(), guest.machine.clone());
                        let mut all = terminals.lock().await;
                        if all.get_mut(&key).is_some_and(|terminal| terminal.leave(&guest.visit)) {
                            all.remove(&key);
                        }
                        over
                    }
                    Err(error) => (Some(recording), refused(Why::MachineGone, &error)),
                };
                let last = farewell.message.clone();
                let over = spawn_blocking(move || {
                    if let Some(mut recording) = recording
                        && let Err(error) = recording.event(0, "m", &last)
                    {
                        tracing::warn!(error = %chain(&error), "why a visit was over stands in no recording");
                    }
                    kept.ended = Some(ended(&folder, &kept, &farewell)?);
                    kept.write(&folder)?;
                    Ok::<_, Error>(farewell)
                });
                match over.await {
                    Ok(Ok(farewell)) => farewell,
                    Ok(Err(error)) => refused(Why::NotRecorded, &error),
                    Err(_) => Farewell::new(Why::NotRecorded, "the recording was lost in a panic"),
                }
            }
        };
        let (visit, says) = (guest.visit.clone(), ToPerson::Left(farewell));
        // Who has gone needs no answer. The record comes after it: taking access away waits for nothing.
        let _ = say.send(FromHost { visit, says }).await;
        let kept = Kept::read(&self.open(&guest.visit));
        if let Ok(kept) = kept
            && let Err(error) = self.say_end(&kept).await
        {
            tracing::warn!(error = %chain(&error), "the end of a visit will be said again");
        }
    }

    /// Where a visit lies until its end is in the ledger.
    fn open(&self, visit: &Uid) -> PathBuf {
        self.folder.join("open").join(visit.as_str())
    }

    /// Everything that comes before a screen: the plan, a key, a recording, and the ledger.
    async fn record(&self, guest: &Guest) -> Result<(Kept, Recording), Farewell> {
        // It names a folder.
        if uuid::Uuid::try_parse(guest.visit.as_str()).is_err() {
            return Err(Farewell::new(Why::NotRecorded, "a visit is named by a UUID"));
        }
        let plan = self.plan(guest).await.map_err(|error| refused(Why::MachineGone, &error))?;
        let not = |error: Error| refused(Why::NotRecorded, &error);
        let gate = self.drivers.gate.as_ref();
        let named = |verb| Effect::new(format!("visit/{}", guest.machine), verb);
        let (key, wrapped) = through(gate, named("make-key"), self.drivers.keys.data_key(&plan.key))
            .await
            .map_err(not)?;
        let kept = Kept {
            begun: guest.begun(&self.host),
            key: plan.key,
            wrapped_key: wrapped,
            ended: None,
        };
        let (folder, own) = (self.open(&guest.visit), kept.clone());
        let seconds = Timestamp::now().as_second();
        let begin = async {
            let made = spawn_blocking(move || Recording::begin(&folder, &own, &key, seconds)).await;
            made.map_err(|cause| Error::driver("begin", "a recording", cause))?
        };
        let recording = through(gate, named("record"), begin).await.map_err(not)?;
        let said = through(
            gate,
            Effect::new(format!("ledger/visit/{}", guest.machine), "begin"),
            self.drivers.recorder.record(&kept.begun),
        );
        said.await.map_err(not)?;
        Ok((kept, recording))
    }

    /// The project's plan on this host, which has the machine.
    async fn plan(&self, guest: &Guest) -> Result<ProjectPlan, Error> {
        let api: Api<HostPlan> = Api::namespaced(self.client.clone(), host_namespace(&self.host).as_str());
        let found = api.get_opt(&names::plan_name(PlanKind::Project, &guest.project.uid)).await;
        let found = found.map_err(|cause| Error::Api {
            what: "read a plan",
            cause: Box::new(cause),
        })?;
        let stands = found.filter(|plan| !plan.spec.ends).and_then(|plan| plan.spec.project);
        stands
            .filter(|plan| plan.of == guest.project && plan.domains.iter().any(|domain| domain.machine == guest.machine))
            .ok_or_else(|| {
                Error::Missing(format!(
                    "no plan of this host has the machine {} of {}",
                    guest.machine, guest.project
                ))
            })
    }

    /// A seat before the machine's terminal; the first visitor's opens the console.
    async fn seat(&self, guest: &Guest, terminals: &Terminals) -> Result<Seat, Error> {
        let key = (guest.project.uid.clone(), guest.machine.clone());
        let mut all = terminals.lock().await;
        if !all.get(&key).is_some_and(Terminal::is_there) {
            let name = Effect::new(format!("visit/{}", guest.machine), "open-console");
            let opened = self.consoles.open(&guest.project.uid, &guest.machine);
            let console = through(self.drivers.gate.as_ref(), name, opened).await?;
            let terminal =
                Terminal::over(console).map_err(|cause| Error::driver("read the console of", guest.machine.to_string(), cause))?;
            all.insert(key.clone(), terminal);
        }
        let terminal = all.get_mut(&key);
        let terminal = terminal.ok_or_else(|| Error::Missing(format!("machine {} has no console", guest.machine)))?;
        Ok(terminal.join(&guest.visit, guest.watch))
    }

    /// Says an end that is known; then the recording lies with those of its project.
    async fn say_end(&self, kept: &Kept) -> Result<(), Error> {
        let Some(over) = &kept.ended else { return Ok(()) };
        let machine = over.facts.get(MACHINE).cloned().unwrap_or_default();
        let name = Effect::new(format!("ledger/visit/{machine}"), "end");
        through(self.drivers.gate.as_ref(), name, self.drivers.recorder.record(over)).await?;
        let (Some(visit), Some(project)) = (over.activity.rsplit('/').next(), &over.project) else {
            return Ok(());
        };
        let folder = self.folder.join(project.uid.as_str());
        let moved = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::rename(self.open(&visit.into()), folder.join(visit)))
            .and_then(|()| std::fs::File::open(&folder)?.sync_all());
        moved.map_err(|cause| Error::driver("keep", folder.display().to_string(), cause))
    }

    /// Says the ends of what nobody is in any more. What belongs to a project that is to be destroyed goes with it.
    async fn settle(&self, visits: &Visits, memory: &Memory) {
        let all = std::fs::read_dir(self.folder.join("open")).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = all
            .filter(|entry| {
                let name = entry.file_name();
                !visits.contains_key(&Uid::from(name.to_string_lossy().as_ref()))
            })
            .map(|entry| entry.path())
            .collect();
        for folder in &left {
            if let Err(error) = self.settle_one(folder).await {
                tracing::warn!(visit = %folder.display(), error = %chain(&error), "a visit is settled later");
            }
        }
        let ending = memory.ending.lock().map(|ending| ending.clone()).unwrap_or_default();
        for uid in &ending {
            if let Err(error) = remove(&self.folder.join(uid.as_str())) {
                tracing::warn!(project = %uid, error = %chain(&error), "recordings that nobody can open any more are left");
            }
        }
    }

    async fn settle_one(&self, folder: &Path) -> Result<(), Error> {
        if !folder.join("visit.json").exists() {
            // Nothing was begun: this is kept before anything else.
            return remove(folder);
        }
        let mut kept = Kept::read(folder)?;
        if kept.ended.is_none() {
            let farewell = Farewell::new(Why::HostGone, "hostd was ended while it lasted");
            kept.ended = Some(ended(folder, &kept, &farewell)?);
            kept.write(folder)?;
        }
        self.say_end(&kept).await
    }
}

impl Memory {
    /// The purse of a person at a machine. One that is full again says nothing that a new one would not.
    fn purse(&mut self, guest: &Guest, bytes_a_minute: u64) -> Arc<std::sync::Mutex<Purse>> {
        if self.purses.len() >= PURSES {
            self.purses.retain(|_, purse| Arc::strong_count(purse) > 1);
        }
        let key = (guest.login.clone(), guest.project.uid.clone(), guest.machine.clone());
        let fresh = || Arc::new(std::sync::Mutex::new(Purse::new(bytes_a_minute)));
        Arc::clone(self.purses.entry(key).or_insert_with(fresh))
    }
}

/// An order for a visit. One that takes none any more loses its line, and is over.
fn tell(visits: &mut Visits, visit: &Uid, order: Order) {
    if let Some(orders) = visits.get_mut(visit)
        && orders.as_ref().is_some_and(|orders| orders.try_send(order).is_err())
    {
        *orders = None;
    }
}

/// The end of a visit, with the head of its recording.
fn ended(folder: &Path, kept: &Kept, farewell: &Farewell) -> Result<Act, Error> {
    let head = recording::head(folder, kept)?;
    let mut over = Act {
        phase: Phase::Ended,
        outcome: Some(match farewell.why {
            Why::Left => Outcome::Done,
            Why::NotRecorded | Why::HostGone | Why::Unknown | Why::Full => Outcome::Failed,
            Why::NotMember | Why::NotEffective | Why::NotAllowed | Why::ProjectEnds | Why::MachineGone => Outcome::CutShort,
        }),
        ..kept.begun.clone()
    };
    over.facts.extend([
        (RECORDING.to_owned(), head.digest().to_string()),
        ("chunks".to_owned(), head.chunks.to_string()),
        ("reason".to_owned(), format!("{:?}", farewell.why)),
    ]);
    Ok(over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(login: &str, machine: &str) -> Guest {
        Guest {
            visit: uuid::Uuid::new_v4().to_string().into(),
            login: login.into(),
            project: ProjectRef {
                namespace: "osaka".into(),
                name: "liver".into(),
                uid: "u".into(),
            },
            machine: machine.into(),
            watch: false,
        }
    }

    #[test]
    fn a_person_has_one_purse_however_often_he_comes() {
        let mut memory = Memory {
            purses: Purses::new(),
            since: Instant::now(),
            ending: Arc::default(),
        };
        let mut purse = |login: &str, machine: &str| memory.purse(&guest(login, machine), 1 << 20);
        let first = purse("lead", "train");
        assert!(Arc::ptr_eq(&first, &purse("lead", "train")), "again, or twice at once");
        assert!(!Arc::ptr_eq(&first, &purse("student", "train")), "another person's");
        assert!(!Arc::ptr_eq(&first, &purse("lead", "other")), "another machine's");
    }

    #[test]
    fn an_order_that_a_visit_does_not_take_is_the_end_of_it() {
        let (order, orders) = mpsc::channel(1);
        let mut visits = Visits::from([("v".into(), Some(order))]);
        for _ in 0..2 {
            tell(&mut visits, &"v".into(), Order::Keys("x".to_owned()));
        }
        assert!(matches!(visits.get(&Uid::from("v")), Some(None)), "it is known until it has ended");
        assert!(orders.is_closed());
    }
}
