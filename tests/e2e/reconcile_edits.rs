//! An edit that cannot be carried out harms nothing that runs: it is told what is wrong, all of it, and mending it is enough.

use dejima_lab::{ToStderr, dicom};
use dejima_tests::parts::Platform;
use dejima_tests::{LEAD, OFFICE, PROVIDER, example};
use serde_json::{Value, json};

const HOST: &str = "host-e";
const INTAKE: &str = "intake-1";
const PROJECT: &str = "liver-ct";

struct Story {
    platform: Platform,
    provider: String,
    tenant: String,
}

impl Story {
    /// A project with a volume and a mounted dataset, on a host that remembers.
    fn new() -> Self {
        let mut platform = Platform::new("bad-edits", &[HOST]);
        let world = &platform.world;
        let provider = world.namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
        let tenant = world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
        platform.add_host(
            INTAKE,
            &format!("{{roles: [intake], intake: [{{namespace: {provider}, path: jichi}}]}}"),
        );
        let source = platform.sources(INTAKE).join("jichi");
        std::fs::create_dir_all(&source).unwrap();
        let mut copy = std::process::Command::new("cp");
        copy.arg("-r").arg(dicom::images(&ToStderr).unwrap()).arg(source.join("ct-mr"));
        assert!(copy.status().unwrap().success());
        platform.start_operator(None);
        platform.start_host(HOST, None);
        platform.start_host(INTAKE, None);
        let story = Self {
            platform,
            provider,
            tenant,
        };
        let world = &story.platform.world;
        let labels = [
            "dejima.dev/institution=035t8zc32",
            "dejima.dev/org-kind=public",
            "dejima.dev/country=JP",
        ];
        world
            .run(OFFICE, &[&["label", "namespace", &story.tenant][..], &labels[..]].concat())
            .accepted();
        world.create(PROVIDER, &story.example("usagepolicy-open.yaml", &[])).accepted();
        let open = [("policyRef: ct-mr-2026", "policyRef: open-2026")];
        world.create(PROVIDER, &story.example("dataset-story.yaml", &open)).accepted();
        world.create(LEAD, &story.example("isolatedproject-story.yaml", &[])).accepted();
        let dataset = format!("{}/ct-mr", story.provider);
        for claim in ["approval", "agreement"] {
            let said = story.platform.dejima(OFFICE, &["attest", "dataset", &dataset, claim]);
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        story
            .platform
            .within(60, "mounted", || story.project()["status"]["summary"]["datasets"] == "1/1");
        story.platform.ready(&story.tenant, PROJECT);
        story
    }

    fn example(&self, name: &str, changes: &[(&str, &str)]) -> String {
        let places = [
            ("namespace: jichi", format!("namespace: {}", self.provider)),
            ("namespace: osaka-radiology", format!("namespace: {}", self.tenant)),
        ];
        let places = places.iter().map(|(from, to)| (*from, to.as_str()));
        example(name, &changes.iter().copied().chain(places).collect::<Vec<_>>())
    }

    fn project(&self) -> Value {
        self.platform.world.get(&self.tenant, "isolatedproject", PROJECT)
    }

    /// Edits the project as its lead.
    #[track_caller]
    fn edit(&self, patch: &Value) {
        let world = &self.platform.world;
        world
            .patch(LEAD, &self.tenant, "isolatedproject", PROJECT, &patch.to_string())
            .accepted();
    }

    /// What the host has of the project: volumes with their keys, machines with what is attached.
    fn held(&self) -> Value {
        let remembered = self.platform.remembered(HOST);
        let project = remembered["projects"].as_object().and_then(|all| all.values().next().cloned());
        let project = project.unwrap_or_default();
        json!({"volumes": project["volumes"], "domains": project["domains"]})
    }

    /// The message of a condition, where it was said of the project as it stands.
    fn said(&self, kind: &str) -> (String, String) {
        let project = self.project();
        let all = project["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all
            .into_iter()
            .find(|said| said["type"] == kind && said["observedGeneration"] == project["metadata"]["generation"]);
        let text = |field: &str| found.as_ref().and_then(|said| said[field].as_str()).unwrap_or_default().to_owned();
        (text("status"), text("message"))
    }

    /// Waits until a condition says no, in all these words, of the project as it stands.
    #[track_caller]
    fn told(&self, kind: &str, words: &[&str]) {
        self.platform.eventually(&format!("{kind}: {words:?}"), || {
            let (status, message) = self.said(kind);
            status == "False" && words.iter().all(|word| message.contains(word))
        });
    }

    /// Waits until all is as it should be.
    #[track_caller]
    fn mended(&self) {
        self.platform.eventually("mended", || {
            ["Admitted", "Placed", "Ready", "DatasetsMounted"]
                .iter()
                .all(|kind| self.said(kind).0 == "True")
        });
    }
}

#[test]
fn a_bad_edit_is_told_everything_harms_nothing_that_runs_and_is_mended_by_an_edit() {
    let story = Story::new();
    let (held, spec) = (story.held(), story.project()["spec"].clone());
    assert_eq!(held["domains"]["train"]["shards"].as_array().map(Vec::len), Some(1), "{held}");
    let machine = |name: &str, count: u32| json!({"name": name, "cpu": 1, "memory": "64Mi", "image": "probe", "count": count});
    let add = |pointer: &str, value: &Value| json!([{"op": "add", "path": pointer, "value": value}]);
    let text = "\u{1}".repeat(16_000);
    let mut writer = machine("writer", 6);
    writer["userData"] = json!(text);
    let wrong = [
        (
            "Admitted",
            add("/spec/volumes/0/mountPath", &json!("/data")),
            vec!["/data and /data/ct-mr lie in each other"],
        ),
        (
            "Admitted",
            add("/spec/machines/0/devices", &json!(["gpu"])),
            vec!["machines[train].devices is not built yet: leave it out"],
        ),
        (
            "Admitted",
            add("/spec/volumes/0/backup", &json!(true)),
            vec!["volumes[work].backup"],
        ),
        (
            "Admitted",
            add("/spec/machines/-", &writer),
            vec!["userData together", "let them read the rest from a volume"],
        ),
        (
            "Placed",
            add("/spec/machines/0/image", &json!("nowhere")),
            vec!["there is no image nowhere", "kubectl get machineimages"],
        ),
        (
            "Admitted",
            // Five mistakes in one edit.
            json!([
                {"op": "add", "path": "/spec/volumes/0/mountPath", "value": "/data"},
                {"op": "add", "path": "/spec/index", "value": {"embedder": "built-in"}},
                {"op": "add", "path": "/spec/volumes/0/backup", "value": true},
                {"op": "add", "path": "/spec/machines/0/devices", "value": ["gpu"]},
                {"op": "add", "path": "/spec/machines/-", "value": machine("more", 2)},
                {"op": "add", "path": "/spec/machines/-", "value": machine("more-1", 1)},
            ]),
            vec![
                "lie in each other",
                "index is not built yet",
                "volumes[work].backup",
                "machines[train].devices",
                "would both be called more-1",
            ],
        ),
    ];
    for (kind, edit, words) in wrong {
        story.edit(&edit);
        story.told(kind, &words);
        story.told("Ready", &words);
        assert_eq!(story.held(), held, "{words:?}: what ran was touched");
        story.edit(&add("/spec", &spec));
        story.mended();
        assert_eq!(story.held(), held, "{words:?}: mending it touched what ran");
    }

    // Something that is not there is waited for; what is there stays.
    let none = json!({"namespace": story.provider, "name": "never-was", "attachTo": ["train"], "mountPath": "/never"});
    story.edit(&add("/spec/datasets/-", &none));
    story.told("DatasetsMounted", &["never-was", "NotMountable"]);
    assert_eq!((story.held(), story.said("Ready").0.as_str()), (held.clone(), "True"));
    story.edit(&add("/spec", &spec));
    story.mended();

    // The provider's mistake, too: a source that is not there, or leads out. The version that is mounted stays.
    let world = &story.platform.world;
    let source = story.platform.sources(INTAKE).join("jichi");
    std::os::unix::fs::symlink("ct-mr", source.join("link")).unwrap();
    for (revision, path) in [(2, "nowhere"), (3, "link")] {
        let order = json!([{"op": "add", "path": "/spec/revision", "value": revision}, {"op": "add", "path": "/spec/source/directory/path", "value": path}]);
        world
            .patch(PROVIDER, &story.provider, "dataset", "ct-mr", &order.to_string())
            .accepted();
        story.platform.eventually(&format!("{path} is told"), || {
            let (status, _, message) = story.platform.condition(&story.provider, "dataset", "ct-mr", "Ingested");
            status == "False" && message.contains(&format!("jichi/{path}"))
        });
        assert_eq!((story.held(), story.said("Ready").0.as_str()), (held.clone(), "True"));
    }

    // A volume that is renamed is two: the old one is kept with its data, and is there again under its old name.
    let keys = |name: &str| story.held()["volumes"][name]["wrapped_key"].clone();
    let first = keys("work");
    story.edit(&add("/spec/volumes/0/name", &json!("renamed")));
    story.platform.eventually("kept", || {
        let domain = &story.held()["domains"]["train"]["volumes"];
        story.project()["status"]["keptVolumes"][0]["name"] == "work" && domain["work"].is_null() && !domain["renamed"].is_null()
    });
    assert_eq!(keys("work"), first, "nothing is destroyed that is not named in destroyVolumes");
    story.edit(&add("/spec/volumes/0/name", &json!("work")));
    story
        .platform
        .eventually("back", || !story.held()["domains"]["train"]["volumes"]["work"].is_null());
    assert_eq!(keys("work"), first);
    // It does not shrink: the control is that it grows.
    let size = |size: &str| {
        let patch = add("/spec/volumes/0/size", &json!(size)).to_string();
        world.patch(LEAD, &story.tenant, "isolatedproject", PROJECT, &patch)
    };
    size("16Mi").refused("a volume grows, it never shrinks");
    size("128Mi").accepted();
    story
        .platform
        .eventually("larger", || story.held()["domains"]["train"]["volumes"]["work"] == 128 << 20);

    // What cannot be carried out can be deleted: whether or not it ever ran.
    let never = story.example(
        "isolatedproject-story.yaml",
        &[("name: liver-ct,", "name: never-ran,"), ("/scratch", "/data")],
    );
    world.create(LEAD, &never).accepted();
    story.platform.eventually("refused", || {
        let said = story.platform.condition(&story.tenant, "isolatedproject", "never-ran", "Admitted");
        said.0 == "False" && said.2.contains("lie in each other")
    });
    world
        .run(
            LEAD,
            &["delete", "isolatedproject", "never-ran", "-n", &story.tenant, "--timeout=60s"],
        )
        .accepted();
    story.edit(&add("/spec/volumes/0/mountPath", &json!("/data")));
    story.told("Admitted", &["lie in each other"]);
    world
        .run(LEAD, &["delete", "isolatedproject", PROJECT, "-n", &story.tenant, "--timeout=60s"])
        .accepted();
    assert_eq!(story.held(), json!({"volumes": null, "domains": null}), "nothing is left");
    assert_eq!(story.platform.receipts(LEAD, &story.tenant).len(), 1, "of the one that ran");
}
