//! Disks that are full, and disks that fail: what fails is said by name, nothing half-made is used or left in the way, and it goes on
//! once there is space again.
//!
//! The small file systems are mounted in a mount namespace of their own: this test starts itself there again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code stops where it cannot go on")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use dejima_crds::bounded::Uid;
use dejima_crds::host_plan::{ShardPlan, VolumePlan};
use dejima_hostd::Error;
use dejima_hostd::driver::{PlainKey, Storage as _};
use dejima_hostd::fetch::Cache;
use dejima_hostd::scan::Source;
use dejima_hostd::seal::{Intake, seal};
use dejima_hostd::volumes::Pool;
use dejima_plan::Seen;
use dejima_plan::host::VolumeSeen;
use dejima_plan::manifest::shards;
use object_store::local::LocalFileSystem;
use serde_json::json;

const INSIDE: &str = "DEJIMA_TEST_INSIDE";

/// Runs this test again where it may mount; whether this is that run.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut again = Command::new("unshare");
    again
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap());
    let status = again.args(["--exact", "--nocapture", test]).env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "see above");
    false
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A file system in memory, of so many bytes.
fn mount(at: &Path, bytes: u64) {
    std::fs::create_dir_all(at).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", &format!("size={bytes}"), "none", at.to_str().unwrap()],
    );
}

fn resize(at: &Path, bytes: u64) {
    run("mount", &["-o", &format!("remount,size={bytes}"), at.to_str().unwrap()]);
}

/// Takes all the space that there is but so many bytes; the file that takes it.
fn fill(at: &Path, but: u64) -> PathBuf {
    let ballast = at.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let taken = file.metadata().unwrap().len();
    file.set_len(taken - but).unwrap();
    ballast
}

fn volume(name: &str) -> VolumePlan {
    VolumePlan {
        name: name.into(),
        uid: "v-1".into(),
        serial: "0".repeat(32).as_str().into(),
        bytes: 16 << 20,
        attach_to: None,
        mount_path: None,
    }
}

fn key(letter: &str) -> PlainKey {
    PlainKey::new(format!("{}=", letter.repeat(43)))
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source()).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// It failed, in words that name what and why.
#[track_caller]
fn names<T>(result: Result<T, Error>, what: &str) {
    let Err(error) = result else {
        panic!("it went well, on a full disk")
    };
    let said = chain(&error);
    assert!(said.contains(what), "{said}");
}

/// Whether a key opens a volume.
fn opens(file: &Path, key: &PlainKey) -> bool {
    let mut child = Command::new("cryptsetup")
        .args(["open", "--test-passphrase", "--type", "luks1", "--key-file", "-"])
        .arg(file)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

/// The files below a directory that bear no final name.
fn half_made(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let whole = path.extension().is_some_and(|end| end == "luks" || end == "key");
        if path.is_dir() {
            found.extend(half_made(&path));
        } else if !whole && path.file_name().is_some_and(|name| name != "ballast") {
            found.push(path);
        }
    }
    found
}

async fn seen(pool: &Pool, project: &Uid) -> Vec<(String, bool)> {
    match pool.observe(project).await {
        Seen::Present(all) => all
            .iter()
            .map(|VolumeSeen { name, formatted, .. }| (name.to_string(), *formatted))
            .collect(),
        Seen::Absent => Vec::new(),
        Seen::Unknown => panic!("nobody can tell"),
    }
}

#[tokio::test]
async fn a_volume_on_a_full_disk_is_not_made_is_named_and_is_made_once_there_is_space() {
    if !is_inside("a_volume_on_a_full_disk_is_not_made_is_named_and_is_made_once_there_is_space") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let memory = dir.path().join("memory");
    mount(&memory, 8 << 20);
    let (pool, project) = (Pool::new(&memory.join("pool")).unwrap(), Uid::from("p-1"));
    pool.keep_key(&project, &volume("first"), &"vault:v1:a".into()).await.unwrap();
    pool.format(&project, &volume("first"), &key("a")).await.unwrap();

    // No byte is left: not even the wrapped key can be kept, and without it nothing is formatted.
    let ballast = fill(&memory, 0);
    names(
        pool.keep_key(&project, &volume("second"), &"vault:v1:b".into()).await,
        "keep the key of volume second",
    );
    names(pool.format(&project, &volume("second"), &key("b")).await, "volume second");
    assert_eq!(seen(&pool, &project).await, [("first".to_owned(), true)]);
    // The key can be kept, a header not be written.
    std::fs::remove_file(&ballast).unwrap();
    let ballast = fill(&memory, 64 << 10);
    pool.keep_key(&project, &volume("second"), &"vault:v1:b".into()).await.unwrap();
    names(pool.format(&project, &volume("second"), &key("b")).await, "format volume second");
    assert_eq!(
        seen(&pool, &project).await,
        [("first".to_owned(), true), ("second".to_owned(), false)]
    );
    assert_eq!(half_made(&memory), Vec::<PathBuf>::new());
    assert!(
        opens(&pool.file(&project, &"first".into()).unwrap(), &key("a")),
        "what was there is as it was"
    );
    // There is space again.
    std::fs::remove_file(&ballast).unwrap();
    pool.format(&project, &volume("second"), &key("b")).await.unwrap();
    assert!(opens(&pool.file(&project, &"second".into()).unwrap(), &key("b")));
    assert!(!opens(&pool.file(&project, &"second".into()).unwrap(), &key("a")), "the control");
}

#[tokio::test]
async fn a_volume_on_a_disk_that_fails_as_it_is_written_back_is_not_made() {
    if !is_inside("a_volume_on_a_disk_that_fails_as_it_is_written_back_is_not_made") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (memory, disk) = (dir.path().join("memory"), dir.path().join("disk"));
    // A disk whose own place has no room for what is written to it: the file system on it believes that it has.
    mount(&memory, 1 << 20);
    let image = memory.join("image");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    run("mkfs.ext2", &["-q", "-F", image.to_str().unwrap()]);
    std::fs::create_dir(&disk).unwrap();
    run(
        "mount",
        &["-o", "loop,errors=continue", image.to_str().unwrap(), disk.to_str().unwrap()],
    );
    let (pool, project) = (Pool::new(&disk.join("pool")).unwrap(), Uid::from("p-1"));
    pool.keep_key(&project, &volume("work"), &"vault:v1:a".into()).await.unwrap();
    names(pool.format(&project, &volume("work"), &key("a")).await, "format volume work");
    assert_eq!(seen(&pool, &project).await, [("work".to_owned(), false)]);
    // The disk is mended.
    resize(&memory, 64 << 20);
    pool.format(&project, &volume("work"), &key("a")).await.unwrap();
    assert!(opens(&pool.file(&project, &"work".into()).unwrap(), &key("a")));
    run("umount", &[disk.to_str().unwrap()]);
}

#[tokio::test]
async fn a_shard_is_sealed_and_fetched_whole_or_not_at_all_where_disks_are_full() {
    if !is_inside("a_shard_is_sealed_and_fetched_whole_or_not_at_all_where_disks_are_full") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let root = at("sources").join("jichi/ct");
    std::fs::create_dir_all(&root).unwrap();
    // Random bytes: an image of them is as large as they are. More than one part of an upload (10 MiB).
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut file = std::fs::File::create(root.join("one.dcm")).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut random, 12 << 20), &mut file).unwrap();
    let (scratch, store, cache) = (at("scratch"), at("store"), at("cache"));
    mount(&scratch, 16 << 20);
    mount(&store, 11 << 20);
    mount(&cache, 11 << 20);
    let source = Arc::new(Source::open(&at("sources"), "jichi", "ct").unwrap());
    let (all, _) = shards(source.scan().unwrap(), 1 << 40, 1).unwrap();
    let shard = all.first().unwrap().clone();
    let local = Arc::new(LocalFileSystem::new_with_prefix(&store).unwrap());
    let intake = Intake {
        sources: at("sources"),
        scratch: scratch.clone(),
        store: local.clone(),
        put: at("put"),
    };
    let dataset = Uid::from("d-1");
    let sealed = || {
        seal(
            &intake,
            &dataset,
            Arc::clone(&source),
            shard.clone(),
            "k".into(),
            key("a"),
            "vault:v1:a".into(),
        )
    };
    let stored = || std::fs::read_dir(store.join("shards")).map_or(0, Iterator::count);

    // The scratch space has no room for file, image and encrypted file; then the store has none. Nothing plain is left, nothing half.
    names(sealed().await, "make the image of a shard");
    assert_eq!((std::fs::read_dir(&scratch).unwrap().count(), stored()), (0, 0));
    resize(&scratch, 64 << 20);
    names(sealed().await, "put into the image store");
    assert_eq!((std::fs::read_dir(&scratch).unwrap().count(), stored()), (0, 0));
    resize(&store, 64 << 20);
    let done = sealed().await.unwrap();
    assert_eq!((std::fs::read_dir(&scratch).unwrap().count(), stored()), (0, 1));

    // The same where it is fetched.
    let plan: ShardPlan = serde_json::from_value(json!({"id": done.id, "serial": "a", "digest": done.digest,
        "storedDigest": done.stored_digest, "key": "k", "wrappedKey": "vault:v1:YQ=="}))
    .unwrap();
    let fetched = Cache::new(&cache, local).unwrap();
    names(fetched.shard(&plan).await, &format!("fetch shard {}", done.id));
    assert!(fetched.there(&plan).is_err() && half_made(&cache).is_empty());
    resize(&cache, 64 << 20);
    assert!(opens(&fetched.shard(&plan).await.unwrap(), &key("a")));
}
