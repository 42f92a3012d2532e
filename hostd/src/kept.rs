//! What a host keeps on its own disk between two lives of hostd: its id, and the highest plan generation it has seen.
//!
//! A plan older than what was seen is refused: a stale plan never moves the world back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dejima_crds::act::Act;
use dejima_crds::bounded::{Label, Uid};
use dejima_crds::host_plan::IsolationProof;
use serde::{Deserialize, Serialize};

use crate::driver::Error;

/// The file.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    state: Mutex<State>,
    // Of this life only, by plan: a proof that could not be said, since a newer plan came meanwhile, is said with the next one.
    proofs: Mutex<BTreeMap<String, IsolationProof>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    machine_id: Uid,
    generations: BTreeMap<String, u64>,
    #[serde(default)]
    mounts: Vec<OpenMount>,
    // Plans that were carried out to their end: once they are gone they are forgotten.
    #[serde(default)]
    swept: BTreeSet<String>,
}

/// A mount that was begun and not ended: written down before the record, so that a second life of hostd ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenMount {
    /// The machine.
    pub machine: Label,
    /// The serials of its shards.
    pub serials: BTreeSet<Label>,
    /// The beginning.
    pub begun: Act,
}

/// Writes a file whole or not at all: beside it, synced, renamed, the directory synced. Nobody else reads it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

impl Kept {
    /// Opens the file, or makes it with a new id.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("host.json");
        let failed = |cause: std::io::Error| Error::driver("keep", path.display().to_string(), cause);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|cause| Error::driver("read", path.display().to_string(), cause))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State {
                machine_id: uuid::Uuid::new_v4().to_string().into(),
                generations: BTreeMap::new(),
                mounts: Vec::new(),
                swept: BTreeSet::new(),
            },
            Err(error) => return Err(failed(error)),
        };
        let kept = Self {
            state: Mutex::new(state),
            path,
            proofs: Mutex::default(),
        };
        kept.change(|_| ())?;
        Ok(kept)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let lost = || Error::Missing("what the host keeps was lost in a panic".to_owned());
        let mut state = self.state.lock().map_err(|_| lost())?;
        // What could not be written was not changed.
        let mut changed = state.clone();
        let answer = change(&mut changed);
        let bytes = serde_json::to_vec(&changed).map_err(|cause| Error::driver("write", self.path.display().to_string(), cause))?;
        write_whole(&self.path, &bytes).map_err(|cause| Error::driver("write", self.path.display().to_string(), cause))?;
        *state = changed;
        Ok(answer)
    }

    /// The host's id.
    pub fn machine_id(&self) -> Uid {
        self.state.lock().map(|state| state.machine_id.clone()).unwrap_or_default()
    }

    /// Whether a plan of this generation may be carried out; a higher one than ever is kept before the answer.
    pub fn admit(&self, plan: &str, generation: u64) -> Result<bool, Error> {
        let known = self
            .state
            .lock()
            .ok()
            .and_then(|state| state.generations.get(plan).copied())
            .unwrap_or(0);
        if generation <= known {
            return Ok(generation == known);
        }
        self.change(|state| {
            state.swept.remove(plan);
            state.generations.insert(plan.to_owned(), generation)
        })?;
        Ok(true)
    }

    /// An id that was never used before.
    pub fn fresh_id() -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }

    /// The beginning of a mount: the one that stands for these shards, or this one, which is kept before the answer.
    pub fn begin(&self, mount: OpenMount) -> Result<Act, Error> {
        let same = |known: &OpenMount| {
            known.machine == mount.machine && known.begun.project == mount.begun.project && known.serials == mount.serials
        };
        let known = self
            .mounts()
            .into_iter()
            .find(|known| same(known) && known.begun.used == mount.begun.used);
        match known {
            Some(known) => Ok(known.begun),
            None => self.change(|state| {
                state.mounts.push(mount.clone());
                mount.begun
            }),
        }
    }

    /// Mounts that were begun and not ended.
    pub fn mounts(&self) -> Vec<OpenMount> {
        self.state.lock().map(|state| state.mounts.clone()).unwrap_or_default()
    }

    /// Forgets a mount whose end is recorded.
    pub fn ended(&self, mount: &OpenMount) -> Result<(), Error> {
        self.change(|state| state.mounts.retain(|known| known != mount))
    }

    /// Remembers the last proof of a plan's network.
    pub fn prove(&self, plan: &str, proof: IsolationProof) {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.insert(plan.to_owned(), proof);
    }

    /// The last proof of a plan's network in this life.
    pub fn proof(&self, plan: &str) -> Option<IsolationProof> {
        let proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.get(plan).cloned()
    }

    /// Remembers that nothing is left of a plan on this host.
    pub fn swept(&self, plan: &str) -> Result<(), Error> {
        let known = self.state.lock().is_ok_and(|state| state.swept.contains(plan));
        if known {
            Ok(())
        } else {
            self.change(|state| state.swept.insert(plan.to_owned())).map(drop)
        }
    }

    /// Forgets the plans that were carried out to their end and are there no longer. One that went before its end is remembered:
    /// if it comes back, it must not be an older one.
    pub fn forget(&self, there: &BTreeSet<String>) -> Result<(), Error> {
        let gone: Vec<String> = match self.state.lock() {
            Ok(state) => state.swept.difference(there).cloned().collect(),
            Err(_) => Vec::new(),
        };
        if gone.is_empty() {
            return Ok(());
        }
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.retain(|plan, _| !gone.contains(plan));
        self.change(|state| {
            for plan in &gone {
                state.swept.remove(plan);
                state.generations.remove(plan);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_plan_is_refused_by_the_next_life_too() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        let id = kept.machine_id();
        assert!(kept.admit("project-u", 2).unwrap());
        assert!(kept.admit("project-u", 2).unwrap(), "the same again");
        assert!(!kept.admit("project-u", 1).unwrap());
        let next = Kept::open(dir.path()).unwrap();
        assert_eq!(next.machine_id(), id);
        assert!(!next.admit("project-u", 1).unwrap());
        assert!(next.admit("project-u", 3).unwrap());
        assert!(next.admit("project-v", 1).unwrap(), "another plan");
    }

    #[test]
    fn a_proof_is_remembered_until_its_plan_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        let proof = IsolationProof {
            rules_digest: "sha256:0".into(),
            at: "2026-04-01T00:00:00Z".into(),
            refused: 32,
            passed: 8,
        };
        kept.prove("project-u", proof.clone());
        assert_eq!(kept.proof("project-u"), Some(proof));
        assert_eq!(kept.proof("project-v"), None, "another plan's");
        // It went before its end: whoever makes it again must not make an older one.
        kept.admit("project-u", 7).unwrap();
        kept.forget(&BTreeSet::new()).unwrap();
        assert!(kept.proof("project-u").is_some() && !kept.admit("project-u", 6).unwrap());
        // It is still there, carried out to its end; then it goes.
        kept.swept("project-u").unwrap();
        kept.forget(&BTreeSet::from(["project-u".to_owned()])).unwrap();
        assert!(!kept.admit("project-u", 6).unwrap());
        let next = Kept::open(dir.path()).unwrap();
        next.forget(&BTreeSet::new()).unwrap();
        kept.forget(&BTreeSet::new()).unwrap();
        assert_eq!(kept.proof("project-u"), None);
        for life in [kept, next] {
            assert!(life.admit("project-u", 1).unwrap(), "nothing of it is known any more");
        }
    }
}
