//! From a manifest to Ready beside a script; what that writes; what is used at rest.

use std::time::{Duration, Instant};

use dejima_tests::{LEAD, without_data};
use serde_json::Value;

use crate::HOST;
use crate::by_hand::ByHand;
use crate::figures::{Goal, Row};
use crate::running::{PROJECT, Running};

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A project from the start of `kubectl create` to the moment at which `kubectl wait` knows of Ready.
fn ours(running: &Running) -> Duration {
    let manifest = without_data(&running.tenant);
    let begun = Instant::now();
    running.platform.world.create(LEAD, &manifest).accepted();
    let object = format!("isolatedproject/{PROJECT}");
    let wait = ["wait", "--for=condition=Ready", "--timeout=60s", &object, "-n", &running.tenant];
    running.platform.world.run(LEAD, &wait).accepted();
    begun.elapsed()
}

fn delete(running: &Running, name: &str) {
    let delete = ["delete", "isolatedproject", name, "-n", &running.tenant, "--timeout=60s"];
    running.platform.world.run(LEAD, &delete).accepted();
}

/// Writes of ours in the audit log: leases, events, and reviews of tokens and rights do not count.
fn writes(running: &Running) -> usize {
    let text = std::fs::read_to_string(running.platform.world.plane().audit_log()).unwrap();
    let counts = |entry: &Value| {
        let resource = entry["objectRef"]["resource"].as_str().unwrap_or_default();
        let login = entry["user"]["username"].as_str().unwrap_or_default();
        let ours = login.starts_with("system:serviceaccount:dejima-");
        ours && !entry.to_string().contains("dryRun") && !["leases", "events"].contains(&resource) && !resource.ends_with("reviews")
    };
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries.filter(counts).count()
}

/// Pairs of a project of ours and the same by hand, in turns.
pub(crate) fn pairs(running: &Running, pairs: usize) -> Vec<Row> {
    // The first one fetches kernel and initrd, and is what the script is made from.
    ours(running);
    let by_hand = ByHand::like(running, &running.project());
    by_hand.make();
    by_hand.clean();
    delete(running, PROJECT);
    let (mut ours_ms, mut script_ms, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let script = || {
            let begun = Instant::now();
            by_hand.make();
            let took = begun.elapsed();
            by_hand.clean();
            ms(took)
        };
        if pair % 2 == 1 {
            script_ms.push(script());
        }
        let before = settled(running);
        ours_ms.push(ms(ours(running)));
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        written.push((settled(running) - before) as f64);
        delete(running, PROJECT);
        if pair % 2 == 0 {
            script_ms.push(script());
        }
    }
    vec![
        Row {
            what: "project: kubectl create begins -> Ready is known",
            unit: "ms",
            ours: ours_ms,
            rival: Some(("a script, no proof", script_ms)),
            goal: Goal::Over {
                p50: 150.0,
                p95: Some(500.0),
            },
        },
        Row {
            what: "API writes per project to Ready",
            unit: "writes",
            ours: written,
            rival: Some(("KubeVirt, per machine (published)", vec![8.4])),
            goal: Goal::AtMost(6.0),
        },
    ]
}

/// Waits until nothing of ours was written for a second; all writes so far.
fn settled(running: &Running) -> usize {
    quiet(running, Duration::from_secs(1))
}

/// Waits until nothing of ours was written for so long; all writes so far.
fn quiet(running: &Running, calm: Duration) -> usize {
    let mut last = (writes(running), Instant::now());
    while last.1.elapsed() < calm {
        std::thread::sleep(Duration::from_millis(100));
        let now = writes(running);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

/// What a process holds in memory, in MiB (VmRSS, proc(5)).
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Two projects on one host that do nothing: memory of operator and agent, and what is written meanwhile.
pub(crate) fn at_rest(running: &Running, seconds: u64) -> Vec<Row> {
    let shared = without_data(&running.tenant).replace("  members:", "  placement: {dedicated: false}\n  members:");
    let names = ["rest-a", "rest-b"];
    for name in names {
        let manifest = shared.replace(&format!("name: {PROJECT}"), &format!("name: {name}"));
        running.platform.world.create(LEAD, &manifest).accepted();
        running.platform.ready(&running.tenant, name);
    }
    // The second one's rules void the first one's proof, which is made again and said: that is not rest yet.
    quiet(running, Duration::from_secs(5));
    let before = writes(running);
    std::thread::sleep(Duration::from_secs(seconds));
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let written = (writes(running) - before) as f64;
    let parts = ["operator", HOST].map(|part| resident(running.platform.hostd_pid(part)));
    for name in names {
        delete(running, name);
    }
    vec![
        Row {
            what: "API writes at rest",
            unit: "writes",
            ours: vec![written],
            rival: None,
            goal: Goal::AtMost(0.0),
        },
        Row {
            what: "memory of operator and hostd together, two projects at rest",
            unit: "MiB",
            ours: vec![parts.iter().sum()],
            rival: None,
            goal: Goal::AtMost(60.0),
        },
    ]
}
