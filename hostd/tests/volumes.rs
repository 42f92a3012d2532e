//! Volumes: one suite for the real driver and for the one that remembers, and what only the real one can show.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code stops where it cannot go on"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use dejima_crds::bounded::{Uid, WrappedKey};
use dejima_crds::host::{Capacity, EngineKind};
use dejima_crds::host_plan::VolumePlan;
use dejima_hostd::driver::{PlainKey, Storage};
use dejima_hostd::luks::HEADER;
use dejima_hostd::memory::Memory;
use dejima_hostd::volumes::Pool;
use dejima_plan::Seen;
use dejima_plan::host::VolumeSeen;
use dejima_plan::sweep::{Kind, Owned, Thing};

fn volume(name: &str, bytes: u64) -> VolumePlan {
    VolumePlan {
        name: name.into(),
        uid: "v-1".into(),
        serial: "0".repeat(32).as_str().into(),
        bytes,
        attach_to: None,
        mount_path: None,
    }
}

fn key(letter: &str) -> PlainKey {
    PlainKey::new(format!("{}=", letter.repeat(43)))
}

fn wrapped(letter: &str) -> WrappedKey {
    format!("vault:v1:{letter}").as_str().into()
}

fn present(seen: Seen<Vec<VolumeSeen>>) -> Vec<VolumeSeen> {
    match seen {
        Seen::Present(all) => all,
        Seen::Absent | Seen::Unknown => panic!("nothing is there"),
    }
}

/// What every driver of volumes does.
async fn suite(storage: &dyn Storage) {
    let (one, two) = (Uid::from("p-1"), Uid::from("p-2"));
    let (work, large) = (volume("work", 16 << 20), volume("work", 32 << 20));
    assert_eq!(storage.observe(&one).await, Seen::Absent);
    assert!(
        storage.format(&one, &work, &key("a")).await.is_err(),
        "formatted, although nobody kept its key"
    );
    storage.keep_key(&one, &work, &wrapped("a")).await.unwrap();
    storage.keep_key(&one, &work, &wrapped("b")).await.unwrap();
    let found = present(storage.observe(&one).await);
    assert_eq!((found[0].formatted, found[0].wrapped_key.clone()), (false, Some(wrapped("b"))));
    storage.format(&one, &work, &key("b")).await.unwrap();
    storage.format(&one, &work, &key("b")).await.unwrap();
    assert!(
        storage.keep_key(&one, &work, &wrapped("c")).await.is_err(),
        "another key would lose what is there"
    );
    let found = present(storage.observe(&one).await);
    assert_eq!(
        found,
        [VolumeSeen {
            name: "work".into(),
            bytes: 16 << 20,
            wrapped_key: Some(wrapped("b")),
            formatted: true
        }]
    );
    storage.grow(&one, &large).await.unwrap();
    storage.grow(&one, &work).await.unwrap();
    assert_eq!(
        present(storage.observe(&one).await)[0].bytes,
        32 << 20,
        "it grows and never shrinks"
    );
    assert_eq!(storage.observe(&two).await, Seen::Absent, "another project sees nothing of it");
    // It is found, whoever's it is, and never swept.
    let own = Thing::Volume(one.clone(), "work".into());
    assert_eq!(storage.list_owned().await, Owned::found([own.clone()]));
    assert!(storage.sweep(&own).await.is_err());
    assert_eq!(present(storage.observe(&one).await).len(), 1);
    storage.remove(&one, &"work".into()).await.unwrap();
    storage.remove(&one, &"work".into()).await.unwrap();
    assert_eq!(storage.observe(&one).await, Seen::Absent);
    assert_eq!(storage.list_owned().await, Owned::default());
}

#[tokio::test]
async fn volumes_that_are_remembered_behave_as_real_ones_do() {
    let dir = tempfile::tempdir().unwrap();
    suite(&Memory::new(dir.path(), Capacity::default(), EngineKind::Memory).unwrap()).await;
}

#[tokio::test]
async fn volumes_are_made_once_kept_whole_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    suite(&Pool::new(dir.path()).unwrap()).await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something is left");
    // A volume that was never whole is nobody's, and goes without what is beside it.
    let pool = Pool::new(dir.path()).unwrap();
    std::fs::create_dir(dir.path().join("p-1")).unwrap();
    std::fs::write(dir.path().join("p-1/work.part"), b"half").unwrap();
    let part = Thing::Unmade("p-1".into(), "work".into());
    assert_eq!(pool.list_owned().await, Owned::found([part.clone()]));
    pool.keep_key(&"p-1".into(), &volume("other", 1), &wrapped("a")).await.unwrap();
    pool.sweep(&part).await.unwrap();
    pool.sweep(&part).await.unwrap();
    assert_eq!(pool.list_owned().await, Owned::found([Thing::Volume("p-1".into(), "other".into())]));
}

/// Whether a key opens a volume.
fn opens(file: &std::path::Path, key: &PlainKey) -> bool {
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

#[tokio::test]
async fn a_volume_opens_with_its_own_key_alone_and_its_key_lies_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, project, work) = (Pool::new(dir.path()).unwrap(), Uid::from("p-1"), volume("work", 16 << 20));
    pool.keep_key(&project, &work, &wrapped("a")).await.unwrap();
    // What a try that was cut short has left is no volume.
    std::fs::write(dir.path().join("p-1/work.part"), b"half").unwrap();
    pool.format(&project, &work, &key("k")).await.unwrap();
    let file = pool.file(&project, &"work".into()).unwrap();
    assert!(opens(&file, &key("k")));
    assert!(!opens(&file, &key("l")), "it opens with any key");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), (16 << 20) + HEADER);
    let holds = |text: &str| {
        Command::new("grep")
            .args(["-rqaF", text])
            .arg(dir.path())
            .status()
            .unwrap()
            .success()
    };
    assert!(!holds(key("k").as_str()), "the plain key lies on the disk");
    assert!(holds(wrapped("a").as_str()), "the control: the same search finds the wrapped one");
}

#[tokio::test]
async fn a_pool_that_cannot_be_read_is_unknown_and_a_name_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::new(dir.path()).unwrap();
    std::fs::write(dir.path().join("p-1"), b"a file where a directory should be").unwrap();
    assert_eq!(pool.observe(&"p-1".into()).await, Seen::Unknown);
    assert_eq!(
        pool.list_owned().await,
        Owned::unknown(Kind::Volumes),
        "nor can it be told what is there"
    );
    assert_eq!(pool.observe(&"p-2".into()).await, Seen::Absent, "the control");
    assert!(pool.file(&"p-2".into(), &"work".into()).is_ok(), "the control");
    assert!(pool.file(&"../p".into(), &"work".into()).is_err() && pool.file(&"p-1".into(), &"../work".into()).is_err());
}
