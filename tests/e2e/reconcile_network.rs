//! A project on a host with real networks: closed by rules and proved by frames before it is Ready, gone with it.

use std::path::PathBuf;
use std::process::{Child, Command};

use dejima_tests::parts::Platform;
use dejima_tests::{LEAD, example};

const HOST: &str = "host-w";

/// A network namespace that lives as long as its only process.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let namespace = Self(child);
        dejima_lab::run::await_until("a namespace", 10, "none", || {
            std::fs::read_link(namespace.path()).is_ok_and(|there| there != own)
        })
        .unwrap();
        namespace
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    fn says(&self, words: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a key opens a volume.
pub(crate) fn opens(volume: &std::path::Path, key: &str) -> bool {
    use std::io::Write as _;
    let mut command = Command::new("cryptsetup");
    command
        .args(["open", "--test-passphrase", "--type", "luks1", "--key-file", "-"])
        .arg(volume);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

#[test]
fn a_network_is_closed_and_proved_before_ready_and_leaves_nothing_behind() {
    let namespace = Namespace::new();
    let mut platform = Platform::new("network", &[HOST]);
    platform.network_in(HOST, namespace.path());
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform
        .world
        .create(
            LEAD,
            &example(
                "isolatedproject-story.yaml",
                &[("namespace: osaka-radiology", &format!("namespace: {tenant}"))],
            ),
        )
        .accepted();
    platform.ready(&tenant, "liver-ct");
    let (status, reason, message) = platform.condition(&tenant, "isolatedproject", "liver-ct", "NetworkSealed");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Proved"));
    let refused: u32 = message.split(' ').next().unwrap().parse().unwrap();
    assert!(refused >= 15, "{message}");
    assert!(namespace.says(&["ip", "-brief", "link"]).contains("djb"), "the bridge is there");
    assert!(
        namespace.says(&["nft", "list", "ruleset"]).contains("elements"),
        "the rules are there"
    );

    // Its volume opens with the key that the key server alone can unwrap, and with no other.
    let uid = platform.world.get(&tenant, "isolatedproject", "liver-ct")["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let volume = platform.volumes(HOST).join(&uid).join("work.luks");
    let wrapped = std::fs::read_to_string(volume.with_extension("key")).unwrap();
    let unwrap = |platform: &Platform| {
        platform.keys.run(
            &[
                "write",
                "-field=plaintext",
                &format!("transit/decrypt/project-{uid}"),
                &format!("ciphertext={wrapped}"),
            ],
            None,
        )
    };
    let key = unwrap(&platform).unwrap();
    assert!(opens(&volume, key.trim()) && !opens(&volume, &"A".repeat(44)));
    let kept = platform.dir().join("thief.luks");
    std::fs::copy(&volume, &kept).unwrap();

    // Somebody opens a hole: it is seen at the next look, closed, and proved anew.
    let proof = |platform: &Platform| {
        let uid = platform.world.get(&tenant, "isolatedproject", "liver-ct")["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned();
        platform
            .world
            .get(&format!("dejima-host-{HOST}"), "hostplan", &format!("project-{uid}"))["status"]["isolation"]["at"]
            .clone()
    };
    let before = proof(&platform);
    // Status carries whole seconds: the next proof is of another one.
    let since = std::time::Instant::now();
    platform.eventually("the next second", || since.elapsed() > std::time::Duration::from_millis(1100));
    namespace.says(&["nft", "flush", "ruleset"]);
    assert!(!namespace.says(&["nft", "list", "ruleset"]).contains("dejima"), "the hole is open");
    platform.start_host(HOST, None);
    platform.eventually("the hole is closed", || {
        namespace.says(&["nft", "list", "ruleset"]).contains("dejima")
    });
    platform.eventually("it was proved anew", || proof(&platform) != before);

    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", &tenant, "--timeout=30s"])
        .accepted();
    let links = namespace.says(&["ip", "-brief", "link"]);
    assert!(!links.contains("dj"), "{links}");
    let rules = namespace.says(&["nft", "list", "ruleset"]);
    assert!(!rules.contains("elements"), "{rules}");
    // What a thief kept opens with the key that was unwrapped before, and nobody unwraps it any more.
    assert!(opens(&kept, key.trim()), "the control");
    assert!(!volume.exists() && unwrap(&platform).is_err(), "the key can still be opened");
}
