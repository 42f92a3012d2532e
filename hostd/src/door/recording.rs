//! The recording of a visit: an asciicast (version 3), in chunks that are sealed one by one and chained.
//!
//! ```text
//! visit.json   who, where, when it began, the wrapped key, and in the end what came of it
//! chunks       length (4 bytes, big-endian), sealed chunk; length, sealed chunk; …
//!   head 0     = SHA-256(canonical JSON of the beginning and the wrapped key)
//!   chunk n    = AES-256-GCM(key of this visit alone, nonce n, bound to head n-1)
//!   head n     = SHA-256(head n-1, length, sealed chunk n)
//! ```
//! The last head is in the ledger. It can be computed without the key, and the key opens nothing that was changed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dejima_crds::act::Act;
use dejima_crds::bounded::{Digest, KeyName, WrappedKey};
use dejima_crds::digest::of_value;
use dejima_crds::door::{COLUMNS, ROWS};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::driver::{Error, PlainKey};
use crate::kept::write_whole;

/// A chunk is one difference or some keys: far less than this.
const LARGEST: usize = 1 << 20;

/// What is kept beside a recording, so that a second life of hostd can end the visit, and whoever has the project's key can open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The beginning, as it is in the ledger.
    pub begun: Act,
    /// The project's key at the key server.
    pub key: KeyName,
    /// The key of this recording, wrapped with it.
    pub wrapped_key: WrappedKey,
    /// The end, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Act>,
}

fn failed(what: &'static str, on: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let on = on.display().to_string();
    move |cause| Error::driver(what, on, cause)
}

impl Kept {
    /// What is kept in a folder.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("visit.json");
        let bytes = std::fs::read(&path).map_err(failed("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|cause| Error::driver("read", path.display().to_string(), cause))
    }

    /// Keeps it: synced before it returns.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join("visit.json");
        let bytes = serde_json::to_vec(self).map_err(|cause| Error::driver("write", path.display().to_string(), cause))?;
        write_whole(&path, &bytes).map_err(failed("write", &path))
    }

    fn head(&self) -> Result<Head, Error> {
        let first = of_value(&(&self.begun, &self.key, &self.wrapped_key));
        let first = first.map_err(|cause| Error::driver("digest", self.begun.activity.clone(), cause))?;
        let mut digest = [0; 32];
        hex::decode_to_slice(first.hex(), &mut digest).map_err(|cause| Error::driver("digest", self.begun.activity.clone(), cause))?;
        Ok(Head { digest, chunks: 0 })
    }
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    digest: [u8; 32],
    /// How many chunks there are.
    pub chunks: u32,
}

impl Head {
    /// The digest.
    pub fn digest(&self) -> Digest {
        Digest::from(format!("sha256:{}", hex::encode(self.digest)))
    }

    fn nonce(&self) -> Nonce {
        // INVARIANT: a number is used once with a key: each visit has a key of its own, and a chunk more each time.
        let mut nonce = [0; NONCE_LEN];
        for (place, byte) in nonce.iter_mut().zip(self.chunks.to_be_bytes()) {
            *place = byte;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn after(self, length: [u8; 4], sealed: &[u8]) -> Option<Self> {
        let mut digest = Sha256::new();
        digest.update(self.digest);
        digest.update(length);
        digest.update(sealed);
        Some(Self {
            digest: digest.finalize().into(),
            chunks: self.chunks.checked_add(1)?,
        })
    }
}

fn opener(key: &PlainKey) -> Result<LessSafeKey, Error> {
    let no_key = || Error::Missing("the key of a recording is no key of 256 bits".to_owned());
    let bytes = Zeroizing::new(STANDARD.decode(key.as_bytes()).map_err(|_| no_key())?);
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| no_key())?))
}

/// A recording that goes on.
pub struct Recording {
    file: File,
    path: PathBuf,
    key: LessSafeKey,
    head: Head,
    length: u64,
    // Milliseconds since the beginning: an event says how long after the one before it came.
    at: u64,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Recording {
    /// Makes a folder for it, keeps who and where, and begins at this time (seconds since 1970).
    pub fn begin(folder: &Path, kept: &Kept, key: &PlainKey, at: i64) -> Result<Self, Error> {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.map_err(failed("make", folder))?;
        kept.write(folder)?;
        let path = folder.join("chunks");
        let opened = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(failed("make", &path))?;
        Self::over(file, path, kept, key, at)
    }

    fn over(file: File, path: PathBuf, kept: &Kept, key: &PlainKey, at: i64) -> Result<Self, Error> {
        let mut recording = Self {
            file,
            path,
            key: opener(key)?,
            head: kept.head()?,
            length: 0,
            at: 0,
        };
        let title = kept.begun.facts.get(dejima_crds::door::MACHINE);
        let project = kept.begun.project.as_ref().map(ToString::to_string).unwrap_or_default();
        let header = json!({
            "version": 3, "term": {"cols": COLUMNS, "rows": ROWS}, "timestamp": at,
            "title": format!("{project}/{}", title.map(String::as_str).unwrap_or_default()),
        });
        recording.append(format!("{header}\n").into_bytes())?;
        Ok(recording)
    }

    /// Records what was shown (`o`), typed (`i`) or otherwise is to be known (`m`), so many milliseconds after the beginning; it is
    /// on disk when this returns.
    pub fn event(&mut self, at: u64, code: &str, text: &str) -> Result<(), Error> {
        let passed = at.saturating_sub(self.at);
        let number = format!("{}.{:03}", passed / 1000, passed % 1000);
        let line = format!("[{number}, {}, {}]\n", json!(code), json!(text));
        self.append(line.into_bytes())?;
        self.at = self.at.max(at);
        Ok(())
    }

    fn append(&mut self, mut chunk: Vec<u8>) -> Result<(), Error> {
        let full = || Error::Missing("a recording is too long".to_owned());
        let sealed = self
            .key
            .seal_in_place_append_tag(self.head.nonce(), Aad::from(self.head.digest), &mut chunk);
        sealed.map_err(|_| full())?;
        let length = u32::try_from(chunk.len()).map_err(|_| full())?.to_be_bytes();
        let head = self.head.after(length, &chunk).ok_or_else(full)?;
        let bytes = [&length[..], &chunk].concat();
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(cause) = written {
            // What is half there is none of it: the chain ends before. Where even that fails, whoever reads it sees it.
            let _ = self.file.set_len(self.length);
            return Err(failed("write", &self.path)(cause));
        }
        self.length += u64::try_from(bytes.len()).unwrap_or_default();
        self.head = head;
        Ok(())
    }

    /// Where its chain ends.
    pub fn head(&self) -> Head {
        self.head
    }

    /// From now on its disk is full.
    #[cfg(test)]
    pub(super) fn fill_the_disk(&mut self) {
        self.file = File::options().write(true).open("/dev/full").unwrap();
    }
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It cannot be read.
    #[error(transparent)]
    Unread(#[from] Error),
    /// A chunk is not what was recorded.
    #[error("chunk {0} of the recording is not what was recorded")]
    Chunk(u32),
    /// The recording ends elsewhere.
    #[error("the recording ends with {found}, and the record says {said}")]
    Head {
        /// What the chain comes to.
        found: Digest,
        /// What the record says.
        said: Digest,
    },
}

type Chunks = Vec<(Head, Vec<u8>)>;

/// The whole chunks of a recording with the head before each, and the last head.
fn chunks(folder: &Path, kept: &Kept) -> Result<(Chunks, Head), Error> {
    let path = folder.join("chunks");
    let mut bytes = Vec::new();
    match File::open(&path) {
        Ok(mut file) => drop(file.read_to_end(&mut bytes).map_err(failed("read", &path))?),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(failed("read", &path)(cause)),
    }
    let (mut head, mut all, mut rest) = (kept.head()?, Vec::new(), bytes.as_slice());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let size = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        // A last chunk that is cut was never shown.
        let Some((sealed, after)) = after.split_at_checked(size).filter(|_| size <= LARGEST) else {
            break;
        };
        all.push((head, sealed.to_vec()));
        let Some(next) = head.after(*length, sealed) else { break };
        (head, rest) = (next, after);
    }
    Ok((all, head))
}

/// Where the chain of a recording ends, by what lies there: it takes no key.
pub fn head(folder: &Path, kept: &Kept) -> Result<Head, Error> {
    Ok(chunks(folder, kept)?.1)
}

/// The asciicast, checked from the first byte to the last against the head that the ledger has.
pub fn read(folder: &Path, key: &PlainKey, said: &Digest) -> Result<String, Damage> {
    let kept = Kept::read(folder)?;
    let opener = opener(key)?;
    let (all, last) = chunks(folder, &kept)?;
    let mut text = String::new();
    for (before, mut sealed) in all {
        let damaged = || Damage::Chunk(before.chunks);
        let plain = opener.open_in_place(before.nonce(), Aad::from(before.digest), &mut sealed);
        let plain = std::str::from_utf8(plain.map_err(|_| damaged())?).map_err(|_| damaged())?;
        text.push_str(plain);
    }
    if last.digest() != *said {
        return Err(Damage::Head {
            found: last.digest(),
            said: said.clone(),
        });
    }
    Ok(text)
}

const _: () = assert!(LARGEST > MAX_TAG_LEN);

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use dejima_crds::act::{Kind, Phase};

    use super::*;

    pub(crate) fn kept() -> Kept {
        Kept {
            begun: Act {
                activity: "visit/v".to_owned(),
                phase: Phase::Begun,
                kind: Kind::Visit,
                project: None,
                host: Some("host-a".to_owned()),
                used: Vec::new(),
                generated: Vec::new(),
                outcome: None,
                facts: BTreeMap::from([("machine".to_owned(), "train".to_owned())]),
            },
            key: "project-u".into(),
            wrapped_key: "vault:v1:x".into(),
            ended: None,
        }
    }

    pub(crate) fn key(byte: u8) -> PlainKey {
        Zeroizing::new(STANDARD.encode([byte; 32]))
    }

    /// A recording of three events; its folder, and its head.
    fn recorded() -> (tempfile::TempDir, PathBuf, Head) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("v");
        let mut recording = Recording::begin(&folder, &kept(), &key(7), 1_700_000_000).unwrap();
        recording.event(100, "o", "\u{1b}[1;1Hprompt").unwrap();
        recording.event(1600, "i", "canary-of-keys\r").unwrap();
        recording.event(1650, "m", "left").unwrap();
        let head = recording.head();
        (dir, folder, head)
    }

    #[test]
    fn a_recording_is_an_asciicast_under_its_own_key() {
        let (_dir, folder, head_said) = recorded();
        assert_eq!(head_said.chunks, 4);
        assert_eq!(head(&folder, &kept()).unwrap(), head_said, "the chain takes no key");
        let text = read(&folder, &key(7), &head_said.digest()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events = [
            json!([0.1, "o", "\u{1b}[1;1Hprompt"]),
            json!([1.5, "i", "canary-of-keys\r"]),
            json!([0.05, "m", "left"]),
        ];
        assert_eq!(lines[0]["version"], 3);
        assert_eq!(lines[1..], events);
        assert!(matches!(read(&folder, &key(8), &head_said.digest()), Err(Damage::Chunk(0))));
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
        }
    }

    #[test]
    fn every_flipped_byte_of_a_recording_is_found_and_so_is_a_chunk_that_is_missing() {
        let (_dir, folder, head_said) = recorded();
        let path = folder.join("chunks");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&folder, &key(7), &head_said.digest()).is_err(), "byte {at}");
        }
        let first = 4 + usize::try_from(u32::from_be_bytes(whole[..4].try_into().unwrap())).unwrap();
        for cut in [&whole[first..], &whole[..first], &whole[..whole.len() - 1], &[]] {
            std::fs::write(&path, cut).unwrap();
            assert!(read(&folder, &key(7), &head_said.digest()).is_err());
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(read(&folder, &key(7), &head_said.digest()).is_ok(), "the control");
        let mut other = kept();
        other.begun.facts.insert("who".to_owned(), "somebody else".to_owned());
        other.write(&folder).unwrap();
        assert!(read(&folder, &key(7), &head_said.digest()).is_err(), "another visitor's name");
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_the_chain_ends_before_it() {
        let (dir, folder, _) = recorded();
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert!(Recording::over(full, "/dev/full".into(), &kept(), &key(1), 0).is_err());
        // Half a chunk, as a crash leaves it, is none.
        let whole = head(&folder, &kept()).unwrap();
        let mut file = File::options().append(true).open(folder.join("chunks")).unwrap();
        file.write_all(&[0, 0, 0, 99, 1, 2, 3]).unwrap();
        assert_eq!(head(&folder, &kept()).unwrap(), whole);
        drop(dir);
    }
}
