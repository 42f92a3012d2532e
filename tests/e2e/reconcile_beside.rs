//! Two projects that share one real host: a machine reaches neither the host, nor the machine beside it, nor the outside; and each of
//! those answers it the moment the rule that stands between is taken out.

use dejima_lab::Agent;
use dejima_tests::parts::Platform;
use dejima_tests::{LEAD, without_data};
use serde_json::Value;

use crate::reconcile_egress::OUTSIDE;
use crate::running::{alone, domain_of};

const HOST: &str = "host-s";
const PROJECTS: [&str; 2] = ["one", "two"];

/// A page that says who answers, on port 8080.
fn answer(who: &str) -> String {
    format!("mkdir -p /run/page && echo {who} >/run/page/index.html && busybox httpd -p 8080 -h /run/page >/dev/null 2>&1")
}

/// Somebody whom the machine must not reach.
struct Target {
    what: &'static str,
    address: String,
    port: u16,
    says: &'static str,
}

/// Whether it answers the machine.
fn reaches(machine: &Agent, target: &Target) -> bool {
    let ask = format!("timeout 3 wget -q -O - http://{}:{}/index.html", target.address, target.port);
    machine.run(&ask, 20).unwrap().output.contains(target.says)
}

fn reached<'a>(machine: &Agent, targets: &'a [Target]) -> Vec<&'a str> {
    let all = targets.iter().filter(|target| reaches(machine, target));
    all.map(|target| target.what).collect()
}

#[test]
fn a_machine_on_a_shared_host_reaches_nobody_until_the_rule_between_is_taken_out() {
    let _alone = alone();
    let mut platform = Platform::new("beside", &[]);
    platform.install_probe_image(None);
    platform.start_operator(None);
    platform.add_machine_host(HOST, "{roles: [machines]}");
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    for name in PROJECTS {
        let shared = without_data(&tenant)
            .replace("name: liver-ct", &format!("name: {name}"))
            .replace("  period:", "  placement: {dedicated: false}\n  period:");
        platform.world.create(LEAD, &shared).accepted();
    }
    let projects = PROJECTS.map(|name| {
        assert_eq!(platform.ready(&tenant, name), HOST);
        platform.world.get(&tenant, "isolatedproject", name)
    });
    let segments = projects.each_ref().map(|project| {
        let name = format!("project-{}", project["metadata"]["uid"].as_str().unwrap());
        platform.world.get(&format!("dejima-host-{HOST}"), "hostplan", &name)["spec"]["project"]["segment"].clone()
    });
    let text = |segment: &Value, at: &str| segment.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    let [own, other] = segments.each_ref().map(|segment| text(segment, "/ports/0/address"));
    let machines = projects.each_ref().map(|project| {
        let machine = Agent::new(&platform.host(HOST).uri(), &domain_of(project, "train"));
        machine.plug_in().unwrap();
        machine.ready(60).unwrap();
        machine
    });
    let target = |what, address: &str, port, says| Target {
        what,
        address: address.to_owned(),
        port,
        says,
    };
    let of_the_host = [
        target("its gateway", &text(&segments[0], "/gateway"), 8080, "the-host"),
        target("the other project's gateway", &text(&segments[1], "/gateway"), 8080, "the-host"),
        target("the host's own address", "203.0.113.1", 8080, "the-host"),
    ];
    let behind = [
        target("the machine beside it", &other, 8080, "the-other"),
        target("the outside", "203.0.113.7", 443, "outside"),
    ];
    let host = platform.host(HOST);
    let on_host = |line: &str| host.run(&["sh", "-c", line], None).unwrap();
    on_host(OUTSIDE);
    on_host(&answer("the-host"));
    machines[1].succeed(&answer("the-other"), 20).unwrap();

    // Somebody has set the host up to pass everything on: routes both ways, and forwarding. Only our rules stand between.
    for (segment, address) in segments.iter().zip([&own, &other]) {
        on_host(&format!("ip route replace {address}/32 dev {}", text(segment, "/bridge")));
    }
    on_host("echo 1 >/proc/sys/net/ipv4/ip_forward");
    for target in of_the_host.iter().chain(&behind[1..]) {
        let said = on_host(&format!(
            "busybox wget -q -O - http://{}:{}/index.html",
            target.address, target.port
        ));
        assert!(said.contains(target.says), "the control: {} answers the host itself", target.what);
    }
    assert!(
        machines[1]
            .run(&format!("wget -q -O - http://{other}:8080/index.html"), 20)
            .unwrap()
            .output
            .contains("the-other"),
        "the control: the machine beside it answers itself"
    );
    let nobody: [&str; 0] = [];
    assert_eq!(reached(&machines[0], &of_the_host), nobody);
    assert_eq!(reached(&machines[0], &behind), nobody);

    // The control: the same addresses and ports, from the same machine, with the rule that refuses them taken out. hostd would mend it.
    platform.stop(HOST);
    let host = platform.host(HOST);
    let on_host = |line: &str| host.run(&["sh", "-c", line], None).unwrap();
    let rules = on_host("nft -a list chain inet dejima input");
    let handle = rules.lines().find(|line| line.contains("comment \"host\"")).unwrap();
    let handle = handle.rsplit("handle ").next().unwrap().trim().to_owned();
    on_host(&format!("nft delete rule inet dejima input handle {handle}"));
    let all = |targets: &[Target]| -> Vec<&'static str> { targets.iter().map(|target| target.what).collect() };
    assert_eq!(reached(&machines[0], &of_the_host), all(&of_the_host));
    assert_eq!(reached(&machines[0], &behind), nobody, "another rule is still there");
    on_host("nft 'chain inet dejima forward { policy accept; }'");
    assert_eq!(reached(&machines[0], &behind), all(&behind));

    // It is back: both rules are, before anything is said to be proved.
    platform.start_host(HOST, None);
    platform.within(30, "everything is closed again", || {
        reached(&machines[0], &of_the_host).is_empty() && reached(&machines[0], &behind).is_empty()
    });
    let delete = ["delete", "isolatedproject", "one", "two", "-n", &tenant, "--timeout=60s"];
    platform.world.run(LEAD, &delete).accepted();
    let status = platform.world.get("", "host", HOST)["status"].clone();
    assert!(status["claims"].as_array().is_none_or(Vec::is_empty), "{status}");
}
