//! Admission that is missing for a while: it is named, nothing new is permitted, what takes access away goes on, and what was
//! written meanwhile counts for nothing until it is written again.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OFFICE, PROVIDER, without_data};
use serde_json::{Value, json};

use crate::recover_faults::with_data;

const HOST: &str = "host-g";
const PROJECT: &str = "liver-ct";
/// Every policy that verdicts rest on.
const POLICIES: [&str; 8] = [
    "dejima-attestations",
    "dejima-host-plans",
    "dejima-hosts",
    "dejima-marks",
    "dejima-reviews",
    "dejima-status",
    "dejima-tenant-labels",
    "dejima-terms",
];

/// An admission policy as it stands, so that it can be made again.
fn policy(platform: &Platform, name: &str) -> Value {
    let mut object = platform.world.get("", "validatingadmissionpolicy", name);
    object["metadata"] = json!({"name": name});
    object.as_object_mut().unwrap().remove("status");
    object
}

fn delete(platform: &Platform, name: &str) {
    platform.world.run(ADMIN, &["delete", "validatingadmissionpolicy", name]).accepted();
}

#[test]
fn every_policy_is_named_where_it_is_weaker_or_gone_and_refuses_a_canary_before_it_is_relied_on() {
    let mut platform = Platform::new("canaries", &[]);
    platform.start_operator(None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    let admitted = |platform: &Platform| platform.condition(&tenant, "isolatedproject", PROJECT, "Admitted");
    platform.eventually("the control", || admitted(&platform).1 == "Admitted");
    // What the server wrote down: canaries that this policy refused.
    let refusals = |platform: &Platform, name: &str| {
        let log = std::fs::read_to_string(platform.world.plane().audit_log()).unwrap();
        let asked = log
            .lines()
            .filter(|line| line.contains("dryRun=All") && line.contains("dejima-system:operator"));
        asked
            .filter(|line| line.contains(&format!("'{name}'")) && line.contains("canary"))
            .count()
    };
    for name in POLICIES {
        assert!(refusals(&platform, name) > 0, "{name} was asked before the first project");
        let whole = policy(&platform, name);
        let missed = |platform: &Platform| {
            let (_, reason, message) = admitted(platform);
            reason == "AdmissionMissing" && message.contains(name)
        };
        let mut weak = whole.clone();
        for validation in weak["spec"]["validations"].as_array_mut().unwrap().iter_mut().skip(1) {
            validation["expression"] = "true".into();
        }
        platform.world.input(ADMIN, &["replace", "-f", "-"], &weak.to_string()).accepted();
        platform.eventually(&format!("{name} that refuses nothing is named"), || missed(&platform));
        delete(&platform, name);
        let before = refusals(&platform, name);
        platform.world.create(ADMIN, &whole.to_string()).accepted();
        platform.eventually(&format!("{name} is relied on again"), || admitted(&platform).1 == "Admitted");
        assert!(refusals(&platform, name) > before, "{name} was relied on before it refused");
    }
}

/// A project that has its data mounted, under a policy that asks for an attestation and for a label of the namespace.
struct Mounted {
    platform: Platform,
    provider: String,
    tenant: String,
}

impl Mounted {
    fn new() -> Self {
        let mut platform = Platform::new("gap-mount", &[HOST]);
        platform.start_operator(None);
        platform.start_host(HOST, None);
        let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
        let more = "egress: {network: none}\n  who: {orgKind: [public]}\n  prerequisites: {approvals: [user]}";
        let (provider, manifest) = with_data(&mut platform, &tenant, ("egress: {network: none}", more));
        platform.world.create(LEAD, &manifest).accepted();
        let mounted = Self {
            platform,
            provider,
            tenant,
        };
        mounted.label("dejima.dev/org-kind=public");
        mounted.attest();
        mounted
            .platform
            .within(60, "the control: its data is mounted", || mounted.shards() == 1);
        mounted
    }

    fn label(&self, label: &str) {
        let words = ["label", "namespace", &self.tenant, "--overwrite", label];
        self.platform.world.run(OFFICE, &words).accepted();
    }

    fn attest(&self) {
        let project = format!("{}/{PROJECT}", self.tenant);
        let attest = self.platform.dejima(OFFICE, &["attest", "project", &project, "ethics"]);
        assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    }

    fn take_attestations_back(&self) {
        let words = ["delete", "attestations", "--all", "-n", &self.tenant];
        self.platform.world.run(OFFICE, &words).accepted();
    }

    fn suspend(&self, patch: &Value) {
        self.platform
            .world
            .patch(PROVIDER, &self.provider, "dataset", "ct-mr", &json!([patch]).to_string())
            .accepted();
    }

    /// How many shards the host has attached.
    fn shards(&self) -> usize {
        let remembered = self.platform.remembered(HOST);
        let projects = remembered["projects"].as_object().cloned().unwrap_or_default();
        let of = |project: &Value| project["domains"]["train"]["shards"].as_array().map_or(0, Vec::len);
        projects.values().map(of).sum()
    }

    fn wish(&self) -> Value {
        self.platform.world.get(&self.tenant, "isolatedproject", PROJECT)["status"]["datasets"][0].clone()
    }

    /// Whether admission is missing, as the project says it.
    fn missing(&self) -> bool {
        self.platform.condition(&self.tenant, "isolatedproject", PROJECT, "Admitted").1 == "AdmissionMissing"
    }
}

#[test]
fn while_a_policy_is_missing_access_can_only_be_lost_and_what_is_written_counts_for_nothing() {
    let story = Mounted::new();
    let platform = &story.platform;
    let attestations = policy(platform, "dejima-attestations");
    delete(platform, "dejima-attestations");
    platform.eventually("it is missed", || story.missing());
    assert_eq!(story.shards(), 1, "what is permitted goes on");

    // A suspension ends the mount at once; lifted, the verdict permits again, and nothing new is given.
    story.suspend(&json!({"op": "add", "path": "/spec/suspended", "value": {"by": "jichi", "reason": "a doubt"}}));
    platform.eventually("a suspension ends the mount", || story.shards() == 0);
    assert!(story.missing());
    story.suspend(&json!({"op": "remove", "path": "/spec/suspended"}));
    platform.eventually("the verdict permits again", || story.wish()["verdict"] == "permit");
    platform.world.create(ADMIN, &attestations.to_string()).accepted();
    platform.eventually("the policy stands again", || !story.missing());
    platform.eventually("the mount comes back", || story.shards() == 1);

    // An attestation that is taken back ends it too; one that is made meanwhile, and labels that are set, count for nothing.
    delete(platform, "dejima-attestations");
    platform.eventually("it is missed", || story.missing());
    story.take_attestations_back();
    platform.eventually("without its attestation the mount ends", || story.shards() == 0);
    assert!(story.missing());
    story.attest();
    story.label("dejima.dev/country=JP");
    platform.world.create(ADMIN, &attestations.to_string()).accepted();
    platform.eventually("the policy stands again", || !story.missing());
    let said = |what: &str| story.wish()["reasons"].to_string().contains(what);
    platform.eventually("what to do about the attestation is said", || said("delete it and make it again"));
    assert!(said("dejima.dev/confirmed"), "and about the labels: {}", story.wish());
    let explained = platform.dejima(
        LEAD,
        &["--lang", "en", "explain", "project", &format!("{}/{PROJECT}", story.tenant)],
    );
    assert!(String::from_utf8_lossy(&explained.stdout).contains("dejima.dev/confirmed"));
    assert_eq!(story.shards(), 0);

    story.take_attestations_back();
    story.attest();
    platform.eventually("made again, the attestation counts", || !said("make it again"));
    assert!(said("dejima.dev/confirmed") && story.shards() == 0, "the labels do not yet");
    story.label("dejima.dev/confirmed=1");
    platform.eventually("confirmed, the labels count", || story.shards() == 1);
}
