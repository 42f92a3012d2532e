//! What a host fetches from the image store: checked against its digest as it comes, whole or not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dejima_crds::bounded::{Digest, SubPath};
use dejima_crds::host_plan::ShardPlan;
use futures::StreamExt as _;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use dejima_plan::sweep::Thing;

use crate::driver::Error;
use crate::seal::store_path;

/// How a file ends that was never whole.
pub(crate) const PART: &str = ".part";
const FOLDERS: [&str; 2] = ["shards", "images"];
/// A file of the store that was read: its size and time, and its digest.
type Known = ((u64, String), Digest);

/// Fetched files on this host: encrypted shards, and what machines boot.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    store: Arc<dyn ObjectStore>,
    // What was read of the store's images, so that it need not be read again.
    read: Arc<Mutex<BTreeMap<StorePath, Known>>>,
}

impl Cache {
    /// A cache in a directory, which is made.
    pub fn new(dir: &Path, store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        for name in FOLDERS {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(|cause| Error::driver("make", path.display().to_string(), cause))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            store,
            read: Arc::default(),
        })
    }

    /// Where encrypted shards lie.
    pub fn shards(&self) -> PathBuf {
        self.dir.join("shards")
    }

    /// Where an encrypted shard lies.
    pub(crate) fn shard_file(&self, digest: &Digest) -> PathBuf {
        self.shards().join(format!("{}.luks", digest.hex()))
    }

    /// The digest that the name of a fetched shard bears.
    pub(crate) fn fetched(file: &Path) -> Option<Digest> {
        let hex = file.file_name()?.to_str()?.strip_suffix(".luks")?;
        Some(Digest::from(format!("sha256:{hex}")))
    }

    /// A file that was never whole, by its name below the cache.
    pub(crate) fn part(&self, name: &str) -> Option<PathBuf> {
        let (folder, file) = name.split_once('/')?;
        let plain = FOLDERS.contains(&folder) && file.ends_with(PART) && !file.contains('/');
        plain.then(|| self.dir.join(folder).join(file))
    }

    /// The shards that lie here, and what was never whole.
    pub(crate) fn list(&self) -> std::io::Result<Vec<Thing>> {
        let mut all = Vec::new();
        for folder in FOLDERS {
            for entry in std::fs::read_dir(self.dir.join(folder))? {
                let path = entry?.path();
                let name = format!("{folder}/{}", path.file_name().unwrap_or_default().to_string_lossy());
                if self.part(&name).is_some() {
                    all.push(Thing::Part(name));
                } else if let Some(digest) = Self::fetched(&path) {
                    all.push(Thing::Fetched(digest));
                }
            }
        }
        Ok(all)
    }

    /// An encrypted shard, checked now; one that is not what was sealed is not kept, and the error names it.
    pub async fn shard(&self, shard: &ShardPlan) -> Result<PathBuf, Error> {
        let (path, what) = (self.shard_file(&shard.stored_digest), format!("shard {}", shard.id));
        if let Some(found) = digest_of(&path, &what).await? {
            if found == shard.stored_digest.hex() {
                return Ok(path);
            }
            // Whoever has it open reads on from what he has; nobody else gets it.
            tracing::warn!(shard = %shard.id, "what lies in the cache is not what was sealed: it is fetched anew");
            let removed = tokio::fs::remove_file(&path).await;
            removed.map_err(|cause| Error::driver("remove", what.clone(), cause))?;
        }
        self.file(&store_path(&shard.stored_digest), &shard.stored_digest, path, &what)
            .await
    }

    /// An encrypted shard that was fetched and checked just before.
    pub fn there(&self, shard: &ShardPlan) -> Result<PathBuf, Error> {
        let path = self.shard_file(&shard.stored_digest);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::Missing(format!("shard {} was not fetched", shard.id)))
    }

    /// A file that machines boot.
    pub async fn image(&self, source: &SubPath, digest: &Digest) -> Result<PathBuf, Error> {
        let path = self.dir.join("images").join(digest.hex());
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(path);
        }
        self.file(&StorePath::from(source.as_str()), digest, path, source.as_str()).await
    }

    /// The digests of what lies below `images` in the store. A file is read again only where it is another one than before.
    pub async fn offered(&self) -> Result<BTreeSet<Digest>, Error> {
        let lost = |cause: object_store::Error| Error::driver("look for images", "in the image store", cause);
        let mut found = BTreeMap::new();
        let mut listed = self.store.list(Some(&StorePath::from("images")));
        while let Some(file) = listed.next().await {
            let file = file.map_err(lost)?;
            let is = (file.size, file.last_modified.to_string());
            let known = self
                .read
                .lock()
                .await
                .get(&file.location)
                .filter(|(known, _)| *known == is)
                .cloned();
            let known = match known {
                Some(known) => known,
                None => (is, self.digest_of(&file.location).await.map_err(lost)?),
            };
            found.insert(file.location, known);
        }
        let digests = found.values().map(|(_, digest)| digest.clone()).collect();
        *self.read.lock().await = found;
        Ok(digests)
    }

    async fn digest_of(&self, path: &StorePath) -> Result<Digest, object_store::Error> {
        let mut stream = self.store.get(path).await?.into_stream();
        let mut sum = Sha256::new();
        while let Some(piece) = stream.next().await {
            sum.update(&piece?);
        }
        Ok(Digest::from(format!("sha256:{}", hex::encode(sum.finalize()))))
    }

    async fn file(&self, from: &StorePath, digest: &Digest, path: PathBuf, what: &str) -> Result<PathBuf, Error> {
        let part = path.with_extension("part");
        let fetched = self.part_of(from, digest, &part, what).await;
        if fetched.is_err() {
            // Where the disk is full it would be in the way of what comes next. What is left all the same is swept.
            let _ = tokio::fs::remove_file(&part).await;
        }
        fetched?;
        let renamed = tokio::fs::rename(&part, &path).await;
        renamed.map_err(|cause| Error::driver("fetch", what.to_owned(), cause))?;
        Ok(path)
    }

    /// Fetches a file beside its place, and checks it as it comes.
    async fn part_of(&self, from: &StorePath, digest: &Digest, part: &Path, what: &str) -> Result<(), Error> {
        let failed = |cause: std::io::Error| Error::driver("fetch", what.to_owned(), cause);
        let lost = |cause: object_store::Error| Error::driver("fetch", what.to_owned(), cause);
        let mut file = tokio::fs::File::create(part).await.map_err(failed)?;
        let mut stream = self.store.get(from).await.map_err(lost)?.into_stream();
        let mut sum = Sha256::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(lost)?;
            sum.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        if hex::encode(sum.finalize()) == digest.hex() {
            return Ok(());
        }
        Err(Error::Damaged(format!(
            "{what} in the image store is not what was sealed: it is not used"
        )))
    }
}

/// The digest of a file, in hex; nothing where there is none.
async fn digest_of(path: &Path, what: &str) -> Result<Option<String>, Error> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut sum = Sha256::new();
        std::io::copy(&mut file, &mut sum)?;
        Ok(Some(hex::encode(sum.finalize())))
    });
    let read: std::io::Result<Option<String>> = read.await.map_err(|cause| Error::driver("read", what.to_owned(), cause))?;
    read.map_err(|cause| Error::driver("read", what.to_owned(), cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn what_is_fetched_is_what_was_sealed_or_it_is_not_used() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let put = |path: &'static str, bytes: &'static [u8]| {
            let store = Arc::clone(&store);
            async move { store.put(&StorePath::from(path), PutPayload::from_static(bytes)).await.unwrap() }
        };
        put("images/kernel", b"a kernel").await;
        put("images/flipped", b"a kernfl").await;
        let cache = Cache::new(dir.path(), store.clone()).unwrap();
        let digest = dejima_crds::digest::of_bytes(b"a kernel");
        let path = cache.image(&"images/kernel".into(), &digest).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a kernel");
        std::fs::remove_file(&path).unwrap();
        let error = cache.image(&"images/flipped".into(), &digest).await.unwrap_err();
        assert!(error.to_string().contains("images/flipped"), "{error}");
        assert!(cache.image(&"images/none".into(), &digest).await.is_err());
        assert!(!path.exists(), "nothing of it is kept");
        // What the store offers is known by its bytes.
        let flipped = dejima_crds::digest::of_bytes(b"a kernfl");
        assert_eq!(cache.offered().await.unwrap(), BTreeSet::from([digest.clone(), flipped.clone()]));
        put("images/flipped", b"a kernel").await;
        put("shards/other", b"a shard").await;
        assert_eq!(cache.offered().await.unwrap(), BTreeSet::from([digest]));
    }

    #[tokio::test]
    async fn a_shard_that_lies_here_is_checked_again_and_one_with_a_flipped_byte_is_not_used() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let cache = Cache::new(dir.path(), store.clone()).unwrap();
        let digest = dejima_crds::digest::of_bytes(b"an encrypted shard");
        let shard: ShardPlan = serde_json::from_value(serde_json::json!({"id": "00000000000000aa", "serial": "a", "digest": digest,
            "storedDigest": digest, "key": "k", "wrappedKey": "vault:v1:YQ=="}))
        .unwrap();
        let place = store_path(&digest);
        store.put(&place, PutPayload::from_static(b"an encrypted shard")).await.unwrap();
        assert!(cache.there(&shard).is_err(), "nobody fetched it");
        let path = cache.shard(&shard).await.unwrap();
        assert_eq!(cache.there(&shard).unwrap(), path);
        // What is good is not fetched again: the store has lost it.
        store.delete(&place).await.unwrap();
        assert_eq!(cache.shard(&shard).await.unwrap(), path);
        // A byte flips here: fetched anew, where the store's copy is good.
        std::fs::write(&path, b"an encrypted shbrd").unwrap();
        store.put(&place, PutPayload::from_static(b"an encrypted shard")).await.unwrap();
        cache.shard(&shard).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"an encrypted shard");
        // One flips in both places: it is used nowhere, and the reason names the shard.
        std::fs::write(&path, b"an encrypted shbrd").unwrap();
        store.put(&place, PutPayload::from_static(b"bn encrypted shard")).await.unwrap();
        let error = cache.shard(&shard).await.unwrap_err();
        assert!(
            error.to_string().contains("00000000000000aa") && error.reason() == "Damaged",
            "{error}"
        );
        assert!(
            cache.there(&shard).is_err() && cache.list().unwrap().is_empty(),
            "nothing of it is kept"
        );
    }

    #[tokio::test]
    async fn a_part_is_a_file_of_the_cache_and_no_other() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let cache = Cache::new(dir.path(), store).unwrap();
        std::fs::write(dir.path().join("shards/aa.part"), b"half").unwrap();
        std::fs::write(dir.path().join("images/a-kernel"), b"whole").unwrap();
        assert_eq!(cache.list().unwrap(), [Thing::Part("shards/aa.part".to_owned())]);
        assert!(cache.part("shards/aa.part").is_some());
        for name in ["shards/../../etc/x.part", "etc/x.part", "shards/aa.luks", "x.part"] {
            assert_eq!(cache.part(name), None, "{name}");
        }
    }
}
