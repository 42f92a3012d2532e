//! Networks: one suite for the real driver and for the one that remembers, and what only the real one can show, in network namespaces
//! that the test makes: hosts, guests and an outside. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code stops where it cannot go on"
)]

mod suite;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dejima_crds::bounded::Uid;
use dejima_crds::host::{Capacity, EngineKind};
use dejima_crds::host_plan::{EgressRule, Port, Segment};
use dejima_hostd::Error;
use dejima_hostd::driver::{Network, Proof};
use dejima_hostd::memory::Memory;
use dejima_hostd::network::Bridges;
use dejima_plan::Seen;
use dejima_plan::host::{NetworkSeen, segment_digest};
use dejima_plan::segment::{machine_names, segment};
use dejima_plan::sweep::{Owned, Thing};
use nix::sched::{CloneFlags, setns};

use suite::{Bench, suite};

/// A network namespace that lives as long as its only process.
struct Space(Child);

impl Drop for Space {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Space {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "600"]).stdin(Stdio::null());
        let space = Self(command.spawn().unwrap());
        let (own, begin) = (std::fs::read_link("/proc/self/ns/net").unwrap(), Instant::now());
        while std::fs::read_link(space.path()).unwrap() == own {
            assert!(begin.elapsed() < Duration::from_secs(10), "no namespace");
            std::thread::sleep(Duration::from_millis(2));
        }
        space.ok("ip link set lo up");
        space
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    fn say(&self, line: &str) -> (bool, String) {
        let net = format!("--net={}", self.path().display());
        let output = Command::new("nsenter").arg(net).args(["sh", "-c", line]).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), said)
    }

    fn ok(&self, line: &str) -> String {
        let (ok, said) = self.say(line);
        assert!(ok, "{line}: {said}");
        said
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        let entered = move || {
            setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().unwrap())
    }

    fn connect(&self, to: &str) -> std::io::Result<TcpStream> {
        self.within(|| TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(1500)))
    }

    /// Takes one rule out.
    fn take_out(&self, family: &str, chain: &str, comment: &str) {
        let listing = self.ok(&format!("nft -a list chain {family} dejima {chain}"));
        let line = listing
            .lines()
            .find(|line| line.contains(&format!("comment \"{comment}\"")))
            .unwrap();
        let handle = line.rsplit("handle ").next().unwrap().trim().to_owned();
        self.ok(&format!("nft delete rule {family} dejima {chain} handle {handle}"));
    }
}

/// A machine that is not there: a namespace at the other end of the tap.
fn guest(host: &Space, segment: &Segment, port: &Port) -> Space {
    let guest = Space::new();
    let (tap, mac, address) = (&port.tap, &port.mac, &port.address);
    host.ok(&format!(
        "ip link add name {tap} type veth peer name eth0 address {mac} netns {} && ip link set dev {tap} master {} up",
        guest.path().display(),
        segment.bridge
    ));
    let gateway = &segment.gateway;
    guest.ok(&format!(
        "ip addr add {address}/24 dev eth0 && ip link set dev eth0 up && ip route add default via {gateway}"
    ));
    guest
}

fn drawn(project: &Uid, machines: u32, egress: &[(&str, u16)]) -> Segment {
    let rule = |(cidr, port): &(&str, u16)| EgressRule {
        cidr: (*cidr).into(),
        ports: vec![*port],
    };
    segment(project, &machine_names(&"m".into(), machines), egress.iter().map(rule).collect())
}

fn driver(dir: &Path, host: &Space) -> Bridges {
    Bridges::new(dir, &host.path()).unwrap()
}

fn as_kept(segment: &Segment, proved: bool) -> Seen<NetworkSeen> {
    let rules = segment_digest(segment);
    let proved = proved.then(|| rules.clone());
    Seen::Present(NetworkSeen { rules, proved })
}

fn in_full(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}

fn proved(proof: Result<Proof, Error>) -> Proof {
    proof.unwrap_or_else(|error| panic!("{}", in_full(&error)))
}

#[tokio::test]
async fn networks_that_are_remembered_behave_as_real_ones_do() {
    let dir = tempfile::tempdir().unwrap();
    let next_life = || -> Box<dyn Network> { Box::new(Memory::new(dir.path(), Capacity::default(), EngineKind::Memory).unwrap()) };
    let world = dir.path().join("world.json");
    let change = || {
        let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&world).unwrap()).unwrap();
        for things in text["projects"].as_object_mut().unwrap().values_mut() {
            things["network"]["rules"] = format!("sha256:{}", "0".repeat(64)).into();
        }
        std::fs::write(&world, text.to_string()).unwrap();
    };
    suite(Bench {
        next_life: &next_life,
        change: &change,
    })
    .await;
}

#[tokio::test]
async fn networks_are_sealed_proved_seen_and_removed() {
    let (host, dir) = (Space::new(), tempfile::tempdir().unwrap());
    let next_life = || -> Box<dyn Network> { Box::new(driver(dir.path(), &host)) };
    let change = || drop(host.ok("nft flush ruleset"));
    suite(Bench {
        next_life: &next_life,
        change: &change,
    })
    .await;
    assert!(!host.ok("ip link").contains("djb"));
    assert!(!host.ok("nft list ruleset").contains("elements"));
}

#[tokio::test]
async fn a_proof_stands_until_the_next_reload() {
    let (host, dir) = (Space::new(), tempfile::tempdir().unwrap());
    let (one, two) = (Uid::from("p-1"), Uid::from("p-2"));
    let network = driver(dir.path(), &host);
    let (first, second) = (drawn(&one, 2, &[]), drawn(&two, 1, &[("192.0.2.0/24", 443)]));
    assert!(network.prove(&one, &first).await.is_err(), "nothing is sealed");
    network.seal(&one, &first).await.unwrap();
    let alone = proved(network.prove(&one, &first).await);
    assert!(alone.refused >= 3 * 13 && alone.passed == 3 * 4, "{alone:?}");
    assert_eq!(network.observe(&one).await, as_kept(&first, true));
    network.seal(&one, &first).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&first, true), "nothing was reloaded");
    network.seal(&two, &second).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&first, false));
    // Two projects on one host: frames to the other one are sent as well.
    let beside = proved(network.prove(&one, &first).await);
    assert!(beside.refused > alone.refused && beside.passed == 3 * 5, "{beside:?}");
    proved(network.prove(&two, &second).await);
    // A machine has the tap: the probe port speaks for it, and the tap stays.
    let _guest = guest(&host, &first, &first.ports[0]);
    let with_machine = proved(network.prove(&one, &first).await);
    assert_eq!(with_machine.passed, 2 * 5);
    let links = host.ok("ip link");
    assert!(links.contains(first.ports[0].tap.as_str()));
    assert!(!["djp", "djs", "djo"].iter().any(|probe| links.contains(probe)), "{links}");
    assert!(!host.ok("ip neigh show nud permanent").contains("dev djb"));
}

#[tokio::test]
async fn with_one_rule_taken_out_its_frame_arrives_and_is_named() {
    let (host, dir) = (Space::new(), tempfile::tempdir().unwrap());
    let (one, two) = (Uid::from("p-1"), Uid::from("p-2"));
    let network = driver(dir.path(), &host);
    let egress = [("192.0.2.0/24", 443)];
    let (first, second) = (drawn(&one, 1, &egress), drawn(&two, 1, &egress));
    network.seal(&one, &first).await.unwrap();
    network.seal(&two, &second).await.unwrap();
    proved(network.send_frames(&one, &first).await);
    let port = ["ethertype", "mac", "arp-mac", "arp-address", "address"].map(|rule| ("bridge", "port", rule));
    for (family, chain, rule) in port.into_iter().chain([("inet", "input", "host")]) {
        host.take_out(family, chain, rule);
        assert!(network.prove(&one, &first).await.is_err(), "the listing already shows it");
        let said = in_full(&network.send_frames(&one, &first).await.unwrap_err());
        assert!(said.ends_with(&format!(": {rule}")), "{rule}: {said}");
        network.seal(&one, &first).await.unwrap();
        proved(network.prove(&one, &first).await);
    }
    host.ok("nft 'chain inet dejima forward { policy accept; }'");
    let said = in_full(&network.send_frames(&one, &first).await.unwrap_err());
    assert!(said.ends_with(": forward"), "{said}");
    network.seal(&one, &first).await.unwrap();
    // A switch, not a rule: on the bridge, and on taps that come later.
    for link in [first.bridge.as_str(), "default"] {
        host.ok(&format!("echo 0 > /proc/sys/net/ipv4/conf/{link}/arp_ignore"));
        let said = in_full(&network.send_frames(&one, &first).await.unwrap_err());
        assert!(said.ends_with(": arp_ignore"), "{link}: {said}");
        network.seal(&one, &first).await.unwrap();
        proved(network.prove(&one, &first).await);
    }
    // Two bridges that somebody joined: what comes in by a foreign port goes to no port of ours.
    let (here, there) = (&first.bridge, &second.bridge);
    host.ok(&format!(
        "ip link add cable0 type veth peer name cable1 && ip link set cable0 master {here} up && ip link set cable1 master {there} up"
    ));
    proved(network.send_frames(&one, &first).await);
    host.take_out("bridge", "forward", "foreign");
    let said = in_full(&network.send_frames(&one, &first).await.unwrap_err());
    assert!(said.ends_with(": own bridge"), "{said}");
}

#[tokio::test]
async fn machines_reach_each_other_and_neither_the_host_nor_another_project() {
    let (host, dir) = (Space::new(), tempfile::tempdir().unwrap());
    let (one, two) = (Uid::from("p-1"), Uid::from("p-2"));
    let network = driver(dir.path(), &host);
    let egress = [("192.0.2.0/24", 443)];
    let (first, second) = (drawn(&one, 2, &egress), drawn(&two, 1, &egress));
    network.seal(&one, &first).await.unwrap();
    network.seal(&two, &second).await.unwrap();
    let here = guest(&host, &first, &first.ports[0]);
    let beside = guest(&host, &first, &first.ports[1]);
    let elsewhere = guest(&host, &second, &second.ports[0]);
    let listen = || TcpListener::bind("0.0.0.0:8080").unwrap();
    let _listeners = (beside.within(listen), elsewhere.within(listen), host.within(listen));
    let at = |address: &dyn std::fmt::Display| format!("{address}:8080");
    let (other, gateway) = (at(&second.ports[0].address), at(&first.gateway));
    assert!(here.connect(&at(&first.ports[1].address)).is_ok());
    assert!(here.connect(&gateway).is_err());
    let abroad = at(&second.gateway);
    assert!(here.connect(&abroad).is_err());
    assert!(here.connect(&other).is_err());
    // The controls: the same flows, with the rule that refuses them taken out.
    host.take_out("inet", "input", "host");
    assert!(here.connect(&gateway).is_ok() && here.connect(&abroad).is_ok());
    host.ok("nft 'chain inet dejima forward { policy accept; }'");
    assert!(here.connect(&other).is_ok());
}

#[tokio::test]
async fn a_listed_address_answers_and_a_closed_entry_cuts_its_flow() {
    let (host, outside, dir, project) = (Space::new(), Space::new(), tempfile::tempdir().unwrap(), Uid::from("p-1"));
    let network = driver(dir.path(), &host);
    host.ok(&format!(
        "ip link add up0 type veth peer name eth0 netns {} && ip addr add 203.0.113.1/24 dev up0 && ip link set up0 up",
        outside.path().display()
    ));
    outside.ok("ip addr add 203.0.113.2/24 dev eth0 && ip addr add 203.0.113.3/24 dev eth0 && ip link set eth0 up");
    let open = drawn(&project, 1, &[("203.0.113.2/32", 8080), ("203.0.113.2/32", 8082)]);
    network.seal(&project, &open).await.unwrap();
    let machine = guest(&host, &open, &open.ports[0]);
    let listener = outside.within(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let _unlisted = outside.within(|| TcpListener::bind("0.0.0.0:8081").unwrap());
    let mut flow = machine.connect("203.0.113.2:8080").unwrap();
    let (mut answers, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "203.0.113.1", "masqueraded");
    assert!(machine.connect("203.0.113.3:8080").is_err(), "another address");
    assert!(machine.connect("203.0.113.2:8081").is_err(), "another port");
    let controls = ["203.0.113.3:8080", "203.0.113.2:8081"];
    assert!(
        controls.iter().all(|to| host.connect(to).is_ok()),
        "the control: both answer the host"
    );
    let mut word = [0; 4];
    let wait = Some(Duration::from_millis(1500));
    flow.set_read_timeout(wait).unwrap();
    answers.set_read_timeout(wait).unwrap();
    flow.write_all(b"ping").unwrap();
    answers.read_exact(&mut word).unwrap();
    answers.write_all(b"pong").unwrap();
    flow.read_exact(&mut word).unwrap();
    let closed = drawn(&project, 1, &[("203.0.113.2/32", 8082)]);
    let source = format!("conntrack -L -s {} 2>/dev/null | grep -c dport=8080 || true", open.ports[0].address);
    assert_ne!(host.ok(&source).trim(), "0", "the control: the flow is tracked");
    network.seal(&project, &closed).await.unwrap();
    assert_eq!(host.ok(&source).trim(), "0");
    flow.write_all(b"ping").unwrap();
    assert!(answers.read_exact(&mut word).is_err(), "nothing goes out");
    answers.write_all(b"pong").unwrap();
    assert!(flow.read_exact(&mut word).is_err(), "nothing comes back");
    assert!(machine.connect("203.0.113.2:8080").is_err());
    network.seal(&project, &open).await.unwrap();
    assert!(machine.connect("203.0.113.2:8080").is_ok(), "open again");
}

#[tokio::test]
async fn what_was_changed_is_noticed_and_sealed_again() {
    let (host, dir, project) = (Space::new(), tempfile::tempdir().unwrap(), Uid::from("p-1"));
    let network = driver(dir.path(), &host);
    let wanted = drawn(&project, 1, &[("192.0.2.0/24", 443)]);
    network.seal(&project, &wanted).await.unwrap();
    let (bridge, port) = (&wanted.bridge, &wanted.ports[0]);
    let changes = [
        format!("nft delete element bridge dejima stations '{{ {} . {} }}'", port.tap, port.mac),
        format!("nft add element bridge dejima addresses '{{ {} . 10.9.9.9 }}'", port.tap),
        format!(
            "nft add element inet dejima egress '{{ {bridge} . {} . 198.51.100.7 . 22 }}'",
            port.address
        ),
        "nft insert rule inet dejima forward accept".to_owned(),
        "nft flush ruleset".to_owned(),
        format!("ip link set {bridge} type bridge mcast_snooping 1"),
        format!("ip addr add 10.9.9.9/24 dev {bridge}"),
        format!("ip link set {bridge} down"),
        format!("ip link add foreign0 type veth peer name foreign1 && ip link set foreign0 master {bridge}"),
        format!("ip link del {bridge}"),
        "echo 0 > /proc/sys/net/ipv4/ip_forward".to_owned(),
    ];
    for change in changes {
        proved(network.prove(&project, &wanted).await);
        host.ok(&change);
        let Seen::Present(seen) = network.observe(&project).await else {
            panic!("{change}")
        };
        assert!(seen.rules != segment_digest(&wanted) && seen.proved.is_none(), "{change}: {seen:?}");
        network.seal(&project, &wanted).await.unwrap();
        assert_eq!(network.observe(&project).await, as_kept(&wanted, false), "{change}");
    }
    drop(host);
    assert_eq!(network.observe(&project).await, Seen::Unknown, "nobody answers");
}

#[tokio::test]
async fn what_is_ours_is_listed_and_a_bridge_of_nobodys_goes_while_nothing_is_plugged_in() {
    let (host, dir, project) = (Space::new(), tempfile::tempdir().unwrap(), Uid::from("p-1"));
    let network = driver(dir.path(), &host);
    assert_eq!(network.list_owned().await, Owned::default());
    network.seal(&project, &drawn(&project, 1, &[])).await.unwrap();
    let own = Thing::Network(project.clone());
    assert_eq!(network.list_owned().await, Owned::found([own.clone()]));
    // What was kept is lost: nobody knows whose the bridge is. What is not ours is not listed.
    host.ok("ip link add name djb0 type veth peer name far0 && ip link add name br0 type bridge");
    std::fs::remove_file(dir.path().join("network.json")).unwrap();
    let network = driver(dir.path(), &host);
    let bridge = |plugged| Thing::Bridge {
        name: drawn(&project, 1, &[]).bridge,
        plugged,
    };
    assert_eq!(network.list_owned().await, Owned::found([bridge(false)]));
    host.ok(&format!(
        "ip link add name djt0 type veth peer name far1 && ip link set dev djt0 master {}",
        drawn(&project, 1, &[]).bridge
    ));
    assert_eq!(network.list_owned().await, Owned::found([bridge(true)]));
    assert!(network.sweep(&bridge(true)).await.is_err());
    network.sweep(&bridge(false)).await.unwrap();
    assert_eq!(
        network.list_owned().await,
        Owned::found([bridge(true)]),
        "something was plugged in meanwhile"
    );
    host.ok("ip link del dev djt0");
    network.sweep(&bridge(false)).await.unwrap();
    network.sweep(&bridge(false)).await.unwrap();
    assert_eq!(network.list_owned().await, Owned::default());
    assert!(host.ok("ip link").contains("br0"), "the control: what is not ours stays");
    // A network that is kept goes with its rules.
    network.seal(&project, &drawn(&project, 1, &[])).await.unwrap();
    network.sweep(&own).await.unwrap();
    assert_eq!(network.list_owned().await, Owned::default());
    assert!(!host.ok("nft list ruleset").contains("elements"));
}
