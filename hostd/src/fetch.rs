//! What a host fetches from the image store: checked against its digest as it comes, whole or not there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dejima_crds::bounded::{Digest, SubPath};
use dejima_crds::host_plan::ShardPlan;
use futures::StreamExt as _;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::driver::Error;
use crate::seal::store_path;

/// Fetched files on this host: encrypted shards, and what machines boot.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    store: Arc<dyn ObjectStore>,
}

impl Cache {
    /// A cache in a directory, which is made.
    pub fn new(dir: &Path, store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        for name in ["shards", "images"] {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(|cause| Error::driver("make", path.display().to_string(), cause))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            store,
        })
    }

    /// Where encrypted shards lie.
    pub fn shards(&self) -> PathBuf {
        self.dir.join("shards")
    }

    /// An encrypted shard; one that is not what was sealed is not kept, and the error names it.
    pub async fn shard(&self, shard: &ShardPlan) -> Result<PathBuf, Error> {
        let path = self.shards().join(format!("{}.luks", shard.stored_digest.hex()));
        let what = format!("shard {}", shard.id);
        self.file(&store_path(&shard.stored_digest), &shard.stored_digest, path, &what)
            .await
    }

    /// A file that machines boot.
    pub async fn image(&self, source: &SubPath, digest: &Digest) -> Result<PathBuf, Error> {
        let path = self.dir.join("images").join(digest.hex());
        self.file(&StorePath::from(source.as_str()), digest, path, source.as_str()).await
    }

    async fn file(&self, from: &StorePath, digest: &Digest, path: PathBuf, what: &str) -> Result<PathBuf, Error> {
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(path);
        }
        let failed = |cause: std::io::Error| Error::driver("fetch", what.to_owned(), cause);
        let lost = |cause: object_store::Error| Error::driver("fetch", what.to_owned(), cause);
        let part = path.with_extension("part");
        let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
        let mut stream = self.store.get(from).await.map_err(lost)?.into_stream();
        let mut sum = Sha256::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(lost)?;
            sum.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let found = hex::encode(sum.finalize());
        if found != digest.hex() {
            tokio::fs::remove_file(&part).await.map_err(failed)?;
            return Err(Error::Missing(format!(
                "{what} in the image store is not what was sealed: it is not used"
            )));
        }
        tokio::fs::rename(&part, &path).await.map_err(failed)?;
        Ok(path)
    }
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
    }
}
