//! The platform that end-to-end tests share: one control plane a test run, one namespace a test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is test code: what cannot go on must stop"
)]
#![expect(clippy::must_use_candidate, clippy::missing_panics_doc, reason = "called by tests alone")]

pub mod parts;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use dejima_lab::children::Stay;
use dejima_lab::{Binaries, Person, ToStderr, people};
use serde_json::Value;

pub use dejima_lab::people::{ADMIN, BOARD_JICHI, BOARD_PLATFORM, LEAD, OFFICE, OTHER_LEAD, PROVIDER, STUDENT};

/// A control plane with the chart; what cannot go on stops the test.
#[derive(Debug)]
pub struct World(dejima_lab::World);

/// What a request came to.
#[derive(Debug)]
pub struct Answer {
    /// Whether it was accepted.
    pub accepted: bool,
    /// What the server said.
    pub text: String,
}

impl From<dejima_lab::world::Answer> for Answer {
    fn from(answer: dejima_lab::world::Answer) -> Self {
        Self {
            accepted: answer.accepted,
            text: answer.text,
        }
    }
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
    // What runs is asked, not what was built: one target directory may serve several checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().expect("tests lie in the repository").to_path_buf()
}

/// The directory of one platform of this run; what earlier runs left is removed.
pub fn place(name: &str) -> PathBuf {
    static USED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let fresh = USED.lock().is_ok_and(|mut used| used.insert(name.to_owned()));
    assert!(fresh, "two platforms of one run are both named `{name}`");
    let runs = dejima_lab::cache::root().join("runs");
    for (folder, separator) in [(runs.as_path(), None), (Path::new(dejima_lab::host::STATE), Some('-'))] {
        sweep(folder, separator);
    }
    runs.join(std::process::id().to_string()).join(name)
}

/// Removes what runs that are no longer there have left: directories named by their pid, with or without more behind a separator.
fn sweep(folder: &Path, separator: Option<char>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = separator.map_or(name.as_str(), |separator| name.split(separator).next().unwrap_or_default());
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            // Another run may be sweeping the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The control plane that tests of admission share: started by the first that asks. Nothing of ours runs on it.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let binaries = Binaries::get(&ToStderr).expect("the binaries of the real parts");
        let world = dejima_lab::World::start(
            Stay::WithStarter,
            &binaries,
            &place("admission"),
            &root().join("charts/dejima"),
            &people::cast(),
        );
        World(world.expect("a control plane"))
    })
}

impl Deref for World {
    type Target = dejima_lab::World;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl World {
    /// Binds a cluster role to a group, in one namespace or everywhere.
    pub fn bind(&self, role: &str, group: &str, namespace: Option<&str>) {
        self.0.bind(role, group, namespace).unwrap();
    }

    /// Runs kubectl as a login.
    pub fn run(&self, login: &str, arguments: &[&str]) -> Answer {
        self.0.run(login, arguments).into()
    }

    /// Runs kubectl as a login with something on its standard input.
    pub fn input(&self, login: &str, arguments: &[&str], input: &str) -> Answer {
        self.0.input(login, arguments, input).into()
    }

    /// Creates what a manifest says.
    pub fn create(&self, login: &str, manifest: &str) -> Answer {
        self.0.create(login, manifest).into()
    }

    /// Applies what a manifest says.
    pub fn apply(&self, login: &str, manifest: &str) -> Answer {
        self.0.apply(login, manifest).into()
    }

    /// A JSON patch.
    pub fn patch(&self, login: &str, namespace: &str, kind: &str, name: &str, patch: &str) -> Answer {
        self.0.patch(login, namespace, kind, name, patch).into()
    }

    /// An object as the admin sees it.
    #[track_caller]
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        self.0.get(namespace, kind, name).unwrap()
    }

    /// A namespace of a test's own, with a group's role in it.
    pub fn namespace(&self, prefix: &str, bindings: &[(&str, &str)]) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.0.namespace(&name, bindings).unwrap();
        name
    }

    /// A person of the cast.
    pub fn person(&self, login: &str) -> &Person {
        self.0.person(login).expect("a person of the cast")
    }
}

/// The story's project in a tenant's namespace, without its datasets.
pub fn without_data(tenant: &str) -> String {
    let here = format!("namespace: {tenant}");
    let text = example("isolatedproject-story.yaml", &[("namespace: osaka-radiology", &here)]);
    let text = text.replace("  datasets:\n", "");
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("attachTo: [train]")).collect();
    lines.join("\n")
}

/// An example manifest, with parts of its text replaced.
pub fn example(name: &str, replace: &[(&str, &str)]) -> String {
    let path = root().join("examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    replace.iter().fold(text, |text, (from, to)| text.replace(from, to))
}
