//! A source is read below its root alone: whatever links, mounts and devices lie in it, and whatever is swapped while it is read.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dejima_hostd::scan::Source;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

const OURS: &[u8] = b"ours";
const SECRET: &[u8] = b"of another tenant";

/// Two tenants' roots side by side: `jichi/ct` with one file, and `other` with a secret.
struct Sources(tempfile::TempDir);

impl Sources {
    fn new() -> Self {
        let sources = Self(tempfile::tempdir().unwrap());
        for folder in ["jichi/ct/a", "other/a"] {
            std::fs::create_dir_all(sources.path(folder)).unwrap();
        }
        std::fs::write(sources.path("jichi/ct/a/one.dcm"), OURS).unwrap();
        std::fs::write(sources.path("other/a/one.dcm"), SECRET).unwrap();
        std::fs::write(sources.path("other/secret"), SECRET).unwrap();
        sources
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// The paths that are read, or why none is.
    fn scan(&self) -> Result<Vec<String>, String> {
        let source = Source::open(self.0.path(), "jichi", "ct").map_err(|error| said(&error))?;
        let files = source.scan().map_err(|error| said(&error))?;
        Ok(files.into_iter().map(|file| file.path).collect())
    }
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", said(cause))).unwrap_or_default();
    format!("{error}{cause}")
}

#[test]
fn what_leads_out_of_a_source_is_named_and_never_followed() {
    let sources = Sources::new();
    let at = |name: &str| sources.path(&format!("jichi/ct/{name}"));
    let whole = Ok(vec!["a/one.dcm".to_owned()]);
    assert_eq!(sources.scan(), whole, "the control");
    let absolute = |path: &str| sources.path(path).display().to_string();
    // (what lies there, where it leads to)
    for (what, to) in [
        ("a link to a file", "../../other/secret".to_owned()),
        ("an absolute link to a file", absolute("other/secret")),
        ("a link to a directory", "../../other/a".to_owned()),
        ("an absolute link to a directory", absolute("other/a")),
        ("a link within the source", "a/one.dcm".to_owned()),
        ("a link to nothing", "nothing".to_owned()),
        ("a link to itself", "entry".to_owned()),
        ("a link to a process' root", "/proc/self/root".to_owned()),
    ] {
        symlink(&to, at("entry")).unwrap();
        let error = sources.scan().unwrap_err();
        assert!(error.contains("`entry`") && error.contains("not followed"), "{what}: {error}");
        // Nor is it when it is asked for by name, as a file whose line stood in a manifest is.
        let source = Source::open(sources.0.path(), "jichi", "ct").unwrap();
        for path in [
            "entry",
            "entry/one.dcm",
            "../../other/secret",
            "/etc/passwd",
            "a/../../../other/secret",
        ] {
            assert!(source.file(path).is_err(), "{what}: {path} was opened");
        }
        assert!(source.file("a/one.dcm").is_ok(), "the control");
        std::fs::remove_file(at("entry")).unwrap();
    }
    // What is no file is named, and nobody waits for what it may say.
    nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
    let error = sources.scan().unwrap_err();
    assert!(
        error.contains("`pipe`") && error.contains("neither a file nor a directory"),
        "{error}"
    );
    std::fs::remove_file(at("pipe")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    assert!(sources.scan().unwrap_err().contains("`socket`"));
    drop(socket);
    std::fs::remove_file(at("socket")).unwrap();
    // The root and the path of the source come from objects.
    symlink("jichi", sources.path("link")).unwrap();
    symlink("ct", sources.path("jichi/link")).unwrap();
    for (root, path) in [
        ("link", "ct"),
        ("jichi", "link"),
        ("jichi", "../other"),
        ("..", "etc"),
        ("/", "etc"),
        ("jichi", "/etc"),
        ("other/../jichi", "../jichi/ct"),
    ] {
        assert!(Source::open(sources.0.path(), root, path).is_err(), "{root} and {path}");
    }
    // Deeper than anybody lays files down.
    let deep = vec!["d"; 70].join("/");
    std::fs::create_dir_all(at(&deep)).unwrap();
    assert!(sources.scan().unwrap_err().contains("directories deep"));
    std::fs::remove_dir_all(at("d")).unwrap();
    assert_eq!(sources.scan(), whole, "the control, again");
}

#[test]
fn another_file_system_below_a_source_is_named_and_not_read() {
    let sources = Sources::new();
    let whole = Ok(vec!["a/one.dcm".to_owned()]);
    // A thread in a mount namespace of its own.
    let within = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let (folder, file) = (sources.path("jichi/ct/mnt"), sources.path("jichi/ct/file"));
        std::fs::create_dir(&folder).unwrap();
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::write(folder.join("secret"), SECRET).unwrap();
        let error = sources.scan().unwrap_err();
        assert!(error.contains("`mnt`") && error.contains("mount points"), "{error}");
        nix::mount::umount(&folder).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        // The same file system, bound: another tree, and one file of it.
        for (from, to) in [(sources.path("other/a"), &folder), (sources.path("other/secret"), &file)] {
            if from.is_dir() {
                std::fs::create_dir(to).unwrap();
            } else {
                std::fs::write(to, b"").unwrap();
            }
            mount(Some(&from), to, none, MsFlags::MS_BIND, none).unwrap();
            let error = sources.scan().unwrap_err();
            assert!(error.contains("mount points"), "{error}");
            nix::mount::umount(to).unwrap();
            if from.is_dir() {
                std::fs::remove_dir(to).unwrap();
            } else {
                std::fs::remove_file(to).unwrap();
            }
        }
        assert_eq!(sources.scan(), whole, "the control");
    };
    std::thread::scope(|scope| scope.spawn(within).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Exchanges two paths, again and again, until it is told to stop.
fn swap(one: &Path, other: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
    }
}

/// What a reader that follows paths finds: the control, which shows that there was something to be found.
fn naive(root: &Path) -> Vec<u8> {
    std::fs::read(root.join("a/one.dcm")).unwrap_or_default()
}

#[test]
fn nothing_from_outside_is_read_however_often_it_is_swapped_in() {
    for (what, to, inside) in [
        ("a directory", "other/a", "a"),
        ("a directory above", "other", "."),
        ("a file", "other/secret", "a/one.dcm"),
    ] {
        let sources = Sources::new();
        let source = sources.path("jichi/ct");
        let (one, other) = (source.join(inside).components().collect::<PathBuf>(), sources.path("swapped"));
        symlink(sources.path(to), &other).unwrap();
        let ours = Source::open(sources.0.path(), "jichi", "ct").unwrap().scan().unwrap();
        let stop = AtomicBool::new(false);
        let (mut whole, mut refused, mut foreign) = (0_u32, 0_u32, 0_u32);
        std::thread::scope(|scope| {
            scope.spawn(|| swap(&one, &other, &stop));
            let end = Instant::now() + Duration::from_mins(1);
            // Until each of them was seen often enough, however the threads are scheduled.
            while (whole < 50 || refused < 50 || foreign < 50) && Instant::now() < end {
                foreign += u32::from(naive(&source) == SECRET);
                let opened = Source::open(sources.0.path(), "jichi", "ct");
                let read = opened.and_then(|opened| {
                    let files = opened.scan()?;
                    // As sealing does it: by name, later.
                    for file in &files {
                        let mut bytes = Vec::new();
                        if let Ok(mut open) = opened.file(&file.path) {
                            std::io::Read::read_to_end(&mut open, &mut bytes).unwrap();
                            assert_eq!(bytes, OURS, "{what}: {} came from outside", file.path);
                        }
                    }
                    Ok(files)
                });
                match read {
                    Ok(files) => {
                        assert_eq!(files, ours, "{what}");
                        whole += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(
            whole >= 50 && refused >= 50 && foreign >= 50,
            "{what}: {whole} times whole, {refused} times refused, and a reader of paths was led out {foreign} times"
        );
    }
}
