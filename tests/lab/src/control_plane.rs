//! The real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::children::{Running, Stay, start_for};
use crate::people::Person;
use crate::run::{Error, await_until, file, finish, succeed};

const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: Metadata
";

const SERVER: &str = "kube-apiserver";
/// Its processes and their logs, in the order in which they are stopped.
pub(crate) const PARTS: [(&str, &str); 3] = [
    ("kube-controller-manager", "manager.log"),
    (SERVER, "api.log"),
    ("etcd", "etcd.log"),
];
/// The file that names the API server's port.
const PORT: &str = "port";

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    dir: PathBuf,
    kubectl: PathBuf,
    port: u16,
    people: Vec<Person>,
    // In the order in which they are stopped.
    children: Mutex<Vec<Running>>,
    // What its API server is started by again; nothing where another process started it.
    again: Option<Command>,
}

/// Ports that this library gives: below those that the kernel gives to callers (`ip_local_port_range`), which come and go.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port of loopback that nobody listens on, and that nobody else who asks here is given while this process lives.
///
/// Two platforms that start at the same time must not end up with one port: an API server would find the other's etcd.
pub fn free_port() -> Result<u16, Error> {
    // The locks go with the process.
    static GIVEN: Mutex<Vec<(u16, File)>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("dejima-lab-ports");
    file("make", &folder, std::fs::create_dir_all(&folder))?;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let width = u32::from(PORTS.end - PORTS.start);
    let begin = std::process::id().wrapping_mul(31) % width;
    let all = (0..width).filter_map(|step| Some(PORTS.start + u16::try_from((begin + step) % width).ok()?));
    for port in all {
        if given.iter().any(|(taken, _)| *taken == port) {
            continue;
        }
        let path = folder.join(port.to_string());
        let lock = file("open", &path, File::create(&path))?;
        if lock.try_lock().is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.push((port, lock));
            return Ok(port);
        }
    }
    Err(Error::Unexpected("no port of loopback is free".into()))
}

impl ControlPlane {
    /// Starts one in an empty directory; ready in about 3 s.
    pub fn start(stay: Stay, binaries: &Binaries, dir: &Path, people: &[Person]) -> Result<Self, Error> {
        file("make", dir, std::fs::create_dir_all(dir))?;
        let (client, peer, port) = (free_port()?, free_port()?, free_port()?);
        certificates(dir)?;
        file("write", dir, std::fs::write(dir.join("audit-policy.yaml"), AUDIT_POLICY))?;
        let tokens: String = people.iter().map(Person::line).collect();
        file("write", dir, std::fs::write(dir.join("tokens.csv"), tokens))?;
        file("write", dir, std::fs::write(dir.join(PORT), port.to_string()))?;

        let mut etcd = Command::new(binaries.program("etcd"));
        etcd.arg("--data-dir")
            .arg(dir.join("etcd"))
            .arg("--unsafe-no-fsync")
            .args(["--log-level", "warn"]);
        for (flag, port) in [
            ("--listen-client-urls", client),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer),
        ] {
            etcd.arg(flag).arg(format!("http://127.0.0.1:{port}"));
        }
        let etcd = start_for(stay, "etcd", &etcd, &dir.join("etcd.log"))?;

        let at = |name: &str| dir.join(name).display().to_string();
        let mut api = Command::new(binaries.program("kube-apiserver"));
        api.args([
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            // Without it a machine that has no way to the outside would have no API server.
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--tls-cert-file={}", at("server.crt")),
            format!("--tls-private-key-file={}", at("server.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            format!("--service-account-key-file={}", at("sa.pub")),
            format!("--service-account-signing-key-file={}", at("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--token-auth-file={}", at("tokens.csv")),
            format!("--audit-policy-file={}", at("audit-policy.yaml")),
            format!("--audit-log-path={}", at("audit.log")),
            "--audit-log-mode=batch".to_owned(),
            "--audit-log-batch-max-wait=200ms".to_owned(),
        ]);
        let again = api;
        let api = start_for(stay, SERVER, &again, &dir.join("api.log"))?;

        let plane = Self {
            dir: dir.to_owned(),
            kubectl: binaries.program("kubectl"),
            port,
            people: people.to_vec(),
            children: Mutex::new(vec![api, etcd]),
            again: Some(again),
        };
        plane.write_kubeconfig(
            "admin",
            &format!("{{client-certificate: {}, client-key: {}}}", at("admin.crt"), at("admin.key")),
        )?;
        for person in people {
            plane.write_kubeconfig(&person.login, &format!("{{token: \"{}\"}}", person.token()))?;
        }
        plane.await_server()?;

        // Who answers is ours only if ours still run.
        let mut children = plane.children.lock().unwrap_or_else(PoisonError::into_inner);
        if !children.iter_mut().all(Running::is_running) {
            return Err(Error::Unexpected(format!(
                "etcd or the API server ended as it started; see {}",
                dir.display()
            )));
        }
        drop(children);

        let mut manager = Command::new(binaries.program("kube-controller-manager"));
        manager.args([
            format!("--kubeconfig={}", plane.kubeconfig("admin").display()),
            format!("--service-account-private-key-file={}", at("sa.key")),
            format!("--root-ca-file={}", at("ca.crt")),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        let manager = start_for(stay, "kube-controller-manager", &manager, &dir.join("manager.log"))?;
        plane.children().insert(0, manager);
        await_until("the default service account", 30, &at("manager.log"), || {
            plane
                .kubectl("admin", &["get", "serviceaccount", "default"], None)
                .is_ok_and(|output| output.status.success())
        })?;
        Ok(plane)
    }

    /// The one that an earlier process started to stay; nothing where a part of it runs no more.
    pub fn again(binaries: &Binaries, dir: &Path, people: &[Person]) -> Option<Self> {
        let port = std::fs::read_to_string(dir.join(PORT)).ok()?.parse().ok()?;
        let mut children = Vec::new();
        for (name, log) in PARTS {
            children.push(Running::again(name, &dir.join(log))?);
        }
        Some(Self {
            dir: dir.to_owned(),
            kubectl: binaries.program("kubectl"),
            port,
            people: people.to_vec(),
            children: Mutex::new(children),
            again: None,
        })
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_server(&self) -> Result<(), Error> {
        let log = self.dir.join("api.log").display().to_string();
        await_until("a ready API server", 60, &log, || {
            let ready = self.kubectl("admin", &["get", "--raw", "/readyz"], None);
            ready.is_ok_and(|output| output.status.success())
        })
    }

    /// Kills the API server: nobody answers any more; what it wrote is in etcd.
    pub fn kill_server(&self) {
        for child in self.children().iter_mut().filter(|child| child.is(SERVER)) {
            child.kill();
        }
    }

    /// Starts the API server again, at the same address. Its watch cache begins with what is in etcd now: who watched from an
    /// earlier resource version is told that this is gone (410).
    pub fn start_server(&self) -> Result<(), Error> {
        let Some(again) = &self.again else {
            return Err(Error::Unexpected("another process started this API server".into()));
        };
        let started = start_for(Stay::WithStarter, SERVER, again, &self.dir.join("api.log"))?;
        if let Some(place) = self.children().iter_mut().find(|child| child.is(SERVER)) {
            *place = started;
        }
        self.await_server()
    }

    /// Where the API server answers.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The audit log: one JSON object a line, writes only.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The people it knows.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// The kubeconfig of a login; `admin` is cluster-admin.
    pub fn kubeconfig(&self, login: &str) -> PathBuf {
        self.dir
            .join("kubeconfigs")
            .join(format!("{}.yaml", login.replace([':', '/'], "_")))
    }

    /// A kubeconfig for a service account, with a token of its own.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf, Error> {
        let output = self.kubectl("admin", &["create", "token", name, "-n", namespace, "--duration=768h"], None)?;
        if !output.status.success() {
            return Err(Error::Unexpected(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let login = format!("system:serviceaccount:{namespace}:{name}");
        let kubeconfig = self.kubeconfig(&login);
        // In a file of its own: whose it is renews it.
        let token = kubeconfig.with_extension("token");
        self.write_kubeconfig(&login, &format!("{{tokenFile: \"{}\"}}", token.display()))?;
        file(
            "write",
            &token,
            std::fs::write(&token, String::from_utf8_lossy(&output.stdout).trim()),
        )?;
        Ok(kubeconfig)
    }

    fn write_kubeconfig(&self, login: &str, user: &str) -> Result<(), Error> {
        let path = self.kubeconfig(login);
        if let Some(folder) = path.parent() {
            file("make", folder, std::fs::create_dir_all(folder))?;
        }
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: lab, cluster: {{server: \"{}\", certificate-authority: {}}}}}]\n\
             users: [{{name: me, user: {user}}}]\ncontexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]\ncurrent-context: lab\n",
            self.server(),
            self.dir.join("ca.crt").display()
        );
        file("write", &path, std::fs::write(&path, text))
    }

    /// Runs kubectl as a login, whatever way it ends.
    pub fn kubectl(&self, login: &str, arguments: &[&str], input: Option<&str>) -> Result<Output, Error> {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig(login))
            .arg("--cache-dir")
            .arg(self.dir.join("kubectl-cache"))
            .args(arguments);
        finish(&mut command, input.map(str::as_bytes))
    }

    /// The program kubectl.
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// Stops everything and waits for it.
    pub fn stop(&self) -> Result<(), Error> {
        for child in self.children().iter_mut() {
            child.stop(Duration::from_secs(20))?;
        }
        Ok(())
    }
}

/// A CA, the server's and the admin's certificate, and the key pair of service accounts.
fn certificates(dir: &Path) -> Result<(), Error> {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(arguments.split_whitespace());
        succeed(&mut command, None).map(drop)
    };
    // A certificate without extensions is one of version 1, which rustls refuses.
    for (name, text) in [
        ("server.ext", "subjectAltName=IP:127.0.0.1,DNS:localhost\n"),
        ("admin.ext", "extendedKeyUsage=clientAuth\n"),
    ] {
        file("write", dir, std::fs::write(dir.join(name), text))?;
    }
    openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout ca.key -out ca.crt -subj /CN=lab-ca")?;
    for (name, subject) in [("server", "/CN=kube-apiserver"), ("admin", "/O=system:masters/CN=admin")] {
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
        ))?;
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out {name}.crt -extfile {name}.ext"
        ))?;
    }
    openssl("genrsa -out sa.key 2048")?;
    openssl("rsa -in sa.key -pubout -out sa.pub")
}
