//! Volumes of a project that goes on: they grow, come, leave with their data, come back, and are destroyed with a receipt.

use dejima_lab::Agent;
use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, without_data};
use serde_json::{Value, json};

use crate::running::{PROJECT, alone, domain_of};

const HOST: &str = "host-v";
const MORE: &str = r#"{"name":"more","size":"64Mi","attachTo":"train","mountPath":"/more"}"#;

/// A project that is ready, on a platform with this host.
pub(crate) struct Edited {
    pub(crate) platform: Platform,
    pub(crate) tenant: String,
    pub(crate) host: &'static str,
}

impl Edited {
    fn project(&self) -> Value {
        self.platform.world.get(&self.tenant, "isolatedproject", PROJECT)
    }

    /// Edits the project as its lead.
    #[track_caller]
    pub(crate) fn edit(&self, patch: &Value) {
        let patched = self
            .platform
            .world
            .patch(LEAD, &self.tenant, "isolatedproject", PROJECT, &patch.to_string());
        patched.accepted();
    }

    /// The names of kept volumes.
    pub(crate) fn kept(&self) -> Vec<String> {
        let project = self.project();
        let kept = project["status"]["keptVolumes"].as_array().cloned().unwrap_or_default();
        kept.iter().map(|kept| kept["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What the host's plan says of the project.
    pub(crate) fn plan(&self) -> Value {
        let name = format!("project-{}", self.project()["metadata"]["uid"].as_str().unwrap());
        self.platform.world.get(&format!("dejima-host-{}", self.host), "hostplan", &name)
    }

    /// The documents of receipts of a volume.
    pub(crate) fn receipts(&self, volume: &str) -> Vec<String> {
        let documents = self.platform.receipts(LEAD, &self.tenant).into_iter();
        documents
            .filter(|text| serde_json::from_str::<Value>(text).unwrap()["receipt"]["volume"] == volume)
            .collect()
    }
}

/// A value of the only project that a host remembers.
pub(crate) fn remembered(platform: &Platform, host: &str, at: &str) -> Value {
    let world = platform.remembered(host);
    let project = world["projects"].as_object().and_then(|all| all.values().next().cloned());
    project.unwrap_or_default().pointer(at).cloned().unwrap_or_default()
}

#[test]
fn a_volume_that_leaves_is_kept_comes_back_and_is_destroyed_with_a_receipt() {
    let mut platform = Platform::new("kept", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, PROJECT);
    let edited = Edited {
        platform,
        tenant,
        host: HOST,
    };
    let seen = |name: &str| remembered(&edited.platform, HOST, &format!("/domains/train/volumes/{name}"));
    let key = |name: &str| remembered(&edited.platform, HOST, &format!("/volumes/{name}/wrapped_key"));
    let eventually = |what: &str, so: &dyn Fn() -> bool| edited.platform.eventually(what, so);
    let ready = || {
        edited
            .platform
            .condition(&edited.tenant, "isolatedproject", PROJECT, "VolumesReady")
            .0
            == "True"
    };
    let more: Value = serde_json::from_str(MORE).unwrap();

    // It grows, and another one comes, in the machine that runs.
    edited.edit(&json!([{"op": "replace", "path": "/spec/volumes/0/size", "value": "128Mi"}, {"op": "add", "path": "/spec/volumes/-", "value": more}]));
    eventually("the larger and the new one", &|| {
        seen("work") == 128 << 20 && seen("more") == 64 << 20 && ready()
    });
    let (drifted, ..) = edited.platform.condition(&edited.tenant, "isolatedproject", PROJECT, "Drifted");
    assert_ne!(drifted, "True", "a volume that comes waits for no start");
    let first = key("more");

    // It leaves: it is detached and kept, and comes back as it was.
    edited.edit(&json!([{"op": "remove", "path": "/spec/volumes/1"}]));
    eventually("kept", &|| edited.kept() == ["more"] && seen("more").is_null());
    let kept = edited.project()["status"]["keptVolumes"][0].clone();
    assert_eq!((&kept["host"], &kept["size"]), (&json!(HOST), &json!("64Mi")));
    assert_eq!(key("more"), first);
    edited.edit(&json!([{"op": "add", "path": "/spec/volumes/-", "value": more}]));
    eventually("back", &|| edited.kept().is_empty() && seen("more") == 64 << 20 && ready());
    assert_eq!(key("more"), first, "with its data");

    // Its destruction is ordered in the edit in which it leaves: it is known to be kept before it is destroyed. What never was is not.
    edited.edit(
        &json!([{"op": "remove", "path": "/spec/volumes/1"}, {"op": "add", "path": "/spec/destroyVolumes", "value": ["more", "never"]}]),
    );
    eventually("destroyed", &|| {
        key("more").is_null() && edited.receipts("more").len() == 1 && edited.kept().is_empty()
    });
    assert!(edited.receipts("never").is_empty());
    let document = edited.receipts("more").remove(0);
    let (holds, words) = edited.platform.verify(LEAD, &document);
    assert!(holds && words.contains("volume more of") && words.contains(HOST), "{words}");
    assert!(
        !edited.platform.verify(LEAD, &document.replace("\"more\"", "\"work\"")).0,
        "the control: of another volume it does not hold"
    );
    let receipt: Value = serde_json::from_str(&document).unwrap();
    let recorded = |record: &Value| record["act"]["facts"]["receipt.json"] == document.as_str() && record["act"]["phase"] == "ended";
    assert_eq!(edited.platform.records().iter().filter(|record| recorded(record)).count(), 1);
    eventually("no order is left", &|| edited.plan()["spec"]["project"]["destroy"].is_null());
    // The other one is as it was, and the project goes on.
    assert_eq!((seen("work"), ready()), (json!(128 << 20), true));

    // One of that name is another one; its end has a receipt of its own.
    edited.edit(&json!([{"op": "remove", "path": "/spec/destroyVolumes"}, {"op": "add", "path": "/spec/volumes/-", "value": more}]));
    eventually("a new one", &|| seen("more") == 64 << 20 && ready());
    assert_ne!(key("more"), first);
    edited.edit(&json!([{"op": "remove", "path": "/spec/volumes/1"}]));
    eventually("kept again", &|| edited.kept() == ["more"]);
    // Project and all: the receipt of the project names what is kept, too.
    let delete = ["delete", "isolatedproject", PROJECT, "-n", &edited.tenant, "--timeout=60s"];
    edited.platform.world.run(LEAD, &delete).accepted();
    let whole = edited.platform.receipts(ADMIN, &edited.tenant);
    let whole = whole
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap())
        .find(|said| said["receipt"]["volume"].is_null());
    assert_eq!(whole.unwrap()["receipt"]["volumes"], json!(["more", "work"]));
    // The receipt of the volume stands beside it.
    assert_eq!(edited.receipts("more").len(), 1);
    assert_eq!(receipt["receipt"]["project"]["name"], PROJECT);
}

#[test]
fn a_running_machine_gets_what_grows_and_what_comes_and_loses_nothing_that_leaves() {
    let _alone = alone();
    let mut platform = Platform::new("edited", &[]);
    platform.install_probe_image(None);
    platform.start_operator(None);
    platform.add_machine_host(HOST, "{roles: [machines]}");
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, PROJECT);
    let edited = Edited {
        platform,
        tenant,
        host: HOST,
    };
    let domain = domain_of(&edited.project(), "train");
    let guest = Agent::new(&edited.platform.host(HOST).uri(), &domain);
    guest.plug_in().unwrap();
    guest.ready(60).unwrap();
    let said = |command: &str| guest.succeed(command, 60).unwrap();
    let so = |command: &str| guest.run(command, 20).is_ok_and(|ran| ran.is_success());
    let within = |what: &str, so: &dyn Fn() -> bool| edited.platform.within(60, what, so);
    let uid = edited.project()["metadata"]["uid"].as_str().unwrap().to_owned();
    let file = |name: &str| edited.platform.volumes(HOST).join(&uid).join(format!("{name}.luks"));
    let disks = || edited.platform.host(HOST).ask(&["domblklist", &domain], None).unwrap();
    let more: Value = serde_json::from_str(MORE).unwrap();
    within("the volume", &|| so("grep -q ' /scratch ' /proc/mounts"));
    said("echo before > /scratch/file; sync");
    let boot = said("cat /proc/sys/kernel/random/boot_id");

    // It grows: the disk, then the file system; the machine goes on.
    let room = || said("df -k /scratch | awk 'END {print $2}'").parse::<u64>().unwrap();
    let size = || {
        said("cat /sys/block/$(grep ' /scratch ' /proc/mounts | sed 's,/dev/,,; s, .*,,')/size")
            .parse::<u64>()
            .unwrap()
    };
    let (before, sectors) = (room(), size());
    assert_eq!(sectors, (64 << 20) / 512);
    edited.edit(&json!([{"op": "replace", "path": "/spec/volumes/0/size", "value": "160Mi"}]));
    within("the larger disk", &|| size() == (160 << 20) / 512);
    within("the larger file system", &|| room() > before * 2);
    within("said", &|| {
        let (ready, ..) = edited
            .platform
            .condition(&edited.tenant, "isolatedproject", PROJECT, "VolumesReady");
        ready == "True" && edited.plan()["spec"]["project"]["volumes"][0]["bytes"] == 160 << 20
    });
    assert_eq!(
        said("cat /scratch/file; head -c 100000000 /dev/zero > /scratch/large && echo fits"),
        "before\nfits"
    );
    said("rm /scratch/large");

    // Another one comes while it runs, and is used.
    edited.edit(&json!([{"op": "add", "path": "/spec/volumes/-", "value": more}]));
    within("the new volume", &|| so("grep -q ' /more ' /proc/mounts"));
    assert!(disks().contains("more.luks"));
    said(
        "touch /run/writes; (n=0; while [ -e /run/writes ]; do n=$((n + 1)); echo $n; echo $n >/run/last; sleep 0.1; done >>/more/log) >/dev/null 2>&1 &",
    );
    // It is to leave, and does not as long as somebody writes to it.
    edited.edit(&json!([{"op": "remove", "path": "/spec/volumes/1"}]));
    within("the guest knows", &|| {
        so("! grep -q /more /run/dejima/want && grep -q 'is used' /run/vendor-data.log")
    });
    within("said", &|| {
        edited.project()["status"]["keptVolumes"][0]["note"]
            .as_str()
            .is_some_and(|note| note.contains("still uses it"))
    });
    assert!(disks().contains("more.luks") && so("grep -q ' /more ' /proc/mounts"));
    said("rm /run/writes");
    within("it leaves", &|| !disks().contains("more.luks"));
    within("said", &|| edited.project()["status"]["keptVolumes"][0]["note"].is_null());
    let last = said("cat /run/last");
    assert!(so("! grep -q ' /more ' /proc/mounts"));

    // Listed again it is there with everything that was written, to the last line.
    edited.edit(&json!([{"op": "add", "path": "/spec/volumes/-", "value": more}]));
    within("back", &|| so("grep -q ' /more ' /proc/mounts"));
    assert_eq!(
        said("tail -n 1 /more/log; grep -c 'more is formatted' /run/vendor-data.log"),
        format!("{last}\n1")
    );

    // An order to destroy it waits for nobody in the guest.
    assert!(file("more").exists());
    said("(cd /more && exec sleep 1000) >/dev/null 2>&1 &");
    edited.edit(&json!([{"op": "remove", "path": "/spec/volumes/1"}, {"op": "add", "path": "/spec/destroyVolumes", "value": ["more"]}]));
    within("destroyed", &|| {
        !file("more").exists() && !edited.receipts("more").is_empty() && edited.kept().is_empty()
    });
    assert!(!disks().contains("more.luks"));
    assert!(edited.platform.verify(LEAD, &edited.receipts("more")[0]).0);
    assert!(file("work").exists());
    assert_eq!(
        said("cat /scratch/file; cat /proc/sys/kernel/random/boot_id"),
        format!("before\n{boot}")
    );
    let delete = ["delete", "isolatedproject", PROJECT, "-n", &edited.tenant, "--timeout=60s"];
    edited.platform.world.run(LEAD, &delete).accepted();
    assert!(!file("work").exists());
}
