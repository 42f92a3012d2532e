//! The story, as far as it goes without a hypervisor: hosts are held, keys made and destroyed, requests made and counted.

use std::sync::{Mutex, MutexGuard, OnceLock};

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, BOARD_JICHI, BOARD_PLATFORM, LEAD, OFFICE, PROVIDER, example};
use serde_json::Value;

/// Two hosts, and everything of ours running. One test at a time: hosts are few, and that is the point.
fn platform() -> MutexGuard<'static, Platform> {
    static PLATFORM: OnceLock<Mutex<Platform>> = OnceLock::new();
    let platform = PLATFORM.get_or_init(|| {
        let mut platform = Platform::new("story", &["host-a", "host-b"]);
        platform.start_operator(None);
        platform.start_host("host-a", None);
        platform.start_host("host-b", None);
        Mutex::new(platform)
    });
    platform.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A tenant's and a provider's namespace with the story's policy and dataset.
fn spaces(platform: &Platform) -> (String, String) {
    let provider = platform
        .world
        .namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let here = format!("namespace: {provider}");
    for name in ["usagepolicy-story.yaml", "dataset-story.yaml"] {
        platform
            .world
            .create(PROVIDER, &example(name, &[("namespace: jichi", &here)]))
            .accepted();
    }
    (provider, tenant)
}

fn project(provider: &str, tenant: &str, name: &str) -> String {
    let replace = [
        ("namespace: jichi", format!("namespace: {provider}")),
        ("namespace: osaka-radiology", format!("namespace: {tenant}")),
        ("name: liver-ct", format!("name: {name}")),
    ];
    let replace: Vec<(&str, &str)> = replace.iter().map(|(from, to)| (*from, to.as_str())).collect();
    example("isolatedproject-story.yaml", &replace)
}

fn codes(object: &Value) -> Vec<String> {
    let reasons = object["status"]["datasets"][0]["reasons"].as_array().cloned().unwrap_or_default();
    let mut codes: Vec<String> = reasons
        .iter()
        .filter_map(|reason| reason["code"].as_str().map(str::to_owned))
        .collect();
    codes.sort();
    codes.dedup();
    codes
}

#[test]
fn one_manifest_gives_a_sealed_project_whose_data_waits_with_every_reason() {
    let platform = platform();
    let world = &platform.world;
    let (provider, tenant) = spaces(&platform);
    world.create(LEAD, &project(&provider, &tenant, "liver-ct")).accepted();
    let host = platform.ready(&tenant, "liver-ct");
    let object = world.get(&tenant, "isolatedproject", "liver-ct");
    assert_eq!(
        object["status"]["summary"],
        serde_json::json!({"host": host, "machines": "1/1", "datasets": "0/1"})
    );
    assert_eq!(codes(&object), ["NoEffectiveMember", "NotMountable", "ReviewPending", "Unattested"]);
    let all = object["status"]["datasets"][0]["reasons"].as_array().unwrap();
    assert!(
        all.iter()
            .all(|reason| reason["remedy"]["ja"].is_string() && reason["remedy"]["en"].is_string() && reason["who"].is_string())
    );

    // The host holds it, with a wrapped key and nothing plain.
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(world.get("", "host", &host)["status"]["heldBy"]["uid"], uid.as_str());
    let plan = world.get(&format!("dejima-host-{host}"), "hostplan", &format!("project-{uid}"));
    let volume = plan["status"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["item"] == "volume/work")
        .unwrap()
        .clone();
    let wrapped = volume["wrappedKey"].as_str().unwrap().to_owned();
    assert!(wrapped.starts_with("vault:v1:"));
    let key = format!("transit/decrypt/project-{uid}");
    let opened = platform
        .keys
        .run(&["write", "-field=plaintext", &key, &format!("ciphertext={wrapped}")], None)
        .unwrap();
    let everything = format!("{plan}{object}{}", platform.remembered(&host));
    assert!(!everything.contains(opened.trim()), "a plain key stands where it must not");
    assert!(everything.contains(&wrapped), "the control: the wrapped one is found");

    // The request stands in the provider's namespace; two reviewers, each under his own login.
    platform.eventually("a request", || {
        world.run(PROVIDER, &["get", "accessgrants", "-n", &provider]).text.contains("0/2")
    });
    let request = world
        .run(PROVIDER, &["get", "accessgrants", "-n", &provider, "-o", "name"])
        .accepted();
    let name = request.trim().rsplit('/').next().unwrap().to_owned();
    let approve = |login: &str| platform.dejima(login, &["review", "approve", &format!("{provider}/{name}")]);
    let own = approve(LEAD);
    assert!(!own.status.success(), "a member reviewed his own project");
    for (login, count) in [(BOARD_JICHI, "1/2"), (BOARD_PLATFORM, "2/2")] {
        let answer = approve(login);
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        platform.eventually(count, || {
            world.run(PROVIDER, &["get", "accessgrants", "-n", &provider]).text.contains(count)
        });
    }

    // The office says who the tenant is and vouches for the ethics approval; the lead accepts the terms.
    let labels = [
        "dejima.dev/institution=035t8zc32",
        "dejima.dev/org-kind=public",
        "dejima.dev/country=JP",
    ];
    world
        .run(OFFICE, &[&["label", "namespace", &tenant][..], &labels[..]].concat())
        .accepted();
    let attest = platform.dejima(OFFICE, &["attest", "project", &format!("{tenant}/liver-ct"), "ethics"]);
    assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    world.bind("dejima-reviewer", "dejima.dev/tenant-osaka", Some(&provider));
    let terms = platform.dejima(
        LEAD,
        &[
            "terms",
            "accept",
            &format!("{provider}/ct-mr"),
            "--project",
            &format!("{tenant}/liver-ct"),
        ],
    );
    assert!(terms.status.success(), "{}", String::from_utf8_lossy(&terms.stderr));
    platform.eventually("only the dataset itself is missing", || {
        let object = world.get(&tenant, "isolatedproject", "liver-ct");
        codes(&object) == ["NotMountable", "Unattested"]
    });
    for claim in ["approval", "agreement"] {
        let attest = platform.dejima(OFFICE, &["attest", "dataset", &format!("{provider}/ct-mr"), claim]);
        assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    }
    platform.eventually("only sealing is missing", || {
        codes(&world.get(&tenant, "isolatedproject", "liver-ct")) == ["NotMountable"]
            && platform.condition(&provider, "dataset", "ct-mr", "Mountable").1 == "NotSealed"
    });
    let explained = platform.dejima(LEAD, &["--lang", "ja", "explain", "project", &format!("{tenant}/liver-ct")]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(
        explained.contains("liver-ct は準備ができている") && explained.contains("NotMountable") && explained.contains("担当: データ提供者"),
        "{explained}"
    );

    // Withdrawing an attestation is seen at once.
    world.run(OFFICE, &["delete", "attestations", "--all", "-n", &tenant]).accepted();
    platform.eventually("the ethics approval counts no longer", || {
        codes(&world.get(&tenant, "isolatedproject", "liver-ct")) == ["NotMountable", "Unattested"]
    });

    // The end: the host is free, nothing is left on it, and what was wrapped is noise.
    world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", &tenant, "--wait=false"])
        .accepted();
    platform.eventually("the project gone", || {
        !world.run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", &tenant]).accepted
    });
    assert!(world.get("", "host", &host)["status"]["heldBy"].is_null());
    assert_eq!(platform.remembered(&host)["projects"], serde_json::json!({}));
    let opened = platform
        .keys
        .run(&["write", "-field=plaintext", &key, &format!("ciphertext={wrapped}")], None);
    assert!(opened.is_err(), "the wrapped key still opens");
}

#[test]
fn a_host_is_held_by_one_project_and_the_third_waits_saying_for_what() {
    let platform = platform();
    let world = &platform.world;
    let (provider, tenant) = spaces(&platform);
    for name in ["one", "two"] {
        world.create(LEAD, &project(&provider, &tenant, name)).accepted();
    }
    let (one, two) = (platform.ready(&tenant, "one"), platform.ready(&tenant, "two"));
    assert_ne!(one, two);
    world.create(LEAD, &project(&provider, &tenant, "three")).accepted();
    platform.eventually("the third waits", || {
        platform.condition(&tenant, "isolatedproject", "three", "Placed").1 == "NoHost"
    });
    let (_, _, message) = platform.condition(&tenant, "isolatedproject", "three", "Ready");
    assert!(
        message.contains("host-a: it is held by another project") && message.contains("host-b"),
        "{message}"
    );
    world
        .run(LEAD, &["delete", "isolatedproject", "one", "-n", &tenant, "--wait=false"])
        .accepted();
    assert_eq!(platform.ready(&tenant, "three"), one);
    world
        .run(
            LEAD,
            &[
                "delete",
                "isolatedproject",
                "two",
                "three",
                "-n",
                &tenant,
                "--wait=true",
                "--timeout=30s",
            ],
        )
        .accepted();
}

#[test]
fn what_is_not_built_is_named_and_a_project_that_cannot_be_carried_out_can_be_deleted() {
    let platform = platform();
    let world = &platform.world;
    let (provider, tenant) = spaces(&platform);
    let manifest = project(&provider, &tenant, "asks-too-much")
        .replace("  period:", "  index: {embedder: built-in}\n  period:")
        .replace("attachTo: train, mountPath", "attachTo: train, backup: true, mountPath")
        .replace("image: probe}", "image: a-disk}");
    let disk = "apiVersion: dejima.dev/v1alpha1\nkind: MachineImage\nmetadata: {name: a-disk}\n\
                spec: {format: qcow2, guest: cloud-init, source: images/disk, digest: \"sha256:HEX\"}\n";
    world.create(ADMIN, &disk.replace("HEX", &"a".repeat(64))).accepted();
    world.create(LEAD, &manifest).accepted();
    platform.eventually("it is refused", || {
        platform.condition(&tenant, "isolatedproject", "asks-too-much", "Admitted").1 == "NotYetBuilt"
    });
    let (_, _, message) = platform.condition(&tenant, "isolatedproject", "asks-too-much", "Admitted");
    assert!(
        message.contains("volumes[work].backup") && message.contains("index is not built yet") && message.contains("a-disk is a disk"),
        "{message}"
    );
    assert!(
        world.run(ADMIN, &["get", "hosts", "-o", "json"]).text.matches("heldBy").count() == 0,
        "it holds nothing"
    );
    world
        .run(
            LEAD,
            &["delete", "isolatedproject", "asks-too-much", "-n", &tenant, "--timeout=30s"],
        )
        .accepted();
}

#[test]
fn writes_are_few_and_an_idle_platform_writes_nothing() {
    let platform = platform();
    let world = &platform.world;
    let (provider, tenant) = spaces(&platform);
    let ours = || {
        let text = std::fs::read_to_string(world.plane().audit_log()).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| line.contains("\"system:serviceaccount:dejima-") && !line.contains("\"leases\"") && !line.contains("dryRun"))
            // Steps are events, one for each condition that turns; they end with the transitions.
            .filter(|line| !line.contains("\"events.k8s.io\""));
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|entry| !entry["objectRef"]["resource"].as_str().unwrap_or_default().ends_with("reviews"))
            .map(|entry| {
                format!(
                    "{} {}/{}",
                    entry["verb"], entry["objectRef"]["resource"], entry["objectRef"]["subresource"]
                )
            })
            .collect::<Vec<_>>()
    };
    // Datasets and requests of earlier tests have said what they have to say.
    settle(&ours);
    let before = ours().len();
    world
        .create(
            LEAD,
            &project(&provider, &tenant, "frugal")
                .replace("  datasets:\n", "")
                .lines()
                .filter(|line| !line.contains("attachTo: [train]"))
                .collect::<Vec<_>>()
                .join("\n"),
        )
        .accepted();
    platform.ready(&tenant, "frugal");
    let until_ready = settle(&ours).split_off(before);
    assert!(until_ready.len() <= 6, "{} writes: {until_ready:?}", until_ready.len());
    std::fs::write(platform.dir().join("writes.txt"), until_ready.join("\n")).unwrap();
    world
        .run(LEAD, &["delete", "isolatedproject", "frugal", "-n", &tenant, "--timeout=30s"])
        .accepted();
}

/// Waits until no write of ours came for two seconds; all of them so far.
fn settle(ours: &dyn Fn() -> Vec<String>) -> Vec<String> {
    let begun = std::time::Instant::now();
    let mut last = (ours(), std::time::Instant::now());
    loop {
        assert!(
            begun.elapsed() < std::time::Duration::from_mins(1),
            "an idle platform goes on writing: {:?}",
            last.0.iter().rev().take(10).collect::<Vec<_>>()
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = ours();
        if now.len() != last.0.len() {
            last = (now, std::time::Instant::now());
        } else if last.1.elapsed() > std::time::Duration::from_secs(2) {
            return last.0;
        }
    }
}
