//! Everything that a platform holds, without what differs from run to run: UIDs, times, ciphertexts, digests of those, and numbers
//! that count writes.

use std::collections::BTreeSet;

use dejima_tests::ADMIN;
use dejima_tests::parts::Platform;
use serde_json::{Map, Value, json};

const KINDS: &str = "isolatedprojects,datasets,usagepolicies,accessgrants,attestations,hosts,hostplans,configmaps";
/// Fields that count writes; and when the bytes were gone of what a receipt is final for: it says so where that was known already.
const COUNTERS: [&str; 4] = ["observedGeneration", "planGeneration", "resourceVersion", "sweptAt"];
/// Forms of what differs: `h` is a hexadecimal digit, `d` a digit.
const FORMS: [(&str, &str); 3] = [
    ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "UID"),
    ("dddd-dd-ddTdd:dd:dd", "TIME"),
    ("hh:hh:hh:hh:hh:hh", "MAC"),
];
/// Where addresses of networks begin that are made from a project's UID.
const NETWORKS: &str = "10.";
/// The length of a signature (Ed25519, 64 bytes) in base64.
const SIGNATURE: usize = 88;
const CIPHERTEXT: &str = "vault:v1:";

/// What there was when a life began: receipts and requests of earlier lives stay, and are not this one's.
#[derive(Default)]
pub(super) struct Begun {
    objects: BTreeSet<String>,
    records: u64,
}

pub(super) fn begin(platform: &Platform) -> Begun {
    let (_, answer) = platform.ask(dejima_tests::OFFICE, "GET", "/api/v1/records?count=1", None);
    Begun {
        objects: objects(platform).iter().filter(|object| stays(object)).map(uid).collect(),
        records: answer["size"].as_u64().unwrap_or(0),
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn stays(object: &Value) -> bool {
    object["kind"] == "ConfigMap" || (object["kind"] == "AccessGrant" && !object["spec"]["revoked"].is_null())
}

/// Every object of ours, receipts among them.
fn objects(platform: &Platform) -> Vec<Value> {
    let answer = platform.world.run(ADMIN, &["get", KINDS, "-A", "-o", "json"]);
    let mut list: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let all = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let ours = |object: &Value| object["kind"] != "ConfigMap" || !object["metadata"]["labels"]["dejima.dev/receipt"].is_null();
    all.into_iter().filter(ours).collect()
}

/// Everything that bears on what a project or dataset is.
pub(super) fn of(platform: &Platform, hosts: &[&str], begun: &Begun) -> Value {
    let of_stage = |object: &Value| object["kind"] != "Host" || hosts.iter().any(|host| object["metadata"]["name"] == *host);
    let own = objects(platform)
        .into_iter()
        .filter(|object| of_stage(object) && !begun.objects.contains(&uid(object)));
    let own: Vec<Value> = own.map(bare).collect();
    let records = format!("/api/v1/records?count=1000&from={}", begun.records);
    let (_, answer) = platform.ask(dejima_tests::OFFICE, "GET", &records, None);
    let acts = answer["records"].as_array().cloned().unwrap_or_default();
    // The same may be begun twice, and ended twice: as a set.
    let said: BTreeSet<String> = acts.iter().map(|record| masked(&said(&record["act"])).to_string()).collect();
    let of = |phase: &str| -> BTreeSet<&str> {
        let acts = acts.iter().map(|record| &record["act"]).filter(|act| act["phase"] == phase);
        acts.filter_map(|act| act["activity"].as_str()).collect()
    };
    // What has begun as often as it may have: each of it has ended, or goes on.
    let open: Vec<&str> = of("begun").difference(&of("ended")).copied().collect();
    let keys = ask_keys(platform, "transit/keys?list=true");
    let hosts: Vec<Value> = hosts
        .iter()
        .map(|host| {
            let kept = std::fs::read_to_string(platform.host_dir(host).join("host.json")).unwrap_or_default();
            let kept: Value = serde_json::from_str(&kept).unwrap_or_default();
            let policy = ask_keys(platform, &format!("sys/policies/acl/dejima-host-{host}"));
            let may: Vec<&str> = policy["data"]["policy"]
                .as_str()
                .unwrap_or_default()
                .lines()
                .filter(|line| line.contains("path"))
                .collect();
            json!({"host": host, "world": world(platform, host), "mounts": kept["mounts"], "may use": may})
        })
        .collect();
    let stored = std::fs::read_dir(platform.image_store().join("shards")).map_or(0, Iterator::count);
    masked(&json!({"objects": own, "records": said, "open": open, "keys": keys["data"]["keys"], "hosts": hosts, "stored": stored}))
}

/// What a host has of its projects, as it remembers it or as the kernel and libvirt say.
fn world(platform: &Platform, host: &str) -> Value {
    let lab: &dejima_lab::Platform = platform;
    let Ok(real) = lab.host(host) else {
        return platform.remembered(host);
    };
    let lines = |words: &[&str]| -> Vec<String> {
        let said = real.ask(&[&["--quiet"], words].concat(), None).unwrap_or_default();
        said.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let domains: Vec<Value> = lines(&["list", "--all", "--name"])
        .iter()
        .map(|domain| json!({"name": domain, "state": lines(&["domstate", domain]), "disks": lines(&["domblklist", domain]).iter().map(|line| sources(line)).collect::<Vec<_>>()}))
        .collect();
    let run = |words: &[&str]| {
        real.run(words, None)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let links: Vec<String> = run(&["ls", "/sys/class/net"]);
    let volumes = platform.volumes(host);
    let files = run(&["find", &volumes.display().to_string(), "-type", "f", "-printf", "%P\n"]);
    let fetched = run(&[
        "find",
        &real.images().join("fetched/shards").display().to_string(),
        "-type",
        "f",
        "-printf",
        "%f\n",
    ]);
    json!({"domains": domains, "secrets": lines(&["secret-list"]).len(), "links": links, "files": files, "fetched": fetched})
}

/// A disk of a domain without the letter that the guest happens to give it.
fn sources(line: &str) -> String {
    line.split_whitespace().skip(1).collect()
}

/// An act; of the beginning of a receipt without what it says: whether a host had confirmed by then is a matter of milliseconds.
fn said(act: &Value) -> Value {
    let mut act = act.clone();
    if act["kind"] == "receipt" && act["phase"] == "begun" {
        (act["facts"], act["generated"]) = (Value::Null, Value::Null);
    }
    act
}

/// An object without what the API server writes, and without what was the matter once and is no more: it is said that it was, and
/// for a minute what was repaired. What is not repaired stands in the plan.
fn bare(mut object: Value) -> Value {
    if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["reason"] != "Resolved" && condition["type"] != "Drifted");
    }
    if let Some(drift) = object["status"]["drift"].as_array_mut() {
        drift.retain(|drift| drift["repaired"] != true);
    }
    let meta = object["metadata"].take();
    let kept = ["name", "namespace", "labels", "finalizers", "deletionTimestamp"];
    let kept: Map<String, Value> = kept.iter().map(|field| ((*field).to_owned(), meta[*field].clone())).collect();
    object["metadata"] = kept.into();
    object
}

fn ask_keys(platform: &Platform, path: &str) -> Value {
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "-H", &format!("X-Vault-Token: {}", platform.keys.root_token())]);
    let output = command.arg(format!("{}/v1/{path}", platform.keys.address())).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// A value in which what differs is replaced, and nothing depends on order.
fn masked(value: &Value) -> Value {
    let is_nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(fields) => {
            let mut all: Map<String, Value> = Map::new();
            for (name, value) in fields
                .iter()
                .filter(|(name, value)| !COUNTERS.contains(&name.as_str()) && !is_nothing(value))
            {
                let (mut name, value) = (mask(name), masked(value));
                while all.contains_key(&name) {
                    name.push('+');
                }
                all.insert(name, value);
            }
            all.into()
        }
        Value::Array(items) => {
            let mut all: Vec<Value> = items.iter().map(masked).collect();
            all.sort_by_cached_key(ToString::to_string);
            all.into()
        }
        // A document within a document: a receipt.
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(document) if document.is_object() => masked(&document),
            _ => mask(text).into(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn fits(text: &[u8], form: &str) -> bool {
    let fits = |(byte, sign): (&u8, u8)| match sign {
        b'h' => byte.is_ascii_hexdigit(),
        b'd' => byte.is_ascii_digit(),
        other => *byte == other,
    };
    text.len() >= form.len() && text.iter().zip(form.bytes()).all(fits)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)
}

/// A text in which what differs is replaced: UIDs, times, ciphertexts, runs of eight or more hexadecimal digits, and how often a project was edited.
fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let run = |at: usize, of: fn(u8) -> bool| bytes.iter().skip(at).take_while(|byte| of(**byte)).count();
    let (mut at, mut out) = (0, Vec::new());
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        if let Some((form, word)) = FORMS.iter().find(|(form, _)| fits(rest, form)) {
            out.extend(word.bytes());
            at += form.len();
            if *word == "TIME" && bytes.get(at) == Some(&b'.') {
                at += 1 + run(at + 1, |byte| byte.is_ascii_digit());
            }
        } else if rest.starts_with(CIPHERTEXT.as_bytes()) {
            out.extend(b"CIPHERTEXT");
            at += CIPHERTEXT.len() + run(at + CIPHERTEXT.len(), is_base64);
        } else if rest.starts_with(NETWORKS.as_bytes()) {
            out.extend(b"ADDRESS");
            at += run(at, |byte| byte.is_ascii_digit() || byte == b'.');
        } else if run(at, is_base64) == SIGNATURE && rest[..SIGNATURE].ends_with(b"==") {
            out.extend(b"SIGNATURE");
            at += SIGNATURE;
        } else if byte.is_ascii_alphanumeric() {
            let word = run(at, |byte| byte.is_ascii_alphanumeric());
            let found = &rest[..word];
            // `djb` and `djt`: bridges and taps.
            let digits = found.strip_prefix(b"djb").or(found.strip_prefix(b"djt")).unwrap_or(found);
            let digest = digits.len() >= 8 && digits.iter().all(u8::is_ascii_hexdigit);
            out.extend(if digest { b"HEX" } else { found });
            at += word;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    let text = String::from_utf8(out).unwrap();
    // `project/osaka/liver-ct@7`: the version of a dataset says something, the seventh edit of a project does not.
    match text.split_once('@') {
        Some((before, edits)) if text.starts_with("project/") && edits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{before}@EDIT")
        }
        _ => text,
    }
}

/// The lines in which two states differ.
pub(super) fn difference(clean: &Value, found: &Value) -> String {
    let lines = |value: &Value| -> Vec<String> {
        let mut all = Vec::new();
        flatten(value, "", &mut all);
        all
    };
    let (clean, found) = (lines(clean), lines(found));
    let less = clean.iter().filter(|line| !found.contains(line)).map(|line| format!("\n- {line}"));
    let more = found.iter().filter(|line| !clean.contains(line)).map(|line| format!("\n+ {line}"));
    less.chain(more).collect()
}

/// One line for each value, with where it stands; items of a list by what they are and not by where.
fn flatten(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(value, &format!("{at}/{name}"), all)),
        Value::Array(items) => {
            for item in items {
                let name = ["kind", "type", "item", "name", "host"]
                    .iter()
                    .find_map(|field| item[*field].as_str());
                let name = item["metadata"]["name"].as_str().or(name).unwrap_or("*");
                flatten(item, &format!("{at}[{name}]"), all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => all.push(format!("{at} = {value}")),
    }
}

#[test]
fn what_differs_from_run_to_run_is_replaced_and_nothing_else() {
    assert_eq!(mask("project-0f8fad5b-d9cb-469f-a165-70867728950e"), "project-UID");
    assert_eq!(mask("at 2026-11-24T00:00:03Z, 2026-11-24"), "at TIMEZ, 2026-11-24");
    assert_eq!(
        mask("52:fd:96:bf:61:c1 10.96.36.10/24 djb8c3f363e35 0.1 s"),
        "MAC ADDRESS/24 HEX 0.1 s"
    );
    assert_eq!(mask("2026-11-24T00:00:03.719Z"), "TIMEZ");
    assert_eq!(mask(&format!("\"{}\"", "+/aA".repeat(21) + "aA==")), "\"SIGNATURE\"");
    assert_eq!(mask("vault:v1:abc+/= is"), "CIPHERTEXT is");
    assert_eq!(
        mask("sha256:9f2c0f8a7f4d, decade, dejima-dcfeacbc-train"),
        "sha256:HEX, decade, dejima-HEX-train"
    );
    assert_eq!(mask("project/osaka-0/liver-ct@12"), "project/osaka-0/liver-ct@EDIT");
    assert_eq!(mask("dataset/jichi-1/ct-mr@1"), "dataset/jichi-1/ct-mr@1");
    assert_eq!(mask("肝腫瘍"), "肝腫瘍");
    let value = json!({"b": [2, 1], "resourceVersion": "7", "none": null, "text": "{\"sweptAt\": 1, \"at\": \"2026-11-24T00:00:03Z\"}"});
    assert_eq!(masked(&value), json!({"b": [1, 2], "text": {"at": "TIMEZ"}}));
}
