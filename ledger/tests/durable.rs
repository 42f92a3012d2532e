//! What was acknowledged is on disk, in order and whole, whatever ends the process; what is damaged is said, never served.

#![expect(clippy::unwrap_used, reason = "test code stops where it cannot go on")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use dejima_ledger::{Error, Ledger};
use jiff::Timestamp;
use serde_json::{Value, json};

fn act(activity: &str, phase: &str) -> Value {
    json!({"activity": activity, "phase": phase, "kind": "mount"})
}

fn now() -> Timestamp {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

#[test]
fn the_same_act_twice_is_one_and_another_under_its_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let first = ledger.append("host-a", &act("m", "begun"), now()).unwrap();
    let again = ledger
        .append("host-a", &act("m", "begun"), "2026-11-25T00:00:00Z".parse().unwrap())
        .unwrap();
    assert_eq!((first.index, first.known, again.index, again.known), (0, false, 0, true));
    let mut other = act("m", "begun");
    other["kind"] = "delete".into();
    assert!(matches!(
        ledger.append("host-a", &other, now()),
        Err(Error::Conflict { index: 0, .. })
    ));
    assert!(
        matches!(ledger.append("host-b", &act("m", "begun"), now()), Err(Error::Conflict { .. })),
        "another writer"
    );
    assert!(matches!(
        ledger.append("host-a", &act("n", "ended"), now()),
        Err(Error::NeverBegan(_))
    ));
    assert_eq!(ledger.append("host-a", &act("m", "ended"), now()).unwrap().index, 1);
    assert!(matches!(
        ledger.append("host-a", &json!({"phase": "begun"}), now()),
        Err(Error::NoAct(_))
    ));
    assert_eq!(ledger.head().unwrap().0, 2);
}

#[test]
fn two_processes_never_write_one_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let first = Ledger::open(dir.path()).unwrap();
    assert!(matches!(Ledger::open(dir.path()), Err(Error::Open { .. })));
    drop(first);
    assert!(Ledger::open(dir.path()).is_ok(), "the control");
}

/// A process of its own that appends until it is killed, and says each index once it was acknowledged.
#[test]
fn appender() {
    let Ok(dir) = std::env::var("DEJIMA_TEST_LEDGER") else { return };
    let ledger = Ledger::open(Path::new(&dir)).unwrap();
    let from = ledger.head().unwrap().0;
    for at in from..from + 100_000 {
        let index = ledger.append("w", &act(&format!("a{at}"), "begun"), now()).unwrap().index;
        writeln!(std::io::stderr(), "ack {index}").unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Option<u64> = None;
    for round in 1..=3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["appender", "--exact", "--nocapture"])
            .env("DEJIMA_TEST_LEDGER", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        for line in lines {
            if let Some(index) = line.strip_prefix("ack ") {
                acknowledged = Some(index.parse().unwrap());
                if acknowledged >= Some(round * 40) {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let (size, _) = ledger.head().unwrap();
        assert!(
            acknowledged.is_some_and(|last| last < size && last >= round * 40),
            "acknowledged {acknowledged:?}, found {size}"
        );
        let records = ledger.range(0, size).unwrap();
        assert!(
            records
                .iter()
                .enumerate()
                .all(|(at, record)| record.index == at as u64 && record.act["activity"] == format!("a{at}"))
        );
    }
}

#[test]
fn a_flipped_byte_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let root = {
        let ledger = Ledger::open(dir.path()).unwrap();
        for at in 0..20 {
            ledger.append("w", &act(&format!("needle-{at}"), "begun"), now()).unwrap();
        }
        ledger.head().unwrap().1
    };
    assert_eq!(
        Ledger::open(dir.path()).unwrap().head().unwrap().1,
        root,
        "the control: unharmed, it is the same"
    );
    let mut harmed = 0;
    for path in files(dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(9).position(|window| window == b"needle-13") else {
            continue;
        };
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        harmed += 1;
        match Ledger::open(dir.path()) {
            // Cut off at the damage, or refused: never another content under an old number.
            Ok(ledger) => {
                let size = ledger.head().unwrap().0;
                for record in ledger.range(0, size).unwrap() {
                    assert_eq!(record.act["activity"], format!("needle-{}", record.index));
                }
                assert_ne!(ledger.head().unwrap().1, root);
            }
            Err(error) => assert!(
                matches!(error, Error::Open { .. } | Error::Read(_) | Error::Damaged { .. }),
                "{error}"
            ),
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(harmed > 0, "the record was found in no file");
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}
