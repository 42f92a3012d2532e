//! Hosts that projects share: those that allow it lie side by side by claims, as far as there is room, and whoever wants a host for
//! himself lies beside nobody, both ways.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, without_data};
use serde_json::{Value, json};

/// Drivers that remember say that they have this much.
const CPUS: u64 = 64;
const HOSTS: [&str; 2] = ["host-p", "host-q"];

/// A project of this name, alone on its host or not, whose only machine has so many processors.
fn project(tenant: &str, name: &str, dedicated: bool, cpus: u64) -> String {
    without_data(tenant)
        .replace("name: liver-ct", &format!("name: {name}"))
        .replace("cpu: 1,", &format!("cpu: {cpus},"))
        .replace("  period:", &format!("  placement: {{dedicated: {dedicated}}}\n  period:"))
}

struct Shared {
    platform: Platform,
    tenant: String,
}

impl Shared {
    fn create(&self, name: &str, dedicated: bool, cpus: u64) {
        self.platform
            .world
            .create(LEAD, &project(&self.tenant, name, dedicated, cpus))
            .accepted();
    }

    #[track_caller]
    fn ready(&self, name: &str) -> String {
        self.platform.ready(&self.tenant, name)
    }

    /// Waits until a project waits; what it says that it waits for.
    #[track_caller]
    fn waits(&self, name: &str, because: &str) {
        let placed = || self.platform.condition(&self.tenant, "isolatedproject", name, "Placed");
        self.platform.eventually(&format!("{name} waits: {because}"), || {
            let (_, reason, message) = placed();
            reason == "NoHost" && message.contains(because)
        });
        assert_ne!(
            self.platform.condition(&self.tenant, "isolatedproject", name, "Ready").0,
            "True",
            "{name}"
        );
    }

    fn uid(&self, name: &str) -> String {
        let object = self.platform.world.get(&self.tenant, "isolatedproject", name);
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    fn host(&self, name: &str) -> Value {
        self.platform.world.get("", "host", name)["status"].clone()
    }

    /// What is claimed of a host: by whom, and how much of everything.
    fn claims(&self, host: &str) -> Vec<Value> {
        self.host(host)["claims"].as_array().cloned().unwrap_or_default()
    }

    /// What a project of one machine claims.
    fn claim(&self, name: &str, cpus: u64) -> Value {
        json!({"uid": self.uid(name), "cpus": cpus, "memory": 256 << 20, "bytes": 64 << 20})
    }

    /// The projects of which something is on a host.
    fn on(&self, host: &str) -> Vec<String> {
        let remembered = self.platform.remembered(host);
        remembered["projects"].as_object().unwrap().keys().cloned().collect()
    }

    fn patch(&self, name: &str, patch: &str) {
        self.platform
            .world
            .patch(LEAD, &self.tenant, "isolatedproject", name, patch)
            .accepted();
    }

    #[track_caller]
    fn delete(&self, names: &[&str]) {
        let words = [&["delete", "isolatedproject", "-n", &self.tenant, "--timeout=40s"][..], names];
        self.platform.world.run(LEAD, &words.concat()).accepted();
    }
}

#[test]
fn projects_that_allow_it_share_a_host_by_claims_and_whoever_wants_it_alone_lies_beside_nobody() {
    let mut platform = Platform::new("shared", &HOSTS[..1]);
    platform.start_operator(None);
    platform.start_host(HOSTS[0], None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let mut shared = Shared { platform, tenant };

    // Two that allow it lie side by side; each has claimed exactly what it is to have.
    shared.create("one", false, 40);
    assert_eq!(shared.ready("one"), HOSTS[0]);
    shared.create("two", false, 20);
    assert_eq!(shared.ready("two"), HOSTS[0]);
    assert_eq!(shared.claims(HOSTS[0]), [shared.claim("one", 40), shared.claim("two", 20)]);
    assert!(shared.host(HOSTS[0])["heldBy"].is_null(), "nobody holds it alone");
    assert_eq!(shared.on(HOSTS[0]).len(), 2, "both are there");

    // One that wants a host alone does not lie beside them; one that allows sharing and is too large does not either.
    shared.create("alone", true, 1);
    shared.waits("alone", "host-p: it is held by another project");
    shared.create("large", false, 5);
    shared.waits("large", "host-p: it has too little room");
    assert_eq!(shared.claims(HOSTS[0]).len(), 2, "who waits has claimed nothing");

    // A share grows as far as there is room: to the last processor, and not beyond.
    let grow = |cpus: u64| format!(r#"[{{"op":"replace","path":"/spec/machines/0/cpu","value":{cpus}}}]"#);
    shared.patch("two", &grow(CPUS - 40 + 1));
    shared.waits("two", "host-p: it has too little room for what was added");
    assert_eq!(shared.claims(HOSTS[0])[1], shared.claim("two", 20), "what it has it keeps");
    shared.patch("two", &grow(CPUS - 40));
    shared.platform.eventually("the share has grown", || {
        shared.claims(HOSTS[0]) == [shared.claim("one", 40), shared.claim("two", CPUS - 40)]
    });
    // Whoever shares a host and then wants it alone gets it once nobody else is there, and until then says what for.
    let alone = r#"[{"op":"replace","path":"/spec/placement/dedicated","value":true}]"#;
    shared.patch("one", alone);
    shared.waits("one", "host-p: other projects share it, and this one now wants it for itself");
    assert_eq!(shared.claims(HOSTS[0]).len(), 2);

    // A second host: the one that wants it alone holds it, and nobody who allows sharing lands there.
    shared.platform.add_host(HOSTS[1], "{roles: [machines]}");
    shared.platform.start_host(HOSTS[1], None);
    shared.delete(&["large"]);
    assert_eq!(shared.ready("alone"), HOSTS[1]);
    assert_eq!(shared.host(HOSTS[1])["heldBy"]["uid"], shared.uid("alone").as_str());
    // It is too large for what the second one leaves: whoever fits first comes first.
    shared.create("later", false, 30);
    shared.waits("later", "host-q: it is held by another project");
    assert!(shared.claims(HOSTS[1]).is_empty() && shared.on(HOSTS[1]) == [shared.uid("alone")]);

    // A claim goes with its project, and the room it took is there for who waited.
    let two = shared.uid("two");
    shared.delete(&["two"]);
    assert_eq!(shared.ready("one"), HOSTS[0]);
    assert_eq!(shared.host(HOSTS[0])["heldBy"]["uid"], shared.uid("one").as_str());
    assert!(
        shared.claims(HOSTS[0]).is_empty() && !shared.on(HOSTS[0]).contains(&two),
        "{}",
        shared.host(HOSTS[0])
    );
    shared.waits("later", "host-p: it is held by another project");
    shared.delete(&["alone"]);
    assert_eq!(shared.ready("later"), HOSTS[1]);
    assert_eq!(shared.claims(HOSTS[1]), [shared.claim("later", 30)]);
    shared.delete(&["one", "later"]);
    for host in HOSTS {
        let status = shared.host(host);
        assert!(status["heldBy"].is_null() && shared.claims(host).is_empty(), "{host}: {status}");
        assert!(shared.on(host).is_empty(), "{host}");
    }
    let left = shared
        .platform
        .world
        .run(ADMIN, &["get", "hostplans", "-A", "-o", "name"])
        .accepted();
    assert_eq!(left.trim(), "");
}
