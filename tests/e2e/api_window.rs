//! The API over the real Kubernetes, under the narrow logins that people have: it says what kubectl would say them.

use dejima_tests::parts::Platform;
use dejima_tests::{LEAD, OFFICE, OTHER_LEAD, PROVIDER, STUDENT, example};
use serde_json::{Value, json};

const HOST: &str = "host-v";
const STRANGER: &str = "stranger@example.org";

fn manifest(tenant: &str, lead: &str) -> String {
    let text = example(
        "isolatedproject-story.yaml",
        &[("namespace: osaka-radiology", &format!("namespace: {tenant}")), (LEAD, lead)],
    );
    text.replace("  datasets:\n", "")
        .lines()
        .filter(|line| !line.contains("attachTo: [train]"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn get(platform: &Platform, login: &str, path: &str) -> (u16, Value) {
    platform.ask(login, "GET", &format!("/api/v1/{path}"), None)
}

/// What a list holds, as `namespace/name`.
fn names(platform: &Platform, login: &str, path: &str) -> Vec<String> {
    let (status, answer) = get(platform, login, path);
    assert_eq!(status, 200, "{path} as {login}: {answer}");
    let items = answer["items"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items
        .iter()
        .map(|item| {
            let (meta, project) = (&item["metadata"], &item["receipt"]["project"]);
            let of = if meta.is_object() { meta } else { project };
            format!("{}/{}", text(&of["namespace"]), text(&of["name"]))
        })
        .collect()
}

#[test]
fn everybody_is_answered_as_far_as_kubernetes_lets_him_look() {
    let mut platform = Platform::new("window", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let world = &platform.world;
    let osaka = world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let kyoto = world.namespace("kyoto", &[("dejima-tenant", "dejima.dev/tenant-kyoto")]);
    let jichi = world.namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    let here = format!("namespace: {jichi}");
    for name in ["usagepolicy-story.yaml", "dataset-story.yaml"] {
        world.create(PROVIDER, &example(name, &[("namespace: jichi", &here)])).accepted();
    }
    world.create(LEAD, &manifest(&osaka, LEAD)).accepted();
    platform.ready(&osaka, "liver-ct");
    let (ours, other) = (format!("{osaka}/liver-ct"), format!("{kyoto}/liver-ct"));

    // What another tenant has changes no byte of what a lead gets.
    let before = get(&platform, LEAD, "projects?namespace=kyoto");
    world.create(OTHER_LEAD, &manifest(&kyoto, OTHER_LEAD)).accepted();
    platform.eventually("the other one waits for a host", || {
        platform.condition(&kyoto, "isolatedproject", "liver-ct", "Placed").1 == "NoHost"
    });
    assert_eq!((before.0, &before), (403, &get(&platform, LEAD, "projects?namespace=kyoto")));
    for login in [LEAD, STUDENT] {
        assert_eq!(names(&platform, login, "projects"), [ours.as_str()]);
        assert_eq!(names(&platform, login, &format!("projects?namespace={osaka}")), [ours.as_str()]);
        assert_eq!(get(&platform, login, &format!("projects?namespace={kyoto}")).0, 403);
    }
    assert_eq!(names(&platform, OTHER_LEAD, "projects"), [other.as_str()]);
    assert_eq!(names(&platform, OFFICE, "projects"), [other.as_str(), ours.as_str()]);
    assert_eq!(names(&platform, STRANGER, "projects"), Vec::<String>::new());
    assert_eq!(get(&platform, STRANGER, &format!("projects?namespace={osaka}")).0, 403);
    assert_eq!(names(&platform, PROVIDER, "datasets"), [format!("{jichi}/ct-mr")]);
    assert_eq!(names(&platform, LEAD, "datasets"), Vec::<String>::new());
    for (login, path, status) in [
        (PROVIDER, "grants", 200),
        (LEAD, "grants", 403),
        (LEAD, "attestations", 403),
        (PROVIDER, "attestations", 200),
    ] {
        assert_eq!(
            get(&platform, login, &format!("{path}?namespace={jichi}")).0,
            status,
            "{path} as {login}"
        );
    }

    // A host is told by who may write hosts, under his own name; no right of the API's is used.
    let cordon = |login: &str, verb: &str| platform.ask(login, "POST", &format!("/api/v1/hosts/{HOST}/{verb}"), None);
    let schedulable = || world.get("", "host", HOST)["spec"]["schedulable"].clone();
    let (status, refused) = cordon(OFFICE, "cordon");
    assert_eq!(status, 403, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains(OFFICE), "{refused}");
    assert_eq!((get(&platform, OFFICE, "hosts").0, schedulable()), (403, json!(true)));
    world.bind("dejima-host-admin", "dejima.dev/office", None);
    platform.eventually("the office looks after hosts", || get(&platform, OFFICE, "hosts").0 == 200);
    assert_eq!(names(&platform, OFFICE, "hosts"), [format!("/{HOST}")]);
    assert_eq!(cordon(OFFICE, "cordon"), (200, json!({"host": HOST, "schedulable": false})));
    assert_eq!(schedulable(), json!(false));
    assert_eq!(cordon(OFFICE, "uncordon").0, 200);
    assert_eq!(schedulable(), json!(true));
    assert_eq!((cordon(STUDENT, "cordon").0, get(&platform, STUDENT, "hosts").0), (403, 403));
    let audit = std::fs::read_to_string(world.plane().audit_log()).unwrap();
    let wrote = |login: &str| {
        let line = |line: &&str| line.contains("\"verb\":\"patch\"") && line.contains("\"resource\":\"hosts\"") && line.contains(login);
        audit
            .lines()
            .filter(|entry| !entry.contains("\"subresource\":\"status\""))
            .any(|entry| line(&entry))
    };
    let api = "system:serviceaccount:dejima-system:api";
    assert!(wrote(OFFICE) && !wrote(api));
    world.run(api, &["get", "isolatedprojects", "-A"]).accepted();
    world
        .run(api, &["label", "host", HOST, "a=b"])
        .refused("cannot get resource \"hosts\"");

    // Records and metrics are their own rights.
    assert_eq!((get(&platform, OFFICE, "records").0, get(&platform, LEAD, "records").0), (200, 403));
    let metrics = |login: &str| platform.ask(login, "GET", "/metrics", None).0;
    assert_eq!((metrics(LEAD), metrics(OFFICE)), (403, 403));
    world.bind("dejima-metrics", "dejima.dev/office", None);
    platform.eventually("the office gathers metrics", || metrics(OFFICE) == 200);
    assert_eq!(metrics(LEAD), 403);

    // A receipt is read in its project's namespace; who may not is told the same as of one that is not there.
    assert_eq!(names(&platform, LEAD, "receipts"), Vec::<String>::new());
    world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", &osaka, "--timeout=30s"])
        .accepted();
    for login in [LEAD, OFFICE] {
        assert_eq!(names(&platform, login, "receipts"), [ours.as_str()]);
    }
    assert_eq!(names(&platform, OTHER_LEAD, "receipts"), Vec::<String>::new());
    assert_eq!(get(&platform, OTHER_LEAD, &format!("receipts?namespace={osaka}")).0, 403);
    let (_, all) = get(&platform, LEAD, "receipts");
    let id = all["items"][0]["receipt"]["id"].as_str().unwrap().to_owned();
    let (status, receipt) = get(&platform, LEAD, &format!("receipts/{id}"));
    assert_eq!((status, &receipt), (200, &all["items"][0]));
    assert_eq!(receipt["receipt"]["state"], "final");
    let denied = get(&platform, OTHER_LEAD, &format!("receipts/{id}"));
    assert_eq!((denied.0, &denied), (404, &get(&platform, OTHER_LEAD, "receipts/made-up")));
    let (status, keys) = get(&platform, LEAD, "receipts/key");
    assert_eq!((status, &keys["algorithm"]), (200, &json!("Ed25519")));
    let path = |name: &str| platform.dir().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("receipt.json"), receipt.to_string()).unwrap();
    std::fs::write(path("keys.json"), keys.to_string()).unwrap();
    let verify = ["receipt", "verify", &path("receipt.json"), "--key", &path("keys.json")];
    assert!(platform.dejima(LEAD, &verify).status.success());
    assert_eq!(platform.ask(STRANGER, "GET", "/readyz", None).0, 200);
}
