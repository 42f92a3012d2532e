//! The platform that end-to-end tests share: one control plane a test run, one namespace a test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is test code: what cannot go on must stop"
)]
#![expect(clippy::must_use_candidate, clippy::missing_panics_doc, reason = "called by tests alone")]

pub mod parts;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use dejima_lab::{Binaries, ControlPlane, Person, ToStderr, people};
use serde_json::Value;

/// The login that may do everything.
pub const ADMIN: &str = "admin";
/// The platform's office.
pub const OFFICE: &str = "office-1@platform.example";
/// A reviewer of the provider's organisation.
pub const BOARD_JICHI: &str = "board-1@jichi.example";
/// A reviewer of the platform's organisation.
pub const BOARD_PLATFORM: &str = "board-1@platform.example";
/// The provider.
pub const PROVIDER: &str = "provider@jichi.example";
/// The lead of a project.
pub const LEAD: &str = "lead@osaka.example";
/// The lead of another tenant.
pub const OTHER_LEAD: &str = "lead@kyoto.example";
/// Somebody of the same tenant as the lead.
pub const STUDENT: &str = "student@osaka.example";

/// The shared platform.
#[derive(Debug)]
pub struct World {
    plane: ControlPlane,
    dir: PathBuf,
}

/// What a request came to.
#[derive(Debug)]
pub struct Answer {
    /// Whether it was accepted.
    pub accepted: bool,
    /// What the server said.
    pub text: String,
}

impl Answer {
    /// It must have been accepted.
    #[track_caller]
    pub fn accepted(self) -> String {
        assert!(self.accepted, "refused: {}", self.text);
        self.text
    }

    /// It must have been refused, for this reason.
    #[track_caller]
    pub fn refused(self, because: &str) {
        assert!(!self.accepted, "accepted, though it should be refused ({because}): {}", self.text);
        assert!(self.text.contains(because), "refused, but not because `{because}`: {}", self.text);
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie in the repository")
        .to_path_buf()
}

/// The control plane that tests of admission share: started by the first that asks. Nothing of ours runs on it.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| World::start("admission"))
}

/// Removes what earlier runs left that are no longer there.
fn sweep(runs: &Path) {
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // Another run may be sweeping the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl World {
    /// Starts a control plane with the chart on it.
    pub fn start(name: &str) -> Self {
        let runs = dejima_lab::cache::root().join("runs");
        sweep(&runs);
        let dir = runs.join(std::process::id().to_string()).join(name);
        let binaries = Binaries::get(&ToStderr).expect("the binaries of the real parts");
        let plane = ControlPlane::start(&binaries, &dir, &people::cast()).expect("a control plane");
        let world = Self { plane, dir };
        world.install();
        world
    }

    /// The bearer token of a login.
    pub fn token(&self, login: &str) -> String {
        let text = std::fs::read_to_string(self.plane.kubeconfig(login)).expect("a kubeconfig");
        let after = text.split("token: \"").nth(1).expect("a login with a token");
        after.split('"').next().unwrap_or_default().to_owned()
    }

    /// Where everything of it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn install(&self) {
        let chart = root().join("charts/dejima");
        for folder in ["crds", "templates"] {
            self.run(ADMIN, &["apply", "--server-side", "-f", chart.join(folder).to_str().unwrap()])
                .accepted();
        }
        self.run(ADMIN, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
            .accepted();
        self.bind("dejima-office", "dejima.dev/office", None);
        self.bind("dejima-reviewer", "dejima.dev/board", None);
        self.bind("dejima-auditor", "dejima.dev/office", None);
        // A policy acts some moments after it was made: each is awaited by what it must refuse.
        for (kind, subresource) in [
            ("isolatedproject", None),
            ("accessgrant", None),
            ("attestation", None),
            ("namespace", None),
            ("host", Some("status")),
        ] {
            self.await_canary(kind, subresource);
        }
    }

    fn await_canary(&self, kind: &str, subresource: Option<&str>) {
        let manifest = canary(kind);
        let name = format!("canary-{kind}");
        if subresource.is_some() {
            self.apply(ADMIN, &manifest.replace("dejima.dev/canary", "dejima.dev/none"))
                .accepted();
        }
        dejima_lab::run::await_until(&format!("the canary of {kind}"), 60, "audit.log", || {
            let answer = match subresource {
                Some(subresource) => {
                    let patch = r#"{"metadata":{"annotations":{"dejima.dev/canary":""}},"status":{"images":[]}}"#;
                    self.run(
                        ADMIN,
                        &[
                            "patch",
                            kind,
                            &name,
                            "--subresource",
                            subresource,
                            "--type=merge",
                            "--dry-run=server",
                            "-p",
                            patch,
                        ],
                    )
                }
                None => self.input(ADMIN, &["create", "--dry-run=server", "-f", "-"], &manifest),
            };
            !answer.accepted && answer.text.contains("ValidatingAdmissionPolicy")
        })
        .expect("the admission policies act");
        if subresource.is_some() {
            self.run(ADMIN, &["delete", kind, &name]).accepted();
        }
    }

    /// Binds a cluster role to a group, in one namespace or everywhere.
    pub fn bind(&self, role: &str, group: &str, namespace: Option<&str>) {
        let name = format!("{role}-{}", group.replace(['/', '.'], "-"));
        let (role, group) = (format!("--clusterrole={role}"), format!("--group={group}"));
        match namespace {
            Some(namespace) => self
                .run(ADMIN, &["create", "rolebinding", &name, &role, &group, "-n", namespace])
                .accepted(),
            None => self.run(ADMIN, &["create", "clusterrolebinding", &name, &role, &group]).accepted(),
        };
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
        let output = self.plane.kubectl(login, arguments, input).expect("kubectl runs");
        Answer {
            accepted: output.status.success(),
            text: format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
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
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let text = self.run(ADMIN, &["get", kind, name, "-n", namespace, "-o", "json"]).accepted();
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// A namespace of a test's own, with a group's role in it.
    pub fn namespace(&self, prefix: &str, bindings: &[(&str, &str)]) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.run(ADMIN, &["create", "namespace", &name]).accepted();
        for (role, group) in bindings {
            self.bind(role, group, Some(&name));
        }
        name
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// A person of the cast.
    pub fn person(&self, login: &str) -> &Person {
        self.plane
            .people()
            .iter()
            .find(|person| person.login == login)
            .expect("a person of the cast")
    }
}

/// An example manifest, with parts of its text replaced.
pub fn example(name: &str, replace: &[(&str, &str)]) -> String {
    let path = root().join("examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    replace.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// An object that the policies refuse for its annotation alone.
fn canary(kind: &str) -> String {
    let (head, spec) = match kind {
        "namespace" => ("apiVersion: v1\nkind: Namespace", String::new()),
        "host" => ("apiVersion: dejima.dev/v1alpha1\nkind: Host", "spec: {roles: [machines]}".to_owned()),
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
        other => panic!("no canary for {other}"),
    };
    format!("{head}\nmetadata: {{name: canary-{kind}, annotations: {{dejima.dev/canary: \"\"}}}}\n{spec}\n")
}
