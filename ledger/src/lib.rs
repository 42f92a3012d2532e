//! The memory: records of what began and ended, numbered from 0 without gaps, never changed. Knows neither Kubernetes nor libvirt.
//!
//! ```text
//! append(writer, act, at) -> canonical bytes (RFC 8785) -> one atomic batch: record, leaf hash, indices -> fsync -> index
//! ```
//! What was acknowledged is on disk. One process writes: fjall holds an exclusive lock on the directory as long as any
//! handle lives. A write that fails poisons the ledger: the caller stops, opens it again, and finds what was acknowledged.

mod record;
pub mod tree;

use std::path::Path;
use std::sync::Mutex;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use jiff::Timestamp;
use serde_json::Value;

pub use record::Record;

/// The version of the layout on disk. Another one is refused.
const LAYOUT: &[u8] = b"1";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be opened; another process may hold it.
    #[error("cannot open the ledger `{path}`: does another process hold it?")]
    Open {
        /// The directory.
        path: String,
        /// What happened.
        #[source]
        cause: fjall::Error,
    },
    /// It was written by another version.
    #[error("the ledger has layout {0}, this program reads layout 1")]
    Layout(String),
    /// It cannot be read.
    #[error("cannot read the ledger")]
    Read(#[source] fjall::Error),
    /// It cannot be written; nothing more is taken until it was opened again.
    #[error("cannot write the ledger")]
    Write(#[source] fjall::Error),
    /// A write failed before.
    #[error("the ledger takes nothing more since a write failed: open it again")]
    Poisoned,
    /// The same activity and phase, with another content.
    #[error("`{activity}` was recorded before as something else (record {index})")]
    Conflict {
        /// The activity and phase.
        activity: String,
        /// The record that stands.
        index: u64,
    },
    /// An end without a beginning.
    #[error("`{0}` ends, but it never began")]
    NeverBegan(String),
    /// The act has no activity or phase, or no JSON form.
    #[error("this is no act: {0}")]
    NoAct(String),
    /// A record is not what was written.
    #[error("record {index} is damaged: {why}")]
    Damaged {
        /// Which.
        index: u64,
        /// How.
        why: String,
    },
}

/// The open ledger.
pub struct Ledger {
    database: Database,
    records: Keyspace,
    leaves: Keyspace,
    activities: Keyspace,
    // The next index, and whether a write failed.
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    next: u64,
    poisoned: bool,
    tree: tree::Frontier,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The number of the record.
    pub index: u64,
    /// Whether it was there before.
    pub known: bool,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens a ledger, or makes one. Every record is read and checked, and the tree is built again.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let open = |cause| Error::Open {
            path: shown.clone(),
            cause,
        };
        let database = Database::builder(path).open().map_err(open)?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default).map_err(open);
        let (meta, records, leaves, activities) = (
            keyspace("meta")?,
            keyspace("records")?,
            keyspace("leaves")?,
            keyspace("activities")?,
        );
        match meta.get("layout").map_err(Error::Read)? {
            None => {
                meta.insert("layout", LAYOUT).map_err(Error::Write)?;
                database.persist(PersistMode::SyncAll).map_err(Error::Write)?;
            }
            Some(layout) if &*layout == LAYOUT => {}
            Some(layout) => return Err(Error::Layout(String::from_utf8_lossy(&layout).into_owned())),
        }
        let writer = Mutex::new(Writer {
            next: 0,
            poisoned: false,
            tree: tree::Frontier::default(),
        });
        let ledger = Self {
            database,
            records,
            leaves,
            activities,
            writer,
        };
        let mut frontier = tree::Frontier::default();
        let mut next = 0;
        while let Some((_, leaf)) = ledger.checked(next)? {
            frontier.push(leaf);
            next += 1;
        }
        if let Some(beyond) = ledger.beyond(next)? {
            return Err(Error::Damaged {
                index: next,
                why: format!("it is missing, although record {beyond} is there"),
            });
        }
        ledger.writer.lock().map_err(|_| Error::Poisoned)?.clone_from_parts(next, frontier);
        Ok(ledger)
    }

    /// Appends an act under the name of the authenticated caller. The same activity and phase again, with the same
    /// content, is the record that stands. Blocks until it is on disk.
    pub fn append(&self, writer: &str, act: &Value, at: Timestamp) -> Result<Appended, Error> {
        let (activity, phase) = record::identity(act)?;
        let key = format!("{activity}\u{0}{phase}");
        let mut state = self.writer.lock().map_err(|_| Error::Poisoned)?;
        if state.poisoned {
            return Err(Error::Poisoned);
        }
        if let Some(index) = self.index_of(&key)? {
            let standing = self.get(index)?.ok_or_else(|| Error::Damaged {
                index,
                why: "it is missing".to_owned(),
            })?;
            if standing.writer == writer && standing.act == *act {
                return Ok(Appended { index, known: true });
            }
            return Err(Error::Conflict {
                activity: format!("{activity} {phase}"),
                index,
            });
        }
        if phase == "ended" && self.index_of(&format!("{activity}\u{0}begun"))?.is_none() {
            return Err(Error::NeverBegan(activity));
        }
        let index = state.next;
        let bytes = Record {
            index,
            at,
            writer: writer.to_owned(),
            act: act.clone(),
        }
        .to_bytes()?;
        let leaf = tree::leaf(&bytes);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.records, index.to_be_bytes(), bytes);
        batch.insert(&self.leaves, index.to_be_bytes(), leaf);
        batch.insert(&self.activities, key, index.to_be_bytes());
        if let Err(cause) = batch.commit() {
            state.poisoned = true;
            return Err(Error::Write(cause));
        }
        state.next += 1;
        state.tree.push(leaf);
        Ok(Appended { index, known: false })
    }

    fn index_of(&self, key: &str) -> Result<Option<u64>, Error> {
        let found = self.activities.get(key).map_err(Error::Read)?;
        Ok(found.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))))
    }

    /// The record of the beginning or the end (`begun`, `ended`) of an activity.
    pub fn find(&self, activity: &str, phase: &str) -> Result<Option<Record>, Error> {
        match self.index_of(&format!("{activity}\u{0}{phase}"))? {
            Some(index) => self.get(index),
            None => Ok(None),
        }
    }

    /// The numbers of the records of all activities whose names begin so.
    pub fn named(&self, prefix: &str) -> Result<Vec<u64>, Error> {
        let mut indices = Vec::new();
        for guard in self.activities.prefix(prefix) {
            let value = guard.value().map_err(Error::Read)?;
            indices.extend(value.as_ref().try_into().ok().map(u64::from_be_bytes));
        }
        Ok(indices)
    }

    /// A record, compared with its leaf hash.
    pub fn get(&self, index: u64) -> Result<Option<Record>, Error> {
        Ok(self.checked(index)?.map(|(record, _)| record))
    }

    fn checked(&self, index: u64) -> Result<Option<(Record, tree::Hash)>, Error> {
        let damaged = |why: &str| Error::Damaged {
            index,
            why: why.to_owned(),
        };
        let Some(bytes) = self.records.get(index.to_be_bytes()).map_err(Error::Read)? else {
            return Ok(None);
        };
        let leaf = self
            .leaves
            .get(index.to_be_bytes())
            .map_err(Error::Read)?
            .ok_or_else(|| damaged("it has no leaf"))?;
        let hash = tree::leaf(&bytes);
        if leaf.as_ref() != hash.as_slice() {
            return Err(damaged("its bytes are not those that were written"));
        }
        let record = Record::from_bytes(&bytes).map_err(|_| damaged("it cannot be read"))?;
        if record.index != index {
            return Err(damaged("it bears another number"));
        }
        Ok(Some((record, hash)))
    }

    fn beyond(&self, next: u64) -> Result<Option<u64>, Error> {
        match self.records.last_key_value() {
            None => Ok(None),
            Some(guard) => {
                let key = guard.key().map_err(Error::Read)?;
                let last = key.as_ref().try_into().ok().map(u64::from_be_bytes);
                Ok(last.filter(|last| *last >= next))
            }
        }
    }

    /// At most `count` records from `from` on.
    pub fn range(&self, from: u64, count: u64) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for index in from..from.saturating_add(count) {
            match self.get(index)? {
                Some(record) => records.push(record),
                None => break,
            }
        }
        Ok(records)
    }

    /// Whether a write failed, after which nothing more is taken.
    pub fn is_poisoned(&self) -> bool {
        self.writer.lock().map_or(true, |writer| writer.poisoned)
    }

    /// How many records there are, and the root of the Merkle tree over them (RFC 9162, section 2.1.1).
    pub fn head(&self) -> Result<(u64, tree::Hash), Error> {
        let state = self.writer.lock().map_err(|_| Error::Poisoned)?;
        Ok((state.next, state.tree.root()))
    }
}

impl Writer {
    fn clone_from_parts(&mut self, next: u64, tree: tree::Frontier) {
        (self.next, self.tree) = (next, tree);
    }
}
