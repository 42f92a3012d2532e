//! The user's cache: what was built or fetched once, keyed by what it was made from.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::run::{Error, file};

/// The cache directory of Dejima.
pub fn root() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    base.unwrap_or_else(|| PathBuf::from("/var/cache")).join("dejima")
}

/// The cache of what a hypervisor must read: it runs as a user of its own, and a home directory is often closed to it.
pub fn shared() -> PathBuf {
    PathBuf::from("/var/cache/dejima")
}

/// A key over everything that a thing is made from.
pub fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize()).chars().take(16).collect()
}

/// The directory `name-key` in the cache: made by `make` in a directory beside it, then renamed, so that it is there whole or not at all.
pub fn entry(name: &str, key: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
    entry_in(&root(), name, key, make)
}

/// The same in another cache.
pub fn entry_in(cache: &Path, name: &str, key: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
    let whole = cache.join(format!("{name}-{key}"));
    if whole.is_dir() {
        return Ok(whole);
    }
    let part = cache.join(format!("{name}-{key}.{}", std::process::id()));
    file("make", &part, std::fs::create_dir_all(&part))?;
    if let Err(error) = make(&part) {
        // Nobody asks for a part.
        let _ = std::fs::remove_dir_all(&part);
        return Err(error);
    }
    match std::fs::rename(&part, &whole) {
        Ok(()) => Ok(whole),
        // Somebody else was first; what he made came from the same.
        Err(_) if whole.is_dir() => {
            let _ = std::fs::remove_dir_all(&part);
            Ok(whole)
        }
        Err(cause) => Err(Error::File {
            what: "rename",
            path: part.display().to_string(),
            cause,
        }),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_tells_where_one_part_ends_and_the_next_begins() {
        assert_ne!(super::key(&[b"ab", b"c"]), super::key(&[b"a", b"bc"]));
        assert_eq!(super::key(&[b"ab", b"c"]), super::key(&[b"ab", b"c"]));
    }
}
