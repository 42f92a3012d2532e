//! A control plane with the chart on it, spoken to as people do: through kubectl, each under his own login.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::children::Stay;
use crate::people::{ADMIN, Person};
use crate::run::{Error, await_until, file, succeed};
use crate::{Binaries, ControlPlane};

/// A control plane with the chart on it. A copy is the same control plane; it ends with the last one.
#[derive(Clone, Debug)]
pub struct World {
    plane: Arc<ControlPlane>,
    dir: PathBuf,
}

/// What a request came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether it was accepted.
    pub accepted: bool,
    /// What the server said.
    pub text: String,
}

impl Answer {
    /// What the server said, where it accepted.
    pub fn ok(self) -> Result<String, Error> {
        if self.accepted {
            return Ok(self.text);
        }
        Err(Error::Unexpected(format!("refused: {}", self.text.trim())))
    }
}

impl World {
    /// Starts a control plane and installs the chart.
    pub fn start(stay: Stay, binaries: &Binaries, dir: &Path, chart: &Path, people: &[Person]) -> Result<Self, Error> {
        let world = Self::bare(stay, binaries, dir, people)?;
        world.install(&binaries.helm, chart)?;
        Ok(world)
    }

    /// Starts a control plane that has nothing of ours.
    pub fn bare(stay: Stay, binaries: &Binaries, dir: &Path, people: &[Person]) -> Result<Self, Error> {
        Ok(Self {
            plane: Arc::new(ControlPlane::start(stay, binaries, dir, people)?),
            dir: dir.to_owned(),
        })
    }

    /// Helm as the admin; what it keeps beside the cluster it keeps here, not in the user's home.
    pub fn helm(&self, program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        for what in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{what}_HOME"), self.dir.join("helm").join(what.to_lowercase()));
        }
        command.arg("--kubeconfig").arg(self.plane.kubeconfig(ADMIN));
        command
    }

    /// The one that an earlier process started to stay; nothing where a part of it runs no more.
    pub fn again(binaries: &Binaries, dir: &Path, people: &[Person]) -> Option<Self> {
        Some(Self {
            plane: Arc::new(ControlPlane::again(binaries, dir, people)?),
            dir: dir.to_owned(),
        })
    }

    /// The bearer token of a login.
    pub fn token(&self, login: &str) -> Result<String, Error> {
        let path = self.plane.kubeconfig(login);
        let text = file("read", &path, std::fs::read_to_string(&path))?;
        let quoted = |key: &str| {
            text.split_once(&format!("{key}: \""))
                .and_then(|(_, after)| after.split('"').next())
        };
        match (quoted("token"), quoted("tokenFile")) {
            (Some(token), _) => Ok(token.to_owned()),
            (None, Some(path)) => file("read", Path::new(path), std::fs::read_to_string(path)),
            (None, None) => Err(Error::Unexpected(format!("`{login}` has no token"))),
        }
    }

    /// Where everything of it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Takes the chart away, as a site does.
    pub fn uninstall(&self, helm: &Path) -> Result<(), Error> {
        let mut uninstall = self.helm(helm);
        uninstall.args(["uninstall", "dejima", "--namespace", "dejima-system"]);
        succeed(&mut uninstall, None).map(drop)
    }

    /// Installs the chart as a site does, by Helm. Our parts run beside the cluster here, as processes.
    pub fn install(&self, helm: &Path, chart: &Path) -> Result<(), Error> {
        let values = "workloads: {enabled: false}\ngroups: {office: [dejima.dev/office], reviewers: [dejima.dev/board]}\n";
        let mut install = self.helm(helm);
        install
            .args(["install", "dejima"])
            .arg(chart)
            .args(["--namespace", "dejima-system", "--create-namespace"]);
        succeed(install.args(["--values", "-"]), Some(values.as_bytes()))?;
        // A policy acts some moments after it was made: each is awaited by what it must refuse, for the mark that names it.
        for (policy, kind) in [
            ("dejima-terms", "isolatedproject"),
            ("dejima-attestations", "attestation"),
            ("dejima-tenant-labels", "namespace"),
            ("dejima-host-plans", "hostplan"),
            ("dejima-reviews", "accessgrant"),
            ("dejima-status", "accessgrant"),
            ("dejima-hosts", "accessgrant"),
            ("dejima-marks", "accessgrant"),
        ] {
            let manifest = canary(kind, policy)?;
            let log = self.plane.audit_log().display().to_string();
            await_until(&format!("the admission policy {policy}"), 60, &log, || {
                let answer = self.input(ADMIN, &["create", "--dry-run=server", "-f", "-"], &manifest);
                !answer.accepted && answer.text.contains(&format!("'{policy}'"))
            })?;
        }
        Ok(())
    }

    /// Binds a cluster role to a group, in one namespace or everywhere.
    pub fn bind(&self, role: &str, group: &str, namespace: Option<&str>) -> Result<(), Error> {
        let name = format!("{role}-{}", group.replace(['/', '.'], "-"));
        let (role, group) = (format!("--clusterrole={role}"), format!("--group={group}"));
        let answer = match namespace {
            Some(namespace) => self.run(ADMIN, &["create", "rolebinding", &name, &role, &group, "-n", namespace]),
            None => self.run(ADMIN, &["create", "clusterrolebinding", &name, &role, &group]),
        };
        answer.ok().map(drop)
    }

    /// Runs kubectl as a login.
    pub fn run(&self, login: &str, arguments: &[&str]) -> Answer {
        self.answer(login, arguments, None)
    }

    /// Runs kubectl as a login with something on its standard input.
    pub fn input(&self, login: &str, arguments: &[&str], input: &str) -> Answer {
        self.answer(login, arguments, Some(input))
    }

    fn answer(&self, login: &str, arguments: &[&str], input: Option<&str>) -> Answer {
        match self.plane.kubectl(login, arguments, input) {
            Ok(output) => Answer {
                accepted: output.status.success(),
                text: format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                ),
            },
            Err(error) => Answer {
                accepted: false,
                text: error.to_string(),
            },
        }
    }

    /// Creates what a manifest says.
    pub fn create(&self, login: &str, manifest: &str) -> Answer {
        self.input(login, &["create", "-f", "-"], manifest)
    }

    /// Applies what a manifest says.
    pub fn apply(&self, login: &str, manifest: &str) -> Answer {
        self.input(login, &["apply", "--server-side", "-f", "-"], manifest)
    }

    /// A JSON patch.
    pub fn patch(&self, login: &str, namespace: &str, kind: &str, name: &str, patch: &str) -> Answer {
        self.run(login, &["patch", kind, name, "-n", namespace, "--type=json", "-p", patch])
    }

    /// An object as the admin sees it.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Value, Error> {
        let text = self.run(ADMIN, &["get", kind, name, "-n", namespace, "-o", "json"]).ok()?;
        serde_json::from_str(&text).map_err(|cause| Error::Unexpected(format!("kubectl printed no JSON: {cause}")))
    }

    /// A status condition: its status, reason and message; empty where it is not there.
    pub fn condition(&self, namespace: &str, kind: &str, name: &str, condition: &str) -> (String, String, String) {
        let object = self.get(namespace, kind, name).unwrap_or_default();
        let all = object.pointer("/status/conditions").and_then(Value::as_array);
        let found = all
            .into_iter()
            .flatten()
            .find(|found| found.get("type").and_then(Value::as_str) == Some(condition));
        let text = |field: &str| {
            let value = found.and_then(|found| found.get(field)).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        (text("status"), text("reason"), text("message"))
    }

    /// A namespace, with groups' roles in it.
    pub fn namespace(&self, name: &str, bindings: &[(&str, &str)]) -> Result<(), Error> {
        self.run(ADMIN, &["create", "namespace", name]).ok()?;
        for (role, group) in bindings {
            self.bind(role, group, Some(name))?;
        }
        Ok(())
    }

    /// A person of the cast.
    pub fn person(&self, login: &str) -> Option<&Person> {
        self.plane.people().iter().find(|person| person.login == login)
    }
}

/// An object that this policy refuses for its annotation alone.
fn canary(kind: &str, policy: &str) -> Result<String, Error> {
    let (head, spec) = match kind {
        "namespace" => ("apiVersion: v1\nkind: Namespace", String::new()),
        "hostplan" => (
            "apiVersion: dejima.dev/v1alpha1\nkind: HostPlan",
            "spec: {planGeneration: 1, project: {of: {namespace: none, name: none, uid: none}, dedicated: true, key: none, \
             segment: {bridge: none, cidr: 10.64.0.0/24, gateway: 10.64.0.1, ports: []}, volumes: [], mounts: [], domains: []}}"
                .to_owned(),
        ),
        "attestation" => (
            "apiVersion: dejima.dev/v1alpha1\nkind: Attestation",
            "spec: {of: {kind: Dataset, name: none, uid: none}, claim: approval, value: {}, by: admin}".to_owned(),
        ),
        "accessgrant" => (
            "apiVersion: dejima.dev/v1alpha1\nkind: AccessGrant",
            format!(
                "spec: {{project: {{namespace: none, name: none, uid: none}}, dataset: none, policy: {{name: none, digest: \"sha256:{}\"}}, \
                 request: {{purpose: [], institution: \"https://ror.org/010hz0g26\", orgKind: public, country: JP, members: [], actions: []}}, \
                 window: {{from: \"2026-01\", until: \"2026-02\"}}}}",
                "0".repeat(64)
            ),
        ),
        "isolatedproject" => (
            "apiVersion: dejima.dev/v1alpha1\nkind: IsolatedProject",
            "spec: {title: {en: none}, purpose: [{duo: \"DUO:0000042\"}], institution: \"https://ror.org/010hz0g26\", orgKind: public, country: JP, \
             members: [{subject: nobody, role: lead}], period: {from: \"2026-01\", until: \"2026-02\"}, machines: [{name: one, cpu: 1, memory: 1Gi, image: none}]}"
                .to_owned(),
        ),
        other => return Err(Error::Unexpected(format!("no canary for `{other}`"))),
    };
    Ok(format!(
        "{head}\nmetadata: {{name: canary-{kind}, annotations: {{dejima.dev/canary: {policy}}}}}\n{spec}\n"
    ))
}
