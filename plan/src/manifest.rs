//! Manifests and shards of a dataset version: from the list of its files, and from nothing else.
//!
//! A manifest has a line for every file, sorted by path: `<sha256> <size> <path>`. Files fall into shards by the hash of
//! their path: a shard that is too large is split by the next bit of that hash, so that a file that changes touches its
//! own shard, and a version shares the shards that did not change. A shard's id is the digest of its part of the
//! manifest, so that an unchanged shard is known again without a look at its bytes.

use dejima_crds::bounded::{Digest, ShardId};
use dejima_crds::digest::of_bytes;
use dejima_crds::host_plan::{Scanned, ScannedShard};

/// One file as it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Its path below the source, with `/`.
    pub path: String,
    /// How many bytes.
    pub bytes: u64,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
}

/// One shard: some of the files, sorted by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFiles {
    /// Its id.
    pub id: ShardId,
    /// Its files.
    pub files: Vec<FileEntry>,
}

impl ShardFiles {
    /// How many bytes its files have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A file that no shard can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is larger than a shard may be.
    #[error("file `{path}` has {bytes} bytes, a shard holds at most {limit}: raise source.shardBytes")]
    TooLarge {
        /// Which.
        path: String,
        /// How large.
        bytes: u64,
        /// How large a shard may be.
        limit: u64,
    },
    /// There would be more shards than a version may have.
    #[error("{0} shards are more than 1,000: raise source.shardBytes")]
    TooMany(usize),
    /// A path that would break a line.
    #[error("file `{0}` has a line break in its name: rename it")]
    Name(String),
}

/// The manifest of some files; they must be sorted.
fn text(files: &[FileEntry]) -> String {
    files.iter().fold(String::new(), |mut text, file| {
        text.push_str(file.digest.hex());
        text.push(' ');
        text.push_str(&file.bytes.to_string());
        text.push(' ');
        text.push_str(&file.path);
        text.push('\n');
        text
    })
}

/// The bit of the hash of a path at a depth.
fn bit(path: &str, depth: usize) -> bool {
    let digest = of_bytes(path.as_bytes());
    let digit = digest.hex().as_bytes().get(depth / 4).copied().unwrap_or(b'0');
    let value = char::from(digit).to_digit(16).unwrap_or(0);
    value >> (3 - depth % 4) & 1 == 1
}

fn split(files: Vec<FileEntry>, limit: u64, depth: usize, shards: &mut Vec<Vec<FileEntry>>) {
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    // After 256 bits two files have one path.
    if bytes <= limit || files.len() <= 1 || depth >= 256 {
        if !files.is_empty() {
            shards.push(files);
        }
        return;
    }
    let (ones, zeros): (Vec<FileEntry>, Vec<FileEntry>) = files.into_iter().partition(|file| bit(&file.path, depth));
    split(zeros, limit, depth + 1, shards);
    split(ones, limit, depth + 1, shards);
}

/// The shards of a list of files, and what is reported of them.
pub fn shards(mut files: Vec<FileEntry>, limit: u64, version: u32) -> Result<(Vec<ShardFiles>, Scanned), Error> {
    files.sort();
    if let Some(file) = files.iter().find(|file| file.bytes > limit) {
        return Err(Error::TooLarge {
            path: file.path.clone(),
            bytes: file.bytes,
            limit,
        });
    }
    if let Some(file) = files.iter().find(|file| file.path.contains('\n')) {
        return Err(Error::Name(file.path.clone()));
    }
    let manifest_digest = of_bytes(text(&files).as_bytes());
    let (bytes, count) = (files.iter().map(|file| file.bytes).sum(), files.len() as u64);
    let mut parts = Vec::new();
    split(files, limit, 0, &mut parts);
    if parts.len() > 1000 {
        return Err(Error::TooMany(parts.len()));
    }
    let shards: Vec<ShardFiles> = parts
        .into_iter()
        .map(|files| ShardFiles {
            id: ShardId::from(of_bytes(text(&files).as_bytes()).short(16)),
            files,
        })
        .collect();
    let scanned = shards.iter().map(|shard| ScannedShard {
        id: shard.id.clone(),
        bytes: shard.bytes(),
        files: shard.files.len() as u64,
    });
    let scanned = Scanned {
        version,
        manifest_digest,
        bytes,
        files: count,
        shards: scanned.collect(),
    };
    Ok((shards, scanned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, bytes: u64, content: &str) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            bytes,
            digest: of_bytes(content.as_bytes()),
        }
    }

    #[test]
    fn a_version_with_one_file_changed_shares_the_other_shards() {
        let files: Vec<FileEntry> = (0..40).map(|at| file(&format!("ct/{at}.dcm"), 10, "a")).collect();
        let (before, one) = shards(files.clone(), 100, 1).unwrap();
        let mut changed = files;
        changed[7].digest = of_bytes(b"b");
        let (after, two) = shards(changed, 100, 2).unwrap();
        assert!(before.len() >= 4);
        assert_eq!(
            before
                .iter()
                .filter(|shard| !after.iter().any(|other| other.id == shard.id))
                .count(),
            1
        );
        assert_ne!(one.manifest_digest, two.manifest_digest);
    }

    #[test]
    fn what_no_shard_can_hold_is_named() {
        let error = shards(vec![file("huge.dcm", 101, "a")], 100, 1).unwrap_err();
        assert!(error.to_string().contains("`huge.dcm`"), "{error}");
        assert!(matches!(shards(vec![file("a\nb", 1, "a")], 100, 1), Err(Error::Name(_))));
    }

    proptest! {
        #[test]
        fn every_file_is_in_one_shard_and_no_shard_is_too_large(sizes in proptest::collection::vec(0_u64..100, 0..80), order in any::<u64>()) {
            let mut files: Vec<FileEntry> = sizes.iter().enumerate().map(|(at, bytes)| file(&format!("{at}"), *bytes, "x")).collect();
            let (all, scanned) = shards(files.clone(), 100, 1).unwrap();
            prop_assert!(all.iter().all(|shard| shard.bytes() <= 100));
            let mut together: Vec<FileEntry> = all.iter().flat_map(|shard| shard.files.clone()).collect();
            together.sort();
            let turn = usize::try_from(order % 80).unwrap_or(0) % files.len().max(1);
            files.rotate_left(turn);
            let (again, same) = shards(files.clone(), 100, 1).unwrap();
            prop_assert_eq!(&again, &all);
            prop_assert_eq!(same, scanned);
            files.sort();
            prop_assert_eq!(together, files);
        }
    }
}
