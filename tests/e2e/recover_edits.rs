//! Faults while a project is edited: whatever fails, times out or is killed while a volume comes, grows, leaves and is destroyed,
//! the end is the clean run's.

use dejima_tests::parts::Platform;
use dejima_tests::{LEAD, without_data};
use serde_json::{Value, json};

use crate::reconcile_volumes::{Edited, remembered};
use crate::recover_faults::{FATES, HOST, names, wait};
use crate::running::PROJECT;

/// A volume comes, grows, leaves, and is destroyed, each once it is seen that the one before was carried out.
fn edit(edited: &mut Edited, case: &str) {
    let size = |platform: &Platform| remembered(platform, HOST, "/domains/train/volumes/more");
    let key = |platform: &Platform| remembered(platform, HOST, "/volumes/more/wrapped_key");
    let more = |size: &str| json!({"name": "more", "size": size, "attachTo": "train", "mountPath": "/more"});
    let receipts = edited.receipts("more").len();
    let tenant = edited.tenant.clone();
    let kept = |platform: &Platform| {
        let project = platform.world.get(&tenant, "isolatedproject", PROJECT);
        project["status"]["keptVolumes"].as_array().map_or(0, Vec::len)
    };
    edited.edit(&json!([{"op": "add", "path": "/spec/volumes/-", "value": more("64Mi")}]));
    wait(&mut edited.platform, &format!("{case}: it comes"), &|platform| {
        size(platform) == 64 << 20
    });
    let first = key(&edited.platform);
    edited.edit(&json!([{"op": "replace", "path": "/spec/volumes/1/size", "value": "128Mi"}]));
    wait(&mut edited.platform, &format!("{case}: it grows"), &|platform| {
        size(platform) == 128 << 20
    });
    edited.edit(&json!([{"op": "remove", "path": "/spec/volumes/1"}]));
    wait(&mut edited.platform, &format!("{case}: it leaves"), &|platform| {
        size(platform).is_null() && kept(platform) == 1
    });
    assert_eq!(key(&edited.platform), first, "{case}: it is another one");
    edited.edit(&json!([{"op": "add", "path": "/spec/destroyVolumes", "value": ["more"]}]));
    wait(&mut edited.platform, &format!("{case}: it is destroyed"), &|platform| {
        key(platform).is_null() && kept(platform) == 0
    });
    assert_eq!(edited.receipts("more").len(), receipts + 1, "{case}: one receipt");
    edited.edit(&json!([{"op": "remove", "path": "/spec/destroyVolumes"}]));
    let name = edited.plan()["metadata"]["name"].as_str().unwrap().to_owned();
    let space = format!("dejima-host-{HOST}");
    wait(&mut edited.platform, &format!("{case}: no order is left"), &|platform| {
        let plan: Value = platform.world.get(&space, "hostplan", &name);
        plan["spec"]["project"]["destroy"].is_null() && plan["status"]["planGeneration"] == plan["spec"]["planGeneration"]
    });
    assert_eq!(remembered(&edited.platform, HOST, "/domains/train/state"), "running", "{case}");
}

#[test]
fn whatever_fails_while_a_project_is_edited_the_end_is_the_clean_runs() {
    let mut platform = Platform::new("edit-faults", &[HOST]);
    let log = platform.dir().join("effects.log");
    let watch = json!({"log": log});
    platform.start_operator(Some(&watch));
    platform.start_host(HOST, Some(&watch));
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, PROJECT);
    let mut edited = Edited {
        platform,
        tenant,
        host: HOST,
    };
    // The names of two clean runs are the same; those of objects and hosts that live on are the first matrix's.
    let own = |name: &String| ["volume/", "receipt", "domain/"].iter().any(|part| name.contains(part));
    let mut clean = Vec::new();
    for run in ["first", "second"] {
        let _ = std::fs::write(&log, "");
        edit(&mut edited, run);
        clean.push(names(&log).into_keys().filter(own).collect::<Vec<_>>());
    }
    assert_eq!(clean[0], clean[1], "the names of two clean runs");
    let verbs = ["attach volume", "resize volume", "detach volume", "remove volume", "sign receipt"];
    assert!(
        verbs.iter().all(|verb| clean[0].iter().any(|name| name.starts_with(verb))),
        "{:?}",
        clean[0]
    );
    let mut cases: Vec<_> = clean[0]
        .iter()
        .flat_map(|name| FATES.iter().map(move |fate| (name, *fate)))
        .collect();
    if let Ok(only) = std::env::var("DEJIMA_TEST_CASE") {
        cases.retain(|(name, _)| name.contains(&only));
    }
    for (name, fate) in cases {
        let case = format!("{name} ({fate})");
        let (verb, object) = name.split_once(' ').unwrap();
        let log = edited.platform.dir().join("case.log");
        let _ = std::fs::write(&log, "");
        let faults = json!({"log": log, "object": object, "verb": verb, "nth": 1, "fate": fate});
        edited.platform.start_operator(Some(&faults));
        edited.platform.start_host(HOST, Some(&faults));
        edit(&mut edited, &case);
        assert!(names(&log).contains_key(name), "{case} was never reached");
    }
}
