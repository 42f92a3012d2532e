//! What tests of running machines share: a provider with a sealed dataset, a tenant, and a look into the guest.

use dejima_crds::names;
use dejima_lab::{Agent, ToStderr, dicom};
use dejima_tests::parts::Platform;
use dejima_tests::{BOARD_JICHI, BOARD_PLATFORM, LEAD, OFFICE, PROVIDER, example};
use serde_json::Value;

pub(crate) const INTAKE: &str = "intake-1";
pub(crate) const PROJECT: &str = "liver-ct";
/// What the office says of the tenant.
pub(crate) const LABELS: [&str; 3] = [
    "dejima.dev/institution=035t8zc32",
    "dejima.dev/org-kind=public",
    "dejima.dev/country=JP",
];

/// A platform with hosts that run machines, and one dataset of real images.
pub(crate) struct Running {
    pub(crate) platform: Platform,
    pub(crate) provider: String,
    pub(crate) tenant: String,
    // It goes last: the next test begins when nothing of this one runs any more.
    alone: std::sync::MutexGuard<'static, ()>,
}

/// One platform with emulated machines at a time: two of them on two processors would measure each other.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // A test that failed has left nothing that the next one needs.
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Text that is replaced in an example.
pub(crate) type Change<'a> = (&'a str, &'a str);

impl Running {
    /// Everything up to a dataset that is Mountable, in three shards or more; under the policy of this text.
    pub(crate) fn new(name: &str, hosts: &[&str], policy: &str, shard_bytes: u64) -> Self {
        let alone = alone();
        let mut platform = Platform::new(name, &[]);
        platform.install_probe_image(None);
        let seen = [
            ("dejima-provider", "dejima.dev/provider-jichi"),
            ("dejima-reviewer", "dejima.dev/tenant-osaka"),
        ];
        let provider = platform.world.namespace("jichi", &seen);
        let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
        platform.add_host(
            INTAKE,
            &format!("{{roles: [intake], intake: [{{namespace: {provider}, path: jichi}}]}}"),
        );
        let source = platform.sources(INTAKE).join("jichi");
        std::fs::create_dir_all(&source).unwrap();
        let mut copy = std::process::Command::new("cp");
        copy.arg("-r").arg(dicom::images(&ToStderr).unwrap()).arg(source.join("ct-mr"));
        assert!(copy.status().unwrap().success());
        platform.start_operator(None);
        platform.start_host(INTAKE, None);
        for host in hosts {
            platform.add_machine_host(host, "{roles: [machines]}");
        }
        let running = Self {
            platform,
            provider,
            tenant,
            alone,
        };
        let world = &running.platform.world;
        world.create(PROVIDER, &running.example(policy, &[])).accepted();
        let names = [
            ("usagepolicy-open.yaml", "open-2026"),
            ("usagepolicy-attested.yaml", "attested-2026"),
        ];
        let named = names
            .iter()
            .find(|(file, _)| *file == policy)
            .map_or("ct-mr-2026", |(_, name)| name);
        let pointed = format!("policyRef: {named}");
        let sharded = format!("source: {{shardBytes: {shard_bytes}, directory:");
        let dataset = [
            ("policyRef: ct-mr-2026", pointed.as_str()),
            ("source: {directory:", sharded.as_str()),
        ];
        world.create(PROVIDER, &running.example("dataset-story.yaml", &dataset)).accepted();
        world
            .run(OFFICE, &[&["label", "namespace", &running.tenant][..], &LABELS[..]].concat())
            .accepted();
        let dataset = running.dataset();
        for claim in ["approval", "agreement"] {
            running.says(OFFICE, &["attest", "dataset", &dataset, claim]);
        }
        running.platform.eventually("Mountable", || {
            running.platform.condition(&running.provider, "dataset", "ct-mr", "Mountable").0 == "True"
        });
        running
    }

    /// The platform by itself, with the provider's and the tenant's namespace; and what lets the next one begin once it is dropped.
    pub(crate) fn taken_apart(self) -> (Platform, String, String, std::sync::MutexGuard<'static, ()>) {
        (self.platform, self.provider, self.tenant, self.alone)
    }

    /// An example in this run's namespaces.
    pub(crate) fn example(&self, name: &str, changes: &[Change<'_>]) -> String {
        let places = [
            ("namespace: jichi", format!("namespace: {}", self.provider)),
            ("namespace: osaka-radiology", format!("namespace: {}", self.tenant)),
        ];
        let places = places.iter().map(|(from, to)| (*from, to.as_str()));
        example(name, &changes.iter().copied().chain(places).collect::<Vec<_>>())
    }

    /// The dataset, as commands name it.
    pub(crate) fn dataset(&self) -> String {
        format!("{}/ct-mr", self.provider)
    }

    #[track_caller]
    pub(crate) fn says(&self, login: &str, arguments: &[&str]) {
        let answer = self.platform.dejima(login, arguments);
        assert!(
            answer.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&answer.stderr)
        );
    }

    /// A project as the lead makes it.
    pub(crate) fn apply(&self, changes: &[Change<'_>]) {
        self.platform
            .world
            .create(LEAD, &self.example("isolatedproject-story.yaml", changes))
            .accepted();
    }

    pub(crate) fn project(&self) -> Value {
        self.platform.world.get(&self.tenant, "isolatedproject", PROJECT)
    }

    /// Everything that people have to say before the data is mounted; the grant.
    pub(crate) fn agree(&self) -> String {
        let (dataset, project) = (self.dataset(), format!("{}/{PROJECT}", self.tenant));
        self.says(OFFICE, &["attest", "project", &project, "ethics"]);
        self.says(LEAD, &["terms", "accept", &dataset, "--project", &project]);
        self.platform.eventually("a request", || !self.grants().is_empty());
        let grant = self.grants().remove(0);
        self.approve(&grant);
        grant
    }

    /// Two reviewers approve.
    pub(crate) fn approve(&self, grant: &str) {
        for reviewer in [BOARD_JICHI, BOARD_PLATFORM] {
            self.says(reviewer, &["review", "approve", grant]);
        }
    }

    /// The wrapped data key that lies beside a volume.
    pub(crate) fn wrapped_key(&self, host: &str, uid: &str, volume: &str) -> String {
        let path = self.platform.volumes(host).join(uid).join(format!("{volume}.key"));
        std::fs::read_to_string(path).unwrap()
    }

    /// What the key server makes of a wrapped key; nothing once it opens it no more.
    pub(crate) fn open_key(&self, uid: &str, wrapped: &str) -> Option<String> {
        let (path, wrapped) = (format!("transit/decrypt/project-{uid}"), format!("ciphertext={wrapped}"));
        let plain = self.platform.keys.run(&["write", "-field=plaintext", &path, &wrapped], None);
        plain.ok().map(|plain| plain.trim().to_owned())
    }

    /// Every request, as commands name it.
    pub(crate) fn grants(&self) -> Vec<String> {
        let all = ["get", "accessgrants", "-n", &self.provider, "-o", "name"];
        let said = self.platform.world.run(PROVIDER, &all).accepted();
        let name = |line: &str| line.rsplit_once('/').map(|(_, name)| format!("{}/{name}", self.provider));
        said.lines().filter_map(name).collect()
    }

    /// Waits until all datasets are mounted.
    #[track_caller]
    pub(crate) fn mounted(&self) {
        self.platform
            .within(60, "mounted", || self.project()["status"]["summary"]["datasets"] == "1/1");
    }

    /// The name of the domain of a machine.
    pub(crate) fn domain(&self, machine: &str) -> String {
        domain_of(&self.project(), machine)
    }

    /// A look into a machine.
    pub(crate) fn guest(&self, host: &str, machine: &str) -> Agent {
        self.look_into(host, &self.domain(machine))
    }

    pub(crate) fn look_into(&self, host: &str, domain: &str) -> Agent {
        let agent = Agent::new(&self.platform.host(host).uri(), domain);
        agent.plug_in().unwrap();
        agent.ready(60).unwrap();
        agent
    }
}

/// The name of the domain of a project's machine.
pub(crate) fn domain_of(project: &Value, machine: &str) -> String {
    let uid = project["metadata"]["uid"].as_str().unwrap().to_owned();
    let id = names::id(&uid.as_str().into(), &format!("domain/{machine}")).to_string();
    format!("dejima-{}-{machine}", &id[..8])
}

/// The serial console of a machine: where a guest does no hot-plug, no agent's port can be plugged in.
pub(crate) struct Console(std::fs::File);

impl Console {
    pub(crate) fn open(running: &Running, host: &str, machine: &str) -> Self {
        use std::os::unix::fs::OpenOptionsExt as _;
        let host = running.platform.host(host);
        let terminal = host.ask(&["ttyconsole", &running.domain(machine)], None).unwrap();
        let mut options = std::fs::File::options();
        // O_NONBLOCK and O_NOCTTY (open(2)): a terminal that says nothing is asked again.
        options.read(true).write(true).custom_flags(0o4000 | 0o400);
        Self(options.open(host.seen_at(terminal.trim())).unwrap())
    }

    /// Runs a line of shell in the guest; its status and what it said.
    pub(crate) fn run(&mut self, line: &str, seconds: u64) -> Option<(i32, String)> {
        use std::io::{Read as _, Write as _};
        // The mark is not in the line itself, which the terminal echoes.
        self.0.write_all(format!("\n{line}; echo over\"\"-$?-\n").as_bytes()).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        let mut said = Vec::new();
        while std::time::Instant::now() < end {
            let mut piece = [0; 4096];
            match self.0.read(&mut piece) {
                Ok(count) => said.extend_from_slice(&piece[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "the console is gone");
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some((before, after)) = text.split_once("over-")
                && let Some((status, _)) = after.split_once('-')
            {
                return Some((status.parse().unwrap(), before.to_owned()));
            }
        }
        None
    }
}

/// Whether a text stands somewhere below a directory.
pub(crate) fn stands(text: &str, folder: &std::path::Path) -> bool {
    let mut search = std::process::Command::new("grep");
    search.args(["-rqaF", text]).arg(folder).status().unwrap().success()
}

/// The digests of all files below a directory: `digest  ./path` lines in the order of paths.
pub(crate) fn digests(folder: &std::path::Path) -> String {
    let list = "find . -type f | LC_ALL=C sort | while read -r file; do sha256sum \"$file\"; done";
    let mut command = std::process::Command::new("sh");
    let said = command.args(["-c", list]).current_dir(folder).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
}
