//! Seals one shard: its files into a reproducible read-only image (erofs), that under its own key (LUKS1), that into the image store.
//!
//! ```text
//! source --copy, compared with the manifest--> staging --mkfs.erofs--> image --qemu-img--> encrypted file --> image store
//! ```
//! A plain key is never a file: cryptsetup and qemu-img get it through a pipe.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dejima_crds::bounded::{Digest, KeyName, ShardId, Uid, WrappedKey};
use dejima_crds::dataset::Shard;
use dejima_crds::names;
use dejima_plan::manifest::ShardFiles;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncReadExt as _;

use crate::driver::{Error, PlainKey};
use crate::luks::{self, HEADER};
use crate::scan::{Source, digest};

/// Where a host that seals finds and keeps things.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The directory below which all intake roots lie.
    pub sources: PathBuf,
    /// Scratch space, on a disk as well protected as the sources: what lies here is plain for a moment.
    pub scratch: PathBuf,
    /// The image store.
    pub store: Arc<dyn ObjectStore>,
    /// Notes of what was put into the image store: what is never reported is nobody's there, and must be found again.
    pub put: PathBuf,
}

impl Intake {
    fn notes(&self, dataset: &Uid) -> PathBuf {
        self.put.join(dataset.as_str())
    }

    fn note(&self, dataset: &Uid, shard: &ShardId, stored: &Digest) -> PathBuf {
        self.notes(dataset).join(format!("{shard}.{}", stored.hex()))
    }

    /// Notes, on disk before the answer, that a shard of a dataset is put into the image store as this encrypted file.
    pub(crate) fn put(&self, dataset: &Uid, shard: &ShardId, stored: &Digest) -> std::io::Result<()> {
        std::fs::create_dir_all(self.notes(dataset))?;
        std::fs::File::create(self.note(dataset, shard, stored))?.sync_all()?;
        std::fs::File::open(self.notes(dataset))?.sync_all()
    }

    /// What was put into the image store of a dataset: each shard, and its encrypted file.
    pub fn noted(&self, dataset: &Uid) -> Result<Vec<(ShardId, Digest)>, Error> {
        let folder = self.notes(dataset);
        let failed = |cause: std::io::Error| Error::driver("read", folder.display().to_string(), cause);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            if let Some((shard, hex)) = name.to_str().and_then(|name| name.split_once('.')) {
                all.push((shard.into(), format!("sha256:{hex}").into()));
            }
        }
        Ok(all)
    }

    /// Forgets a note: what it says was reported, or is gone.
    pub fn forget(&self, dataset: &Uid, shard: &ShardId, stored: &Digest) -> Result<(), Error> {
        let path = self.note(dataset, shard, stored);
        std::fs::remove_file(&path).map_err(|cause| Error::driver("forget", path.display().to_string(), cause))?;
        // The directory goes with the last of them.
        let _ = std::fs::remove_dir(self.notes(dataset));
        Ok(())
    }
}

/// The path of an encrypted shard in the image store: by its content, so that nothing is ever written over.
pub fn store_path(stored: &Digest) -> StorePath {
    StorePath::from(format!("shards/{}.luks", stored.hex()))
}

fn run(what: &'static str, command: &mut Command, key: Option<&PlainKey>) -> Result<(), Error> {
    luks::run(command, key).map_err(|cause| Error::driver(what, "of a shard", cause))
}

/// Copies the files of a shard, and fails, naming the file, if one is no longer what was read.
fn stage(source: &Source, shard: &ShardFiles, folder: &Path) -> Result<(), Error> {
    for entry in &shard.files {
        let target = folder.join(&entry.path);
        let failed = |cause: std::io::Error| Error::driver("copy", format!("`{}`", entry.path), cause);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut copy = std::fs::File::create(&target).map_err(failed)?;
        let (bytes, seen) = digest(&mut source.file(&entry.path)?, |piece| copy.write_all(piece)).map_err(failed)?;
        if (bytes, &seen) != (entry.bytes, &entry.digest) {
            return Err(Error::Missing(format!(
                "`{}` changed while it was sealed: raise revision when the source stands still",
                entry.path
            )));
        }
    }
    Ok(())
}

/// Makes the image and the encrypted file beside it; their digests.
fn encrypt(shard: &ShardFiles, staging: &Path, image: &Path, sealed: &Path, key: &PlainKey) -> Result<(Digest, Digest), Error> {
    let uuid = names::id(&shard.id.as_str().into(), "image").to_string();
    run(
        "make the image",
        Command::new("mkfs.erofs")
            .args(["-T0", "--all-root", "-U", &uuid])
            .arg(image)
            .arg(staging),
        None,
    )?;
    let failed = |cause: std::io::Error| Error::driver("read", image.display().to_string(), cause);
    let (bytes, plain) = digest(&mut std::fs::File::open(image).map_err(failed)?, |_| Ok(())).map_err(failed)?;
    std::fs::File::create(sealed)
        .and_then(|file| file.set_len(bytes + HEADER))
        .map_err(failed)?;
    luks::format(sealed, key).map_err(|cause| Error::driver("format", sealed.display().to_string(), cause))?;
    let mut convert = Command::new("qemu-img");
    convert
        .args([
            "convert",
            "-n",
            "--object",
            "secret,id=key,file=/dev/stdin,format=raw",
            "-f",
            "raw",
            "--target-image-opts",
        ])
        .arg(image);
    // In a list of options a comma is written twice (qemu-img(1)).
    let named = sealed.display().to_string().replace(',', ",,");
    convert.arg(format!("driver=luks,key-secret=key,file.driver=file,file.filename={named}"));
    run("encrypt", &mut convert, Some(key))?;
    let (_, stored) = digest(&mut std::fs::File::open(sealed).map_err(failed)?, |_| Ok(())).map_err(failed)?;
    Ok((plain, stored))
}

/// Seals one shard. Whatever comes of it, nothing plain is left in the scratch space.
pub async fn seal(
    intake: &Intake,
    dataset: &Uid,
    source: Arc<Source>,
    shard: ShardFiles,
    name: KeyName,
    key: PlainKey,
    wrapped: WrappedKey,
) -> Result<Shard, Error> {
    let home = intake.scratch.join(shard.id.as_str());
    let work = async {
        let failed = |cause: std::io::Error| Error::driver("use the scratch space", "of this host", cause);
        // What an earlier life left is not whole.
        clear(&home).await?;
        let (staging, image, sealed) = (home.join("files"), home.join("image.erofs"), home.join("sealed.luks"));
        tokio::fs::create_dir_all(&staging).await.map_err(failed)?;
        let (bytes, files, id) = (shard.bytes(), shard.files.len() as u64, shard.id.clone());
        let work = {
            let (staging, image, sealed) = (staging.clone(), image.clone(), sealed.clone());
            move || {
                stage(&source, &shard, &staging)?;
                encrypt(&shard, &staging, &image, &sealed, &key)
            }
        };
        let (digest, stored_digest) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|cause| Error::driver("seal", "a shard", cause))??;
        let path = store_path(&stored_digest);
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| Error::driver("put into the image store", path.to_string(), cause);
        intake.put(dataset, &id, &stored_digest).map_err(|cause| failed(cause.into()))?;
        put(intake.store.as_ref(), &sealed, &path).await.map_err(failed)?;
        Ok(Shard {
            id,
            digest,
            stored_digest,
            key: name,
            wrapped_key: wrapped,
            bytes,
            files,
        })
    };
    let sealed = work.await;
    let cleared = clear(&home).await;
    sealed.and_then(|sealed| cleared.map(|()| sealed))
}

/// The smallest part of an upload; S3 takes parts of 5 MiB or more, and 10,000 of them.
const PART: u64 = 10 << 20;

/// Puts a file into the image store, whole or not at all: what was begun and failed would be in the way of what comes next.
async fn put(store: &dyn ObjectStore, file: &Path, path: &StorePath) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut from = tokio::fs::File::open(file).await?;
    let part = PART.max(from.metadata().await?.len() / 9_000);
    let mut upload = store.put_multipart(path).await?;
    let sent = async {
        loop {
            let mut piece = Vec::new();
            if (&mut from).take(part).read_to_end(&mut piece).await? == 0 {
                break;
            }
            upload.put_part(piece.into()).await?;
        }
        upload.complete().await?;
        Ok(())
    };
    let sent = sent.await;
    if sent.is_err()
        && let Err(error) = upload.abort().await
    {
        tracing::warn!(%path, %error, "what was never whole stays in the image store");
    }
    sent
}

/// Takes an encrypted shard out of the image store; one that is not there is as good.
pub async fn remove(intake: &Intake, stored: &Digest) -> Result<(), Error> {
    let path = store_path(stored);
    match intake.store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(cause) => Err(Error::driver("take out of the image store", path.to_string(), cause)),
    }
}

/// Removes a directory of the scratch space, or all of it: what a life that was cut short has left is plain.
pub async fn clear(folder: &Path) -> Result<(), Error> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::driver("clear", folder.display().to_string(), cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}
