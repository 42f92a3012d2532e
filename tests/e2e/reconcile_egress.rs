//! What may leave: an address answers once it is listed and attested, and no other; an edit closes it; exposure keeps it closed.

use dejima_lab::Host;
use dejima_tests::{LEAD, OFFICE, PROVIDER};

use crate::running::{PROJECT, Running};

const HOST: &str = "host-e";
const OPEN: &str = "203.0.113.7";
const OTHER: &str = "203.0.113.8";

/// An outside behind the host's own uplink: two addresses that answer on TCP port 443. It lives in a network namespace of the
/// host and ends with it.
pub(crate) const OUTSIDE: &str = "\
    unshare --net sleep 900 >/dev/null 2>&1 & pid=$!
    until [ \"$(readlink /proc/$pid/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.05; done
    ip link add up0 type veth peer name eth0 netns $pid
    ip addr add 203.0.113.1/24 dev up0 && ip link set up0 up
    beyond() { nsenter --net=/proc/$pid/ns/net \"$@\"; }
    beyond ip addr add 203.0.113.7/24 dev eth0 && beyond ip addr add 203.0.113.8/24 dev eth0
    beyond ip link set eth0 up && beyond ip link set lo up && beyond ip route add default via 203.0.113.1
    mkdir -p /run/dejima-outside && echo outside > /run/dejima-outside/index.html
    beyond busybox httpd -p 443 -h /run/dejima-outside >/dev/null 2>&1";

/// The control of what does not answer a machine.
fn both_answer_the_host(host: &Host) {
    for address in [OPEN, OTHER] {
        let page = format!("http://{address}:443/index.html");
        let said = host.run(&["busybox", "wget", "-q", "-O", "-", &page], None).unwrap();
        assert!(said.contains("outside"), "the control: {address} answers the host");
    }
}

#[test]
fn an_address_answers_once_listed_and_attested_and_no_other_and_exposure_closes_it() {
    let running = Running::new("egress", &[HOST], "usagepolicy-open.yaml", 1 << 40);
    let platform = &running.platform;
    platform.host(HOST).run(&["sh", "-c", OUTSIDE], None).unwrap();
    // A second dataset over the same files, whose policy lets attested addresses open and does not review them.
    let lenient = running
        .example("usagepolicy-open.yaml", &[("name: open-2026", "name: lenient-2026")])
        .replace(
            "egress: {network: none}",
            "egress: {network: attested}\n  review: {covers: [purpose, institution, members]}",
        );
    platform.world.create(PROVIDER, &lenient).accepted();
    let changes = [
        ("name: ct-mr, ", "name: ct-mr-lenient, "),
        ("policyRef: ct-mr-2026", "policyRef: lenient-2026"),
        ("catalogueId: 62", "catalogueId: 63"),
    ];
    platform
        .world
        .create(PROVIDER, &running.example("dataset-story.yaml", &changes))
        .accepted();
    for claim in ["approval", "agreement"] {
        running.says(
            OFFICE,
            &["attest", "dataset", &format!("{}/ct-mr-lenient", running.provider), claim],
        );
    }
    let listed = format!("network: {{egress: [{{cidr: {OPEN}/32, ports: [443], why: reference data}}]}}\n  datasets:");
    running.apply(&[
        ("datasets:", listed.as_str()),
        ("name: ct-mr, actions", "name: ct-mr-lenient, actions"),
    ]);
    running.mounted();
    let guest = running.guest(HOST, "train");
    let answers = |address: &str| {
        let ask = format!("timeout 3 wget -q -O - http://{address}:443/index.html");
        guest.run(&ask, 20).unwrap().output.contains("outside")
    };
    both_answer_the_host(platform.host(HOST));
    assert!(!answers(OPEN), "an address that nobody attested answers");

    let project = format!("{}/{PROJECT}", running.tenant);
    running.says(OFFICE, &["attest", "project", &project, "egress"]);
    platform.within(30, "the address answers", || answers(OPEN));
    assert!(!answers(OTHER), "an address that is not listed answers");

    // The entry is edited: it is another one, and nobody vouched for it.
    let edit = |why: &str| format!(r#"[{{"op":"replace","path":"/spec/network/egress/0/why","value":"{why}"}}]"#);
    let patch = |patch: &str| {
        platform
            .world
            .patch(LEAD, &running.tenant, "isolatedproject", PROJECT, patch)
            .accepted()
    };
    patch(&edit("something else"));
    platform.within(30, "the address is closed", || !answers(OPEN));
    let said = || {
        let explained = platform.dejima(LEAD, &["--lang", "en", "explain", "project", &project]);
        String::from_utf8_lossy(&explained.stdout).into_owned()
    };
    platform.eventually("it says why", || said().contains("Unattested"));
    patch(&edit("reference data"));
    platform.within(30, "as it was attested, it is open again", || answers(OPEN));

    // A dataset whose policy lets nothing leave is added: the address closes. It is removed: what was exposed was exposed.
    let strict = format!(
        r#"[{{"op":"add","path":"/spec/datasets/-","value":{{"namespace":"{}","name":"ct-mr","actions":["train"],"attachTo":["train"],"mountPath":"/data/strict"}}}}]"#,
        running.provider
    );
    patch(r#"[{"op":"replace","path":"/spec/network/egress","value":[]}]"#);
    platform.within(30, "nothing is open", || !answers(OPEN));
    patch(&strict);
    platform.within(60, "the strict one is mounted", || {
        guest.run("ls /data/strict/CT", 20).unwrap().is_success()
    });
    patch(r#"[{"op":"remove","path":"/spec/datasets/1"}]"#);
    platform.within(30, "it is gone", || !guest.run("ls /data/strict/CT", 20).unwrap().is_success());
    patch(&format!(
        r#"[{{"op":"replace","path":"/spec/network/egress","value":[{{"cidr":"{OPEN}/32","ports":[443],"why":"reference data"}}]}}]"#
    ));
    platform.eventually("it says why", || said().contains("EgressForbidden"));
    assert!(!answers(OPEN), "egress opened over exposure");
    platform
        .world
        .run(
            LEAD,
            &["delete", "isolatedproject", PROJECT, "-n", &running.tenant, "--timeout=60s"],
        )
        .accepted();
}

#[test]
fn an_address_that_no_review_has_seen_stays_closed_and_the_data_waits() {
    let running = Running::new("covered", &[HOST], "usagepolicy-attested.yaml", 1 << 40);
    let platform = &running.platform;
    platform.host(HOST).run(&["sh", "-c", OUTSIDE], None).unwrap();
    both_answer_the_host(platform.host(HOST));
    running.apply(&[]);
    platform.ready(&running.tenant, PROJECT);
    let first = running.agree();
    running.mounted();
    let guest = running.guest(HOST, "train");
    let has_data = || guest.run("ls /data/ct-mr/CT", 20).unwrap().is_success();
    let answers = |address: &str| {
        let ask = format!("timeout 3 wget -q -O - http://{address}:443/index.html");
        guest.run(&ask, 20).unwrap().output.contains("outside")
    };
    platform.within(30, "the data in the guest", has_data);

    // Listed and attested, and no reviewer has seen it: it stays closed, and the data waits for a new review.
    let list = format!(
        r#"[{{"op":"add","path":"/spec/network","value":{{"egress":[{{"cidr":"{OPEN}/32","ports":[443],"why":"reference data"}}]}}}}]"#
    );
    platform
        .world
        .patch(LEAD, &running.tenant, "isolatedproject", PROJECT, &list)
        .accepted();
    running.says(OFFICE, &["attest", "project", &format!("{}/{PROJECT}", running.tenant), "egress"]);
    platform.within(30, "the data waits", || !has_data());
    platform.eventually("it says for what", || {
        running.project()["status"]["datasets"][0]["reasons"][0]["code"] == "ReviewPending"
    });
    assert!(!answers(OPEN), "an address that no review has seen answers");

    // The same people look at the new request: the data is back and the address answers, and no other.
    let second = || running.grants().into_iter().find(|grant| *grant != first);
    platform.eventually("a new request", || second().is_some());
    running.approve(&second().unwrap());
    platform.within(30, "the data is back", has_data);
    platform.within(30, "the address answers", || answers(OPEN));
    assert!(!answers(OTHER), "an address that is not listed answers");
}
