//! Our own parts as black boxes: the binary `dejima` in its roles, under the narrow identities that the chart gives them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use dejima_lab::children::{Running, start};
use dejima_lab::{Binaries, KeyServer, ToStderr};
use serde_json::{Value, json};

use crate::{ADMIN, World};

const OPERATOR: &str = "system:serviceaccount:dejima-system:operator";

/// What the operator may do at the key server: make and destroy keys of projects and shards, and write the policies of hosts.
const OPERATOR_POLICY: &str = r#"
path "transit/keys/project-*" { capabilities = ["create", "update", "delete"] }
path "transit/keys/shard-*" { capabilities = ["create", "update", "delete"] }
path "sys/policy/dejima-host-*" { capabilities = ["create", "update"] }
path "sys/policies/acl/dejima-host-*" { capabilities = ["create", "update"] }
"#;

/// The binary under test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("DEJIMA_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().expect("a test has a path");
    let built = here.ancestors().nth(2).expect("it lies in target/debug/deps").join("dejima");
    assert!(
        built.exists(),
        "{} is not there: cargo build -p dejima --features faults",
        built.display()
    );
    built
}

/// A platform with our parts on it.
#[derive(Debug)]
pub struct Platform {
    /// The control plane with the chart.
    pub world: World,
    /// The key server.
    pub keys: KeyServer,
    dir: PathBuf,
    api: String,
    namespaces: BTreeMap<String, PathBuf>,
    running: BTreeMap<String, Running>,
}

impl Platform {
    /// A control plane of its own, a key server, and these hosts with drivers that remember. Nothing of ours runs yet.
    pub fn new(name: &str, hosts: &[&str]) -> Self {
        let world = World::start(name);
        let dir = world.dir().to_path_buf();
        let binaries = Binaries::get(&ToStderr).expect("the binaries of the real parts");
        let keys = KeyServer::start(&binaries, &dir.join("keys")).expect("a key server");
        keys.run(&["policy", "write", "dejima-operator", "-"], Some(OPERATOR_POLICY))
            .expect("the operator's policy");
        let token = keys
            .run(
                &["token", "create", "-orphan", "-policy=dejima-operator", "-ttl=24h", "-field=token"],
                None,
            )
            .expect("the operator's token");
        std::fs::write(dir.join("operator.token"), token).expect("the token is kept");
        std::fs::write(dir.join("site.yaml"), "retryMs: 100\nretryMaxMs: 1000\n").expect("the site is written");
        world
            .plane()
            .service_account("dejima-system", "operator")
            .expect("the operator's identity");
        let port = dejima_lab::control_plane::free_port().expect("a port for the API");
        world.plane().service_account("dejima-system", "api").expect("the API's identity");
        let mut platform = Self {
            world,
            keys,
            dir,
            api: format!("127.0.0.1:{port}"),
            namespaces: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        platform.start_api();
        for host in hosts {
            platform.add_host(host, "{roles: [machines]}");
        }
        let image = "apiVersion: dejima.dev/v1alpha1\nkind: MachineImage\nmetadata: {name: probe}\nspec: {format: kernel-initrd, guest: probe, \
             boot: {kernel: {path: vmlinux, digest: \"sha256:HEX\", initrd: initrd, initrdDigest: \"sha256:HEX\"}}}\n";
        platform.world.create(ADMIN, &image.replace("HEX", &"a".repeat(64))).accepted();
        platform
    }

    /// A host as an admin makes it: the object, its namespace, its identities.
    pub fn add_host(&self, host: &str, spec: &str) {
        let space = format!("dejima-host-{host}");
        let manifest = format!(
            "apiVersion: dejima.dev/v1alpha1\nkind: Host\nmetadata: {{name: {host}}}\nspec: {spec}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: {space}}}\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: hostd, namespace: {space}}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: hostd, namespace: {space}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dejima-hostd}}\nsubjects: [{{kind: ServiceAccount, name: hostd, namespace: {space}}}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: hostd-{host}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dejima-hostd-host}}\nsubjects: [{{kind: ServiceAccount, name: hostd, namespace: {space}}}]\n"
        );
        self.world.apply(ADMIN, &manifest).accepted();
        self.world.plane().service_account(&space, "hostd").expect("a host's identity");
        let role = format!("auth/approle/role/dejima-host-{host}");
        self.keys
            .run(
                &[
                    "write",
                    &role,
                    &format!("token_policies=dejima-host-{host}"),
                    "token_ttl=1h",
                    "token_no_default_policy=true",
                ],
                None,
            )
            .expect("a role for the host");
        let folder = self.host_dir(host);
        std::fs::create_dir_all(&folder).expect("a directory for the host");
        let role_id = self
            .keys
            .run(&["read", "-field=role_id", &format!("{role}/role-id")], None)
            .expect("a role id");
        let secret_id = self
            .keys
            .run(&["write", "-force", "-field=secret_id", &format!("{role}/secret-id")], None)
            .expect("a secret id");
        std::fs::write(folder.join("role-id"), role_id).expect("the role id is kept");
        std::fs::write(folder.join("secret-id"), secret_id).expect("the secret id is kept");
    }

    /// The pool of a host with real volumes.
    pub fn volumes(&self, host: &str) -> PathBuf {
        self.dir.join("volumes").join(host)
    }

    /// Gives a host real volumes, and real networks in this network namespace; at its next start.
    pub fn network_in(&mut self, host: &str, namespace: PathBuf) {
        self.namespaces.insert(host.to_owned(), namespace);
    }

    /// Where a host keeps what it keeps.
    pub fn host_dir(&self, host: &str) -> PathBuf {
        self.dir.join("hosts").join(host)
    }

    /// Where sealed shards lie.
    pub fn image_store(&self) -> PathBuf {
        self.dir.join("image-store")
    }

    /// The directory below which the intake roots of a host lie; a host that has one seals.
    pub fn sources(&self, host: &str) -> PathBuf {
        let path = self.dir.join("sources").join(host);
        std::fs::create_dir_all(&path).expect("a directory for sources");
        path
    }

    /// What a host that only remembers remembers.
    pub fn remembered(&self, host: &str) -> Value {
        let text = std::fs::read(self.host_dir(host).join("world.json")).unwrap_or_else(|_| b"{\"projects\":{}}".to_vec());
        serde_json::from_slice(&text).expect("the world is JSON")
    }

    fn command(&self, role: &str, kubeconfig: &Path, faults: Option<&Value>) -> Command {
        let mut command = Command::new(program());
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("DEJIMA_KEYS", self.keys.address())
            .env("DEJIMA_API", format!("http://{}", self.api))
            .env("DEJIMA_LOG", "info,dejima=debug")
            .env_remove("DEJIMA_FAULTS");
        if let Some(faults) = faults {
            let path = self.dir.join(format!("faults-{role}.json"));
            std::fs::write(&path, faults.to_string()).expect("the faults are written");
            command.env("DEJIMA_FAULTS", path);
        }
        command
    }

    /// Starts the API, which holds the ledger.
    pub fn start_api(&mut self) {
        self.stop("dejima-api");
        let login = "system:serviceaccount:dejima-system:api";
        let mut command = self.command("dejima-api", &self.world.plane().kubeconfig(login), None);
        command
            .args(["api", "--listen", &self.api, "--ledger"])
            .arg(self.dir.join("ledger"));
        let running = start("dejima-api", &command, &self.dir.join("dejima-api.log")).expect("the API starts");
        self.running.insert("dejima-api".to_owned(), running);
    }

    /// Asks the API as a login; the status and the body.
    pub fn ask(&self, login: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let token = self.world.token(login);
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "-X",
            method,
            "-H",
            &format!("Authorization: Bearer {token}"),
            "-H",
            "Content-Type: application/json",
            "-w",
            "\n%{http_code}",
        ]);
        if let Some(body) = body {
            command.args(["-d", &body.to_string()]);
        }
        let output = command.arg(format!("http://{}{path}", self.api)).output().expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or_default())
    }

    /// Every record, as the admin reads them.
    pub fn records(&self) -> Vec<Value> {
        let (status, answer) = self.ask(crate::OFFICE, "GET", "/api/v1/records?count=1000", None);
        assert_eq!(status, 200, "{answer}");
        answer["records"].as_array().cloned().unwrap_or_default()
    }

    /// Starts the operator.
    pub fn start_operator(&mut self, faults: Option<&Value>) {
        self.stop("operator");
        let mut command = self.command("operator", &self.world.plane().kubeconfig(OPERATOR), faults);
        command.args(["operator", "--keys-token-file"]).arg(self.dir.join("operator.token"));
        command.arg("--site").arg(self.dir.join("site.yaml"));
        let running = start("operator", &command, &self.dir.join("operator.log")).expect("the operator starts");
        self.running.insert("operator".to_owned(), running);
    }

    /// Starts the agent of a host.
    pub fn start_host(&mut self, host: &str, faults: Option<&Value>) {
        self.stop(host);
        let login = format!("system:serviceaccount:dejima-host-{host}:hostd");
        let mut command = self.command(host, &self.world.plane().kubeconfig(&login), faults);
        let folder = self.host_dir(host);
        let intake = self.dir.join("sources").join(host);
        let drivers = if intake.exists() { "none" } else { "memory" };
        command
            .args(["hostd", "--drivers", drivers, "--retry-ms", "100", "--host", host, "--state"])
            .arg(&folder);
        if intake.exists() {
            command.arg("--intake").arg(intake).arg("--image-store").arg(self.image_store());
        }
        if let Some(namespace) = self.namespaces.get(host) {
            command
                .arg("--network-namespace")
                .arg(namespace)
                .arg("--volumes")
                .arg(self.volumes(host));
        }
        command
            .arg("--role-id-file")
            .arg(folder.join("role-id"))
            .arg("--secret-id-file")
            .arg(folder.join("secret-id"));
        let running = start(host, &command, &self.dir.join(format!("{host}.log"))).expect("the host's agent starts");
        self.running.insert(host.to_owned(), running);
    }

    /// Stops a part, where it runs.
    pub fn stop(&mut self, part: &str) {
        if let Some(mut running) = self.running.remove(part) {
            running.stop(Duration::from_secs(10)).expect("it ends");
        }
    }

    /// Whether a part still runs.
    pub fn runs(&mut self, part: &str) -> bool {
        self.running.get_mut(part).is_some_and(Running::is_running)
    }

    /// Runs the binary as a person.
    pub fn dejima(&self, login: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command
            .arg("--kubeconfig")
            .arg(self.world.plane().kubeconfig(login))
            .args(arguments)
            .output()
            .expect("it runs")
    }

    /// Waits until something is so, for at most 30 s; then says what the logs say.
    #[track_caller]
    pub fn eventually(&self, what: &str, so: impl FnMut() -> bool) {
        if dejima_lab::run::await_until(what, 30, "below", so).is_err() {
            let tail = |name: &str| {
                let text = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(25).collect();
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            };
            let logs: Vec<String> = self
                .running
                .keys()
                .map(|part| format!("--- {part}\n{}", tail(&format!("{part}.log"))))
                .collect();
            let objects = self
                .world
                .run(ADMIN, &["get", "iproj,accessgrants,hosts,hostplans", "-A", "-o", "wide"]);
            panic!("{what} did not come about within 30 s\n{}\n{}", objects.text, logs.join("\n"));
        }
    }

    /// A status condition: its status, reason and message.
    pub fn condition(&self, namespace: &str, kind: &str, name: &str, condition: &str) -> (String, String, String) {
        let answer = self.world.run(ADMIN, &["get", kind, name, "-n", namespace, "-o", "json"]);
        let object: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all
            .into_iter()
            .find(|found| found["type"] == condition)
            .unwrap_or_else(|| json!({}));
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Waits until a project is ready; the host it is on.
    #[track_caller]
    pub fn ready(&self, namespace: &str, name: &str) -> String {
        self.eventually(&format!("{namespace}/{name} ready"), || {
            self.condition(namespace, "isolatedproject", name, "Ready").0 == "True"
        });
        self.world.get(namespace, "isolatedproject", name)["status"]["summary"]["host"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Where everything of this run lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
