//! The lab's platform as tests use it: what cannot go on stops the test.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Output;

use dejima_lab::children::Stay;
use dejima_lab::{Binaries, Host, Setup, ToStderr, people};
use serde_json::Value;

use crate::{World, place, root};

/// The binary under test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("DEJIMA_BIN") {
        return path.into();
    }
    built("dejima", "cargo build -p dejima --features faults")
}

/// A program that was built beside the tests, by this command.
pub fn built(name: &str, by: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let built = here.ancestors().nth(2).expect("it lies in target/debug/deps").join(name);
    assert!(built.exists(), "{} is not there: {by}", built.display());
    built
}

/// A platform with our parts on it. What is not here is the lab's, with results.
#[derive(Debug)]
pub struct Platform {
    lab: dejima_lab::Platform,
    /// The control plane with the chart.
    pub world: World,
}

impl Deref for Platform {
    type Target = dejima_lab::Platform;

    fn deref(&self) -> &Self::Target {
        &self.lab
    }
}

impl DerefMut for Platform {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.lab
    }
}

impl Platform {
    /// A control plane of its own, a key server, the API, and these hosts with drivers that remember. Operator and hosts are started by name.
    pub fn new(name: &str, hosts: &[&str]) -> Self {
        let setup = Setup {
            name: format!("{}-{name}", std::process::id()),
            dir: place(name),
            program: program(),
            chart: root().join("charts/dejima"),
            people: people::cast(),
            stay: Stay::WithStarter,
        };
        let binaries = Binaries::get(&ToStderr).expect("the binaries of the real parts");
        let lab = dejima_lab::Platform::start(&binaries, setup).expect("a platform");
        let world = World(lab.world.clone());
        let platform = Self { lab, world };
        for host in hosts {
            platform.add_host(host, "{roles: [machines]}");
        }
        let boot = "{path: vmlinux, digest: \"sha256:HEX\", initrd: initrd, initrdDigest: \"sha256:HEX\"}";
        platform.lab.replace_image("probe", &boot.replace("HEX", &"a".repeat(64))).unwrap();
        platform
    }

    /// A host as an admin makes it: the object, its namespace, its identities.
    pub fn add_host(&self, host: &str, spec: &str) {
        self.lab.add_host(host, spec).unwrap();
    }

    /// A host with libvirt and QEMU, and its agent running in it.
    pub fn add_machine_host(&mut self, host: &str, spec: &str) {
        self.lab.add_machine_host(host, spec).unwrap();
    }

    /// What the lab's guest boots, as the image `probe`; and `probe-hostile`, whose guest does no hot-plug.
    pub fn install_probe_image(&self, command_line: Option<&str>) {
        self.lab.install_probe_image(command_line, &ToStderr).unwrap();
    }

    /// A host that runs machines.
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        self.lab.host(name).unwrap()
    }

    /// The same, to stop and start its libvirt.
    #[track_caller]
    pub fn host_mut(&mut self, name: &str) -> &mut Host {
        self.lab.host_mut(name).unwrap()
    }

    /// The pid of a host's agent, seen from the machine.
    #[track_caller]
    pub fn hostd_pid(&self, host: &str) -> u32 {
        self.lab.hostd_pid(host).expect("the host's agent was started")
    }

    /// Whether a host's agent stands still (proc(5): `T`).
    pub fn hangs(&self, host: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.hostd_pid(host))).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    /// The directory below which the intake roots of a host lie; a host that has one seals.
    pub fn sources(&self, host: &str) -> PathBuf {
        self.lab.sources(host).unwrap()
    }

    /// What a host that only remembers remembers.
    pub fn remembered(&self, host: &str) -> Value {
        self.lab.remembered(host).unwrap()
    }

    /// Starts the API, which holds the ledger.
    pub fn start_api(&mut self) {
        self.lab.start_api().unwrap();
    }

    /// Starts a second operator beside the first.
    pub fn start_second_operator(&mut self) {
        self.lab.start_second_operator().unwrap();
    }

    /// Starts operator and API in one process, instead of the two.
    pub fn start_serve(&mut self) {
        self.lab.start_serve().unwrap();
    }

    /// Asks the API as a login; the status and the body.
    pub fn ask(&self, login: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.lab.ask(login, method, path, body).unwrap()
    }

    /// Every record, as the office reads them.
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        self.lab.records().unwrap()
    }

    /// Starts the operator.
    pub fn start_operator(&mut self, faults: Option<&Value>) {
        self.lab.start_operator(faults).unwrap();
    }

    /// Starts the agent of a host.
    pub fn start_host(&mut self, host: &str, faults: Option<&Value>) {
        self.lab.start_host(host, faults).unwrap();
    }

    /// Stops a part, where it runs.
    pub fn stop(&mut self, part: &str) {
        self.lab.stop(part).unwrap();
    }

    /// Runs the binary as a person.
    pub fn dejima(&self, login: &str, arguments: &[&str]) -> Output {
        self.lab.dejima(login, arguments).unwrap()
    }

    /// The documents of the final receipts that lie in a namespace, as a login reads them.
    pub fn receipts(&self, login: &str, namespace: &str) -> Vec<String> {
        let maps = ["get", "configmaps", "-n", namespace, "-l", "dejima.dev/receipt=final", "-o", "json"];
        let answer: Value = serde_json::from_str(&self.world.run(login, &maps).accepted()).unwrap();
        let all = answer.pointer("/items").and_then(Value::as_array).unwrap().iter();
        all.map(|item| item.pointer("/data/receipt.json").and_then(Value::as_str).unwrap().to_owned())
            .collect()
    }

    /// Whether a receipt holds under the platform's public key, and what its check says.
    pub fn verify(&self, login: &str, document: &str) -> (bool, String) {
        let (file, key) = (self.dir().join("receipt"), self.dir().join("key"));
        std::fs::write(&file, document).unwrap();
        let public = self.keys.run(&["read", "-format=json", "transit/keys/dejima-receipts"], None);
        std::fs::write(&key, public.unwrap()).unwrap();
        let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
        let output = self.dejima(login, &["--lang", "en", "receipt", "verify", file, "--key", key]);
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    /// Waits until something is so, for at most 30 s; then says what the logs say.
    #[track_caller]
    pub fn eventually(&self, what: &str, so: impl FnMut() -> bool) {
        self.within(30, what, so);
    }

    /// Waits until something is so, for at most so many seconds; then says what the logs say.
    #[track_caller]
    pub fn within(&self, seconds: u64, what: &str, so: impl FnMut() -> bool) {
        if let Err(late) = self.lab.eventually(what, seconds, so) {
            panic!("{late}");
        }
    }

    /// Whether there is no such object any more.
    pub fn gone(&self, namespace: &str, kind: &str, name: &str) -> bool {
        let answer = self.world.run(people::ADMIN, &["get", kind, name, "-n", namespace]);
        !answer.accepted && answer.text.contains("NotFound")
    }

    /// How many shards a host that only remembers has attached to machines of this name.
    pub fn attached(&self, host: &str, machine: &str) -> usize {
        let remembered = self.remembered(host);
        let projects = remembered.get("projects").and_then(Value::as_object);
        let of = |project: &Value| {
            project
                .pointer(&format!("/domains/{machine}/shards"))
                .and_then(Value::as_array)
                .map_or(0, Vec::len)
        };
        projects.into_iter().flat_map(serde_json::Map::values).map(of).sum()
    }

    /// A status condition: its status, reason and message.
    pub fn condition(&self, namespace: &str, kind: &str, name: &str, condition: &str) -> (String, String, String) {
        self.world.condition(namespace, kind, name, condition)
    }

    /// Waits until a project is ready; the host it is on.
    #[track_caller]
    pub fn ready(&self, namespace: &str, name: &str) -> String {
        match self.lab.ready(namespace, name, 60) {
            Ok(host) => host,
            Err(late) => panic!("{late}"),
        }
    }
}
