//! Volumes as files in a pool, each under its own data key: LUKS1, whose header is the first thing on the disk.
//!
//! ```text
//! <pool>/<project uid>/<name>.key    the data key, wrapped; synced before the volume is formatted
//! <pool>/<project uid>/<name>.luks   header and data; formatted beside itself, synced, renamed: whole or not there
//! ```
//! A plain key goes to cryptsetup through a pipe and is in no file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use dejima_crds::bounded::{Label, Uid, WrappedKey};
use dejima_crds::host_plan::VolumePlan;
use dejima_plan::Seen;
use dejima_plan::host::VolumeSeen;
use dejima_plan::sweep::{Kind, Owned, Thing};

use crate::driver::{Error, PlainKey, Storage};
use crate::kept::write_whole;
use crate::luks::{HEADER, format};

/// A directory of volumes.
#[derive(Clone, Debug)]
pub struct Pool {
    path: PathBuf,
}

/// The places of one volume.
#[derive(Clone, Debug)]
struct Places {
    key: PathBuf,
    volume: PathBuf,
    part: PathBuf,
}

impl Pool {
    /// A pool in a directory, which is made.
    pub fn new(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(|cause| Error::driver("make the pool", path.display().to_string(), cause))?;
        Ok(Self { path: path.to_owned() })
    }

    /// How many bytes the file system that holds the pool has in all (statvfs(3)).
    pub fn capacity(&self) -> Result<u64, Error> {
        let found = rustix::fs::statvfs(&self.path).map_err(|cause| Error::driver("measure", self.path.display().to_string(), cause))?;
        Ok(found.f_blocks.saturating_mul(found.f_frsize))
    }

    /// The file of a volume, for whoever attaches it.
    pub fn file(&self, project: &Uid, name: &Label) -> Result<PathBuf, Error> {
        Ok(self.places(project, name)?.volume)
    }

    /// The volume of a project whose file this is.
    pub fn name_of(&self, project: &Uid, file: &Path) -> Option<Label> {
        let name = Label::from(file.file_stem()?.to_str()?);
        (self.file(project, &name).ok()? == file).then_some(name)
    }

    fn places(&self, project: &Uid, name: &Label) -> Result<Places, Error> {
        let safe = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !safe(project.as_str()) || !safe(name.as_str()) {
            return Err(Error::Missing(format!("`{project}` and `{name}` are no names of files")));
        }
        let folder = self.path.join(project.as_str());
        let at = |end: &str| folder.join(format!("{name}.{end}"));
        Ok(Places {
            key: at("key"),
            volume: at("luks"),
            part: at("part"),
        })
    }

    async fn on<T: Send + 'static>(
        &self,
        project: &Uid,
        name: &Label,
        what: &'static str,
        work: impl FnOnce(Places) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (places, shown) = (self.places(project, name)?, name.to_string());
        let done = tokio::task::spawn_blocking(move || work(places))
            .await
            .map_err(|cause| Error::driver(what, shown.clone(), cause))?;
        done.map_err(|cause| Error::driver(what, format!("volume {shown}"), cause))
    }
}

fn sync_folder(file: &Path) -> std::io::Result<()> {
    file.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

/// Makes a volume's file beside its place: whole, and on the disk, when this returns.
fn make(part: &Path, bytes: u64, key: &PlainKey) -> std::io::Result<()> {
    let file = std::fs::File::create_new(part)?;
    file.set_len(bytes + HEADER)?;
    format(part, key)?;
    file.sync_all()
}

fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn look(folder: &Path) -> std::io::Result<Vec<VolumeSeen>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let ours = path.extension().is_some_and(|end| end == "key" || end == "luks");
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()).filter(|_| ours) {
            names.insert(name.to_owned());
        }
    }
    let one = |name: String| {
        let at = |end: &str| folder.join(format!("{name}.{end}"));
        let wrapped_key = match std::fs::read_to_string(at("key")) {
            Ok(text) => Some(WrappedKey::from(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let bytes = match std::fs::metadata(at("luks")) {
            Ok(found) => Some(found.len().saturating_sub(HEADER)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(VolumeSeen {
            name: name.into(),
            bytes: bytes.unwrap_or(0),
            wrapped_key,
            formatted: bytes.is_some(),
        })
    };
    names.into_iter().map(one).collect()
}

/// What lies in a pool: volumes, their wrapped keys, and what never became one.
fn list(pool: &Path) -> std::io::Result<Vec<Thing>> {
    let mut all = Vec::new();
    for project in std::fs::read_dir(pool)? {
        let folder = project?.path();
        let Some(uid) = folder.file_name().and_then(|name| name.to_str()).map(Uid::from) else {
            continue;
        };
        for file in std::fs::read_dir(&folder)? {
            let path = file?.path();
            let Some(name) = path.file_stem().and_then(|name| name.to_str()).map(Label::from) else {
                continue;
            };
            match path.extension().and_then(|end| end.to_str()) {
                Some("key" | "luks") => all.push(Thing::Volume(uid.clone(), name)),
                Some("part") => all.push(Thing::Unmade(uid.clone(), name)),
                Some(_) | None => {}
            }
        }
    }
    Ok(all)
}

/// The last file takes the directory with it.
fn leave(places: &Places) -> std::io::Result<()> {
    match places.volume.parent() {
        Some(folder) if std::fs::read_dir(folder).is_ok_and(|mut left| left.next().is_none()) => {
            std::fs::remove_dir(folder)?;
            sync_folder(folder)
        }
        // Somebody else took the last one, or the directory with it.
        Some(_) => gone(sync_folder(&places.volume)),
        None => Ok(()),
    }
}

#[async_trait]
impl Storage for Pool {
    async fn observe(&self, project: &Uid) -> Seen<Vec<VolumeSeen>> {
        let folder = self.path.join(project.as_str());
        match tokio::task::spawn_blocking(move || look(&folder)).await {
            Ok(Ok(found)) if found.is_empty() => Seen::Absent,
            Ok(Ok(found)) => Seen::Present(found),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Seen::Absent,
            Ok(Err(_)) | Err(_) => Seen::Unknown,
        }
    }

    async fn keep_key(&self, project: &Uid, volume: &VolumePlan, wrapped: &WrappedKey) -> Result<(), Error> {
        let wrapped = wrapped.clone();
        self.on(project, &volume.name, "keep the key of", move |places| {
            if places.volume.exists() {
                return Err(std::io::Error::other("it is formatted: another key would lose it"));
            }
            if let Some(folder) = places.key.parent() {
                std::fs::create_dir_all(folder)?;
                sync_folder(folder)?;
            }
            write_whole(&places.key, wrapped.as_str().as_bytes())
        })
        .await
    }

    async fn format(&self, project: &Uid, volume: &VolumePlan, key: &PlainKey) -> Result<(), Error> {
        let (bytes, key) = (volume.bytes, key.clone());
        self.on(project, &volume.name, "format", move |places| {
            if places.volume.exists() {
                return Ok(());
            }
            if !places.key.exists() {
                return Err(std::io::Error::other("its wrapped key was not kept: it could never be opened"));
            }
            // What an earlier try left is not whole.
            gone(std::fs::remove_file(&places.part))?;
            let made = make(&places.part, bytes, &key);
            if made.is_err() {
                // Where the disk is full it would be in the way of what comes next. What is left all the same is swept.
                let _ = std::fs::remove_file(&places.part);
            }
            made?;
            std::fs::rename(&places.part, &places.volume)?;
            sync_folder(&places.volume)
        })
        .await
    }

    async fn grow(&self, project: &Uid, volume: &VolumePlan) -> Result<(), Error> {
        let bytes = volume.bytes + HEADER;
        self.on(project, &volume.name, "grow", move |places| {
            let file = std::fs::File::options().write(true).open(&places.volume)?;
            if file.metadata()?.len() < bytes {
                file.set_len(bytes)?;
            }
            file.sync_all()
        })
        .await
    }

    async fn remove(&self, project: &Uid, name: &Label) -> Result<(), Error> {
        self.on(project, name, "remove", |places| {
            // The wrapped key first: without it the rest is noise, whatever happens next.
            gone(std::fs::remove_file(&places.key))?;
            gone(std::fs::remove_file(&places.part))?;
            gone(std::fs::remove_file(&places.volume))?;
            leave(&places)
        })
        .await
    }

    async fn list_owned(&self) -> Owned {
        let pool = self.path.clone();
        match tokio::task::spawn_blocking(move || list(&pool)).await {
            Ok(Ok(all)) => Owned::found(all),
            Ok(Err(_)) | Err(_) => Owned::unknown(Kind::Volumes),
        }
    }

    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        let Thing::Unmade(project, name) = thing else {
            return Err(Error::Missing(format!("no {} is ever swept from a pool", thing.word())));
        };
        let sweep = |places: Places| {
            gone(std::fs::remove_file(&places.part))?;
            leave(&places)
        };
        self.on(project, name, "clear", sweep).await
    }
}
