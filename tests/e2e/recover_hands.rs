//! A host's agent that is killed, hangs, or is stopped and started again, in each phase of a project's life.
//!
//! That it may be killed after every single effect is shown by `recover_faults`; here it stands still in the middle of one.

use std::time::Duration;

use dejima_lab::run::await_until;
use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, without_data};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::recover_faults::with_data;

const HOST: &str = "host-g";
const PROJECT: &str = "liver-ct";

/// What becomes of an agent that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It goes on, long after.
    Wakes,
    /// It is killed, and another begins.
    Killed,
    /// It is asked to stop, goes on for as long as that takes, and another begins.
    Restarted,
}

/// Where it stands still: in front of this effect.
#[derive(Clone, Copy, Debug)]
struct Phase {
    effect: &'static str,
    /// What the host has then: formatted volumes, machines, attached shards.
    has: (usize, usize, usize),
}

const BEFORE_VOLUMES: Phase = Phase {
    effect: "format volume/work",
    has: (0, 0, 0),
};
const BEFORE_MACHINES: Phase = Phase {
    effect: "define domain/train",
    has: (1, 0, 0),
};
const MOUNTING: Phase = Phase {
    effect: "begin ledger/mount/train",
    has: (1, 1, 0),
};
const ENDING: Phase = Phase {
    effect: "destroy domain/train",
    has: (1, 1, 1),
};

/// Formatted volumes, machines, attached shards.
fn has(platform: &Platform) -> (usize, usize, usize) {
    let remembered = platform.remembered(HOST);
    let projects = remembered["projects"].as_object().cloned().unwrap_or_default();
    let count = |kind: &str, counts: &dyn Fn(&Value) -> bool| {
        let of = |project: &Value| {
            project[kind]
                .as_object()
                .map_or(0, |all| all.values().filter(|one| counts(one)).count())
        };
        projects.values().map(of).sum()
    };
    let formatted = count("volumes", &|volume| volume["formatted"] == true);
    (formatted, count("domains", &|_| true), platform.attached(HOST, "train"))
}

/// Starts an agent that will stand still in front of this effect.
fn start_to_hang(platform: &mut Platform, effect: &str) {
    let (verb, object) = effect.split_once(' ').unwrap();
    let faults = json!({"object": object, "verb": verb, "nth": 1, "fate": "hang"});
    platform.start_host(HOST, Some(&faults));
}

fn goes_on(platform: &mut Platform, way: Way) {
    match way {
        Way::Wakes => platform.signal(HOST, Signal::SIGCONT),
        Way::Killed => {
            platform.signal(HOST, Signal::SIGKILL);
            platform.start_host(HOST, None);
        }
        Way::Restarted => {
            platform.signal(HOST, Signal::SIGTERM);
            platform.signal(HOST, Signal::SIGCONT);
            platform.start_host(HOST, None);
        }
    }
}

fn condition(platform: &Platform, tenant: &str, kind: &str) -> (String, String, String) {
    platform.condition(tenant, "isolatedproject", PROJECT, kind)
}

fn is_mounted(platform: &Platform, tenant: &str) -> bool {
    let object = platform.world.get(tenant, "isolatedproject", PROJECT);
    condition(platform, tenant, "Ready").0 == "True" && object["status"]["summary"]["datasets"] == "1/1" && has(platform) == (1, 1, 1)
}

/// Others go on although one host's agent stands still: a project that comes is placed and told what it waits for.
fn others_go_on(platform: &Platform, tenant: &str, case: &str) {
    let other = without_data(tenant).replace(&format!("name: {PROJECT}"), "name: other");
    platform.world.create(LEAD, &other).accepted();
    platform.eventually(&format!("{case}: another project is told"), || {
        let (status, reason, why) = platform.condition(tenant, "isolatedproject", "other", "Placed");
        status == "False" && reason == "NoHost" && why.contains(HOST)
    });
    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", "other", "-n", tenant, "--timeout=30s"])
        .accepted();
}

/// One life, in which the agent stands still in this phase.
fn life(platform: &mut Platform, tenant: &str, manifest: &str, phase: Phase, way: Way) {
    let case = format!("{} ({way:?})", phase.effect);
    let ends = phase.effect == ENDING.effect;
    start_to_hang(platform, phase.effect);
    platform.world.create(LEAD, manifest).accepted();
    if ends {
        platform.within(60, &format!("{case}: mounted"), || is_mounted(platform, tenant));
        delete(platform, tenant);
    }
    platform.within(60, &format!("{case}: it hangs"), || platform.hangs(HOST));
    assert_eq!(has(platform), phase.has, "{case}");
    if ends {
        // What needs no host is done; what needs it waits, and nothing is said in its name.
        platform.eventually(&format!("{case}: a partial receipt"), || lying(platform, tenant, "partial") == 1);
        assert!(!platform.gone(tenant, "isolatedproject", PROJECT), "{case}");
    } else {
        assert!(!is_mounted(platform, tenant), "{case}");
        if way == Way::Wakes {
            others_go_on(platform, tenant, &case);
        }
    }
    assert!(platform.hangs(HOST) && has(platform) == phase.has, "{case}: it hung all the time");
    goes_on(platform, way);
    if !ends {
        platform.within(60, &format!("{case}: mounted after all"), || is_mounted(platform, tenant));
        delete(platform, tenant);
    }
    platform.within(60, &format!("{case}: gone"), || platform.gone(tenant, "isolatedproject", PROJECT));
    assert_eq!(platform.remembered(HOST)["projects"], json!({}), "{case}");
    assert_eq!(lying(platform, tenant, "partial"), 0, "{case}");
    let mounts = |phase: &str| {
        let of = |record: &&Value| record["act"]["kind"] == "mount" && record["act"]["phase"] == phase;
        platform.records().iter().filter(of).count()
    };
    assert_eq!(mounts("begun"), mounts("ended"), "{case}: every mount that began has ended");
    assert!(mounts("begun") > 0, "{case}");
}

fn delete(platform: &Platform, tenant: &str) {
    let words = ["delete", "isolatedproject", PROJECT, "-n", tenant, "--wait=false"];
    platform.world.run(LEAD, &words).accepted();
}

fn lying(platform: &Platform, tenant: &str, state: &str) -> usize {
    let label = format!("dejima.dev/receipt={state}");
    let all = platform
        .world
        .run(ADMIN, &["get", "configmaps", "-n", tenant, "-l", &label, "-o", "name"]);
    all.accepted().lines().count()
}

#[test]
fn an_agent_that_is_killed_hangs_or_is_restarted_in_any_phase_is_simply_gone_on_from() {
    let mut platform = Platform::new("hands", &[HOST]);
    let site = platform.dir().join("site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, format!("{text}hostLeaseSeconds: 20\n")).unwrap();
    platform.start_operator(None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (_, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    for phase in [BEFORE_VOLUMES, BEFORE_MACHINES, MOUNTING, ENDING] {
        for way in [Way::Wakes, Way::Killed, Way::Restarted] {
            life(&mut platform, &tenant, &manifest, phase, way);
        }
    }

    // Mounted, and it hangs: its host is said to be silent, what it holds goes on, and an end that came meanwhile is carried out
    // the moment it wakes.
    platform.start_host(HOST, None);
    platform.world.create(LEAD, &manifest).accepted();
    platform.within(60, "mounted", || is_mounted(&platform, &tenant));
    platform.signal(HOST, Signal::SIGSTOP);
    await_until("it hangs", 10, "none", || platform.hangs(HOST)).unwrap();
    let none = json!([{"op": "replace", "path": "/spec/datasets", "value": []}]);
    let world = &platform.world;
    world.patch(LEAD, &tenant, "isolatedproject", PROJECT, &none.to_string()).accepted();
    platform.within(75, "its host is silent", || {
        platform.condition("", "host", HOST, "Ready").1 == "Silent"
    });
    assert_eq!(has(&platform), (1, 1, 1), "nothing of a silent host is lost");
    assert_eq!(
        condition(&platform, &tenant, "Placed").0,
        "True",
        "nor is it given to somebody else"
    );
    let woken = std::time::Instant::now();
    platform.signal(HOST, Signal::SIGCONT);
    platform.eventually("the mount ends", || has(&platform) == (1, 1, 0));
    assert!(woken.elapsed() < Duration::from_secs(10), "{:?}", woken.elapsed());
    platform.eventually("its host lives", || platform.condition("", "host", HOST, "Ready").0 == "True");
}
