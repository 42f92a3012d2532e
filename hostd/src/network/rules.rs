//! From closed segments to the two tables of nftables, in the JSON that nft both takes and gives: what is in force is
//! compared with what was asked for, not with what once was there.
//!
//! Each rule stops one thing and its comment says which. Pure: nothing is run here.

use serde_json::{Value, json};

use super::closed::{Closed, Plug};

/// The name of both tables.
pub const TABLE: &str = "dejima";

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

fn compare(op: &str, left: &Value, right: &Value) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right } })
}

fn concat(parts: &[Value]) -> Value {
    json!({ "concat": parts })
}

fn ours(key: &str) -> Value {
    compare("==", &meta(key), &json!("dj*"))
}

fn drop() -> Value {
    json!({ "drop": null })
}

/// One table: its sets, its chains, its rules.
struct Table {
    family: &'static str,
    things: Vec<Value>,
}

impl Table {
    fn new(family: &'static str) -> Self {
        let things = vec![json!({ "table": { "family": family, "name": TABLE } })];
        Self { family, things }
    }

    fn set(&mut self, name: &str, of: &[&str], interval: bool, mut elements: Vec<Value>) {
        elements.sort_by_cached_key(Value::to_string);
        let mut set = json!({ "family": self.family, "table": TABLE, "name": name, "type": of });
        if let Some(set) = set.as_object_mut() {
            if interval {
                set.insert("flags".to_owned(), json!(["interval"]));
            }
            if !elements.is_empty() {
                set.insert("elem".to_owned(), json!(elements));
            }
        }
        self.things.push(json!({ "set": set }));
    }

    fn chain(&mut self, name: &str) {
        self.things
            .push(json!({ "chain": { "family": self.family, "table": TABLE, "name": name } }));
    }

    fn hook(&mut self, kind: &str, hook: &str, prio: i32, policy: &str) {
        self.things.push(json!({ "chain": {
            "family": self.family, "table": TABLE, "name": hook, "type": kind, "hook": hook, "prio": prio, "policy": policy,
        } }));
    }

    fn rule(&mut self, chain: &str, comment: &str, expr: &[Value]) {
        self.things.push(json!({ "rule": {
            "family": self.family, "table": TABLE, "chain": chain, "comment": comment, "expr": expr,
        } }));
    }
}

fn station(plug: &Plug) -> Value {
    concat(&[json!(plug.tap.as_str()), json!(plug.mac.to_string())])
}

fn address(plug: &Plug) -> Value {
    concat(&[json!(plug.tap.as_str()), json!(plug.address.to_string())])
}

/// Who may speak at which port.
fn ports(segments: &[&Closed]) -> Vec<Value> {
    let mut table = Table::new("bridge");
    let all = || segments.iter().flat_map(|segment| segment.plugs());
    table.set("stations", &["ifname", "ether_addr"], false, all().map(station).collect());
    table.set("addresses", &["ifname", "ipv4_addr"], false, all().map(address).collect());
    table.chain("port");
    table.hook("filter", "prerouting", -300, "accept");
    table.hook("filter", "forward", -200, "accept");
    let known = json!({ "set": ["ip", "arp"] });
    table.rule("port", "ethertype", &[compare("!=", &field("ether", "type"), &known), drop()]);
    for (comment, part, set) in [
        ("mac", field("ether", "saddr"), "@stations"),
        ("arp-mac", field("arp", "saddr ether"), "@stations"),
        ("arp-address", field("arp", "saddr ip"), "@addresses"),
        ("address", field("ip", "saddr"), "@addresses"),
    ] {
        let key = concat(&[meta("iifname"), part]);
        table.rule("port", comment, &[compare("!=", &key, &json!(set)), drop()]);
    }
    table.rule("prerouting", "ports", &[ours("iifname"), json!({ "jump": { "target": "port" } })]);
    let foreign = compare("!=", &meta("iifname"), &json!("dj*"));
    table.rule("forward", "foreign", &[foreign, ours("oifname"), drop()]);
    table.things
}

/// What may leave, and that the host itself does not answer.
fn host(segments: &[&Closed]) -> Vec<Value> {
    let mut table = Table::new("inet");
    let mut ways = Vec::new();
    for segment in segments {
        for way in &segment.ways {
            let to = match way.to.len {
                32 => json!(way.to.base.to_string()),
                len => json!({ "prefix": { "addr": way.to.base.to_string(), "len": len } }),
            };
            ways.extend(segment.ports.iter().map(|plug| {
                let from = json!(plug.address.to_string());
                concat(&[json!(segment.bridge.as_str()), from, to.clone(), json!(way.port)])
            }));
        }
    }
    table.set("egress", &["ifname", "ipv4_addr", "ipv4_addr", "inet_service"], true, ways);
    table.hook("filter", "input", -10, "accept");
    table.hook("filter", "forward", -10, "drop");
    table.hook("nat", "postrouting", 100, "accept");
    // Taps as well as bridges: a frame to 01:80:c2:00:00:0X passes no bridge chain and comes in as if from no bridge.
    table.rule("input", "host", &[ours("iifname"), drop()]);
    // Each packet asks the set again, in both directions: a flow ends with its entry.
    let there = [meta("iifname"), field("ip", "saddr"), field("ip", "daddr"), field("tcp", "dport")];
    let back = [meta("oifname"), field("ip", "daddr"), field("ip", "saddr"), field("tcp", "sport")];
    let accept = json!({ "accept": null });
    let open = |key: &[Value]| compare("==", &concat(key), &json!("@egress"));
    table.rule("forward", "egress", &[open(&there), accept.clone()]);
    let established = compare("in", &json!({ "ct": { "key": "state" } }), &json!("established"));
    table.rule("forward", "answers", &[established, open(&back), accept]);
    let from = compare("==", &meta("iifname"), &json!("djb*"));
    let outside = compare("!=", &meta("oifname"), &json!("dj*"));
    table.rule("postrouting", "masquerade", &[from, outside, json!({ "masquerade": null })]);
    table.things
}

/// All that both tables hold, in a fixed order.
pub fn demanded(segments: &[&Closed]) -> Vec<Value> {
    let mut all = [ports(segments), host(segments)].concat();
    all.sort_by_cached_key(order);
    all
}

/// Rules keep their order among themselves, everything else has none.
fn order(thing: &Value) -> String {
    if thing.get("rule").is_some() {
        let of = |key: &str| thing.pointer(&format!("/rule/{key}")).map(Value::to_string).unwrap_or_default();
        format!("rule {} {}", of("family"), of("chain"))
    } else {
        thing.to_string()
    }
}

/// One transaction: whatever the tables held is replaced.
pub fn reload(segments: &[&Closed]) -> Value {
    let mut commands = Vec::new();
    for table in [ports(segments), host(segments)] {
        let first = table.first().cloned().unwrap_or_default();
        commands.extend([json!({ "add": first }), json!({ "delete": first })]);
        commands.extend(table.into_iter().map(|thing| json!({ "add": thing })));
    }
    json!({ "nftables": commands })
}

/// What both tables hold, from nft's listing, in the same form as [`demanded`].
pub fn found(listing: &Value) -> Vec<Value> {
    let things = listing.get("nftables").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for mut thing in things {
        let Some(inner) = thing.as_object_mut().and_then(|outer| outer.values_mut().next()) else {
            continue;
        };
        let of = |key: &str| inner.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let table = if inner.get("table").is_some() { of("table") } else { of("name") };
        if table != TABLE || !["bridge", "inet"].contains(&of("family").as_str()) {
            continue;
        }
        if let Some(inner) = inner.as_object_mut() {
            inner.remove("handle");
            if let Some(elements) = inner.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_cached_key(Value::to_string);
            }
        }
        all.push(thing);
    }
    all.sort_by_cached_key(order);
    all
}

#[cfg(test)]
mod tests {
    use dejima_crds::bounded::{Label, Uid};
    use dejima_crds::host_plan::{EgressRule, Segment};
    use dejima_plan::segment::{machine_names, segment};
    use proptest::prelude::*;

    use super::*;

    fn drawn(project: &str, machines: u32) -> Segment {
        segment(&Uid::from(project), &machine_names(&"m".into(), machines), vec![])
    }

    fn elements(segments: &[&Closed], set: &str) -> Vec<Value> {
        let all = demanded(segments);
        let set = all.iter().find(|thing| thing.pointer("/set/name") == Some(&json!(set))).unwrap();
        set.pointer("/set/elem").and_then(Value::as_array).cloned().unwrap_or_default()
    }

    #[test]
    fn what_is_no_name_and_no_address_never_gets_into_a_rule() {
        for bad in [
            "djt a",
            "djt*",
            "djt\"; flush ruleset",
            "djt@x",
            "eth0",
            "djt",
            "djtaaaaaaaaaaaaaaaa",
            "djt-",
            "DJTA",
        ] {
            let mut segment = drawn("p", 2);
            segment.ports[0].tap = Label::from(bad);
            assert!(Closed::read(&segment).is_err(), "{bad}");
        }
        for bad in ["52:54:00:00:00", "53:54:00:00:00:01", "52:54:00:00:00:0*", "+1:54:00:00:00:0", ""] {
            let mut segment = drawn("p", 2);
            segment.ports[0].mac = bad.into();
            assert!(Closed::read(&segment).is_err(), "{bad}");
        }
        for bad in ["10.0.0.1", "0.0.0.0/0", "10.1.2.3; drop", ""] {
            let mut segment = drawn("p", 2);
            segment.ports[0].address = bad.into();
            assert!(Closed::read(&segment).is_err(), "{bad}");
        }
        let mut twice = drawn("p", 2);
        twice.ports[1].address = twice.ports[0].address.clone();
        assert!(Closed::read(&twice).is_err());
        assert!(Closed::read(&drawn("p", 2)).is_ok(), "the control");
    }

    #[test]
    fn a_way_inside_a_wider_one_is_not_said_twice() {
        let mut segment = drawn("p", 1);
        let rule = |cidr: &str, ports: &[u16]| EgressRule {
            cidr: cidr.into(),
            ports: ports.to_vec(),
        };
        segment.egress = vec![
            rule("10.0.0.0/8", &[443]),
            rule("10.1.2.3/16", &[443, 80]),
            rule("10.0.0.0/8", &[443]),
        ];
        let closed = Closed::read(&segment).unwrap();
        let ways: Vec<String> = closed.ways.iter().map(|way| format!("{} {}", way.to, way.port)).collect();
        assert_eq!(ways, ["10.1.0.0/16 80", "10.0.0.0/8 443"]);
    }

    /// All texts of a ruleset.
    fn texts(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(all) => all.iter().for_each(|value| texts(value, found)),
            Value::Object(all) => all.values().for_each(|value| texts(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// What commands do to what, without elements of sets.
    fn shape(ruleset: &Value) -> Value {
        let mut shape = ruleset.clone();
        for command in shape["nftables"].as_array_mut().unwrap() {
            if let Some(set) = command.pointer_mut("/add/set").and_then(Value::as_object_mut) {
                set.remove("elem");
            }
        }
        shape
    }

    /// What somebody could write where a name, an address or a range belongs.
    fn anything() -> impl Strategy<Value = String> {
        prop_oneof![
            "(\\PC|[ \n\t\0\"'{};#@*/:.-]|djt|djb|10\\.64\\.|flush ruleset){0,24}",
            "dj[bt][a-z0-9]{1,13}",
            "10\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(/[0-9]{1,2})?",
            "([0-9a-f]{2}:){5}[0-9a-f]{2}",
        ]
    }

    proptest! {
        #[test]
        fn a_segment_of_whatever_texts_gives_no_other_statements(
            bridge in anything(), cidr in anything(), gateway in anything(), tap in anything(), mac in anything(), address in anything(), to in anything(), fields in 0_u8..128
        ) {
            let plain = drawn("p", 2);
            let mut segment = plain.clone();
            let rule = EgressRule { cidr: "203.0.113.0/24".into(), ports: vec![443] };
            segment.egress = vec![rule];
            let with = |bit: u8| fields >> bit & 1 == 1;
            if with(0) { segment.bridge = bridge.into(); }
            if with(1) { segment.cidr = cidr.into(); }
            if with(2) { segment.gateway = gateway.into(); }
            if with(3) { segment.ports[0].tap = tap.into(); }
            if with(4) { segment.ports[0].mac = mac.into(); }
            if with(5) { segment.ports[0].address = address.into(); }
            if with(6) { segment.egress[0].cidr = to.into(); }
            if let Ok(closed) = Closed::read(&segment) {
                let (ruleset, control) = (reload(&[&closed]), reload(&[&Closed::read(&plain).unwrap()]));
                prop_assert_eq!(shape(&ruleset), shape(&control));
                let (mut said, mut fixed) = (Vec::new(), Vec::new());
                texts(&ruleset, &mut said);
                texts(&shape(&control), &mut fixed);
                let address = |text: &str| text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<super::super::closed::Mac>().is_ok();
                let name = |text: &str| text.len() <= 15 && text.starts_with("dj") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                let foreign: Vec<&String> = said.iter().filter(|text| !fixed.contains(text) && !address(text) && !name(text)).collect();
                prop_assert!(foreign.is_empty(), "{foreign:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn each_port_has_exactly_one_station_and_one_address(counts in proptest::collection::vec(0_u32..20, 0..12)) {
            let segments: Vec<Closed> = counts
                .iter()
                .enumerate()
                .map(|(at, count)| Closed::read(&drawn(&format!("p-{at}"), *count)).unwrap())
                .collect();
            let all: Vec<&Closed> = segments.iter().collect();
            let (stations, addresses) = (elements(&all, "stations"), elements(&all, "addresses"));
            for plug in segments.iter().flat_map(Closed::plugs) {
                let of = |elements: &[Value]| elements.iter().filter(|element| element["concat"][0] == plug.tap.as_str()).count();
                prop_assert_eq!((of(&stations), of(&addresses)), (1, 1));
            }
            // One more a segment than it has machines: the probe.
            let machines: usize = segments.iter().map(|segment| segment.ports.len() + 1).sum();
            prop_assert_eq!((stations.len(), addresses.len()), (machines, machines));
        }
    }
}
