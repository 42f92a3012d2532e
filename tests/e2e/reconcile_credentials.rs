//! What a host logs in with is bound to where it is, lasts shortly, and is renewed by the host itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, without_data};
use serde_json::Value;

const HOST: &str = "host-c";

/// Makes a file as old as one that is due.
fn age(file: &Path) {
    let mut touch = Command::new("touch");
    assert!(touch.args(["-d", "9 hours ago"]).arg(file).status().unwrap().success());
}

/// Logs in at the key server as a host, from an address of this machine; the status.
fn login(platform: &Platform, from: &str, role_id: &str, secret_id: &str) -> String {
    let body = format!(r#"{{"role_id": "{role_id}", "secret_id": "{secret_id}"}}"#);
    let mut command = Command::new("curl");
    command.args(["-sS", "--interface", from, "-o", "/dev/null", "-w", "%{http_code}", "-d", &body]);
    let answer = command
        .arg(format!("{}/v1/auth/approle/login", platform.keys.address()))
        .output()
        .unwrap();
    String::from_utf8(answer.stdout).unwrap()
}

/// Whether Kubernetes takes a token for the host's.
fn is_taken(platform: &Platform, token: &str) -> bool {
    let review = format!("apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {{token: \"{token}\"}}\n");
    let answer = platform
        .world
        .input(ADMIN, &["create", "-o", "json", "-f", "-"], &review)
        .accepted();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["status"]["user"]["username"] == format!("system:serviceaccount:dejima-host-{HOST}:hostd")
}

#[test]
fn a_host_renews_what_it_logs_in_with_and_nobody_uses_it_from_elsewhere() {
    let mut platform = Platform::new("credentials", &[HOST]);
    let folder = platform.host_dir(HOST);
    let own = format!("system:serviceaccount:dejima-host-{HOST}:hostd");
    let token_file: PathBuf = platform.world.plane().kubeconfig(&own).with_extension("token");
    let secret_file = folder.join("secret-id");
    let read = |file: &Path| std::fs::read_to_string(file).unwrap().trim().to_owned();
    let (role_id, first, brought) = (read(&folder.join("role-id")), read(&secret_file), read(&token_file));

    // Bound to its address: the same words from another one are refused.
    assert_eq!(login(&platform, "127.0.0.1", &role_id, &first), "200", "the control");
    assert_eq!(login(&platform, "127.0.0.2", &role_id, &first), "400");

    // Nothing is due yet.
    platform.start_operator(None);
    platform.start_host(HOST, None);
    platform.eventually("it lives", || platform.condition("", "host", HOST, "Ready").0 == "True");
    assert_eq!((read(&secret_file), read(&token_file)), (first.clone(), brought.clone()));

    // Both are due: the host renews them while it works; the old secret id opens nothing any more.
    platform.stop(HOST);
    age(&secret_file);
    age(&token_file);
    platform.start_host(HOST, None);
    platform.eventually("both are renewed", || read(&secret_file) != first && read(&token_file) != brought);
    platform.eventually("the old one is destroyed", || {
        login(&platform, "127.0.0.1", &role_id, &first) == "400"
    });
    let (second, token) = (read(&secret_file), read(&token_file));
    assert_eq!(login(&platform, "127.0.0.1", &role_id, &second), "200");
    assert_eq!(login(&platform, "127.0.0.2", &role_id, &second), "400");
    assert!(is_taken(&platform, &token) && !is_taken(&platform, &format!("{token}x")));
    let private = |file: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(file).unwrap().permissions().mode().trailing_zeros() >= 6
    };
    assert!(private(&secret_file) && private(&token_file), "somebody else reads them");

    // It works with what it has now: a project gets a key and a machine.
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, "liver-ct");

    // A host asks for tokens of its own account alone.
    let elsewhere = ["create", "token", "hostd", "-n", "dejima-host-other"];
    platform
        .world
        .run(&own, &elsewhere)
        .refused("cannot create resource \"serviceaccounts/token\"");
    let another = ["create", "token", "default", "-n", &format!("dejima-host-{HOST}")];
    platform
        .world
        .run(&own, &another)
        .refused("cannot create resource \"serviceaccounts/token\"");
    platform.world.run(&own, &["create", "token", "hostd", "-n", another[4]]).accepted();
}
