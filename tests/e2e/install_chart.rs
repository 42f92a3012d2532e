//! The chart, as a site's admin meets it: by Helm, into a cluster that has nothing of ours.

use std::process::Command;
use std::time::Duration;

use dejima_lab::children::{Stay, start_for};
use dejima_lab::control_plane::free_port;
use dejima_lab::run::{await_until, finish};
use dejima_lab::{Binaries, ToStderr, people};
use dejima_tests::parts::program;
use dejima_tests::{ADMIN, place, root};
use serde_json::{Value, json};

struct Site {
    world: dejima_lab::World,
    binaries: Binaries,
}

/// What a site writes down.
const VALUES: &str = "
workloads:
  image: {reference: \"registry.example/dejima@sha256:0000000000000000000000000000000000000000000000000000000000000000\"}
keyServer: {address: \"https://keys.example:8200\", authorities: site-authorities}
site: {zone: Asia/Tokyo, keyBackupHorizon: P30D}
groups: {office: [site:office], reviewers: [site:board], hostAdmins: [site:admins]}
hosts:
  - {name: host-a, spec: {roles: [machines], country: JP}}
  - {name: host-b, spec: {roles: [intake], intake: [{namespace: jichi, path: ct}]}}
";

impl Site {
    fn helm(&self, arguments: &[&str], values: &str) -> (bool, String) {
        let mut helm = self.world.helm(&self.binaries.helm);
        let chart = root().join("charts/dejima").display().to_string();
        helm.args(arguments.iter().map(|word| if *word == "CHART" { chart.as_str() } else { word }));
        let output = finish(&mut helm, Some(values.as_bytes())).unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    }

    fn install(&self, values: &str) -> (bool, String) {
        let words = [
            "install",
            "dejima",
            "CHART",
            "--namespace",
            "dejima-system",
            "--create-namespace",
            "--values",
            "-",
        ];
        self.helm(&words, values)
    }

    /// What Kubernetes answers about a login in these groups: verb, resource, name, namespace (empty: everywhere).
    fn may(&self, login: &str, groups: &[&str], asks: [&str; 4]) -> bool {
        let [verb, resource, name, namespace] = asks;
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let attributes = json!({"verb": verb, "resource": resource, "group": group, "name": name, "namespace": namespace});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": login, "groups": groups, "resourceAttributes": attributes},
        });
        let words = ["create", "-f", "-", "-o", "jsonpath={.status.allowed}"];
        self.world.input(ADMIN, &words, &review.to_string()).ok().unwrap() == "true"
    }

    /// As the chart's workload runs it, with a certificate of the lab's authority.
    fn the_api_speaks_tls(&self) {
        let dir = self.world.dir();
        let login = "system:serviceaccount:dejima-system:api";
        self.world.plane().service_account("dejima-system", "api").unwrap();
        let port = free_port().unwrap();
        let mut api = Command::new(program());
        api.arg("--kubeconfig").arg(self.world.plane().kubeconfig(login));
        api.arg("api")
            .arg("--ledger")
            .arg(dir.join("ledger"))
            .args(["--listen", &format!("0.0.0.0:{port}")]);
        let refused = finish(&mut api, None).unwrap();
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("callers send their tokens"));
        for (flag, name) in [("--tls-certificate", "server.crt"), ("--tls-key", "server.key")] {
            api.arg(flag).arg(dir.join(name));
        }
        let mut running = start_for(Stay::WithStarter, "api", &api, &dir.join("dejima-api.log")).unwrap();
        let ask = |scheme: &str| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--cacert"]).arg(dir.join("ca.crt"));
            let output = finish(curl.arg(format!("{scheme}://127.0.0.1:{port}/readyz")), None).unwrap();
            output.status.success()
        };
        await_until("an answer over TLS", 20, "dejima-api.log", || ask("https")).unwrap();
        assert!(!ask("http"), "it answers in the clear as well");
        running.stop(Duration::from_secs(10)).unwrap();
    }

    fn is_there(&self, words: &[&str]) -> bool {
        self.world.run(ADMIN, &[&["get"][..], words].concat()).accepted
    }
}

#[test]
fn a_site_installs_the_chart_by_helm_and_nothing_of_worth_goes_with_it() {
    let binaries = Binaries::get(&ToStderr).unwrap();
    let world = dejima_lab::World::bare(Stay::WithStarter, &binaries, &place("chart"), &people::cast()).unwrap();
    let site = Site { world, binaries };

    let (good, said) = site.helm(&["lint", "CHART", "--strict", "--values", "-"], VALUES);
    assert!(good, "{said}");

    // What cannot be is refused in words, before anything is installed.
    for (from, to, because) in [
        ("registry.example/dejima@sha256:", "registry.example/dejima:latest#", "reference"),
        ("https://keys.example:8200", "http://keys.example:8200", "address"),
        ("country: JP", "country: Japan", "country"),
        (
            "keyServer: {address: \"https://keys.example:8200\", ",
            "keyServer: {",
            "where OpenBao or Vault answers",
        ),
    ] {
        assert!(VALUES.contains(from), "{from}");
        let (good, said) = site.install(&VALUES.replace(from, to));
        assert!(!good && said.contains(because), "{to}: {said}");
        site.helm(&["uninstall", "dejima", "--namespace", "dejima-system", "--ignore-not-found"], "");
    }
    let elsewhere = ["install", "dejima", "CHART", "--namespace", "default", "--values", "-"];
    let (good, said) = site.helm(&elsewhere, VALUES);
    assert!(!good && said.contains("--namespace dejima-system"), "{said}");

    let (good, said) = site.install(VALUES);
    assert!(good, "{said}");
    for workload in ["dejima-operator", "dejima-api"] {
        let deployment = site.world.get("dejima-system", "deployment", workload).unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let confined = &pod["containers"][0]["securityContext"];
        assert_eq!(confined["readOnlyRootFilesystem"], true, "{deployment:#}");
        assert_eq!(confined["capabilities"]["drop"], json!(["ALL"]));
        assert!(pod["containers"][0]["image"].as_str().unwrap().contains("@sha256:"));
    }
    let config = site.world.get("dejima-system", "configmap", "dejima-site").unwrap();
    let written: Value = serde_yaml::from_str(config["data"]["site.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(written["keyBackupHorizon"], "P30D");

    // Narrow: a host sees its own namespace only, and each refusal has its control.
    let host = "system:serviceaccount:dejima-host-host-a:hostd";
    assert!(site.may(host, &[], ["list", "hostplans.dejima.dev", "", "dejima-host-host-a"]));
    assert!(!site.may(host, &[], ["list", "hostplans.dejima.dev", "", "dejima-host-host-b"]));
    assert!(!site.may(host, &[], ["list", "isolatedprojects.dejima.dev", "", ""]));
    assert!(site.may("someone", &["site:office"], ["attest", "claims.dejima.dev", "ethics", ""]));
    assert!(!site.may("someone", &["site:board"], ["attest", "claims.dejima.dev", "ethics", ""]));
    let operator = "system:serviceaccount:dejima-system:operator";
    assert!(site.may(operator, &[], ["patch", "isolatedprojects.dejima.dev", "", ""]));
    assert!(!site.may(operator, &[], ["get", "secrets", "", ""]));
    let api = "system:serviceaccount:dejima-system:api";
    assert!(site.may(api, &[], ["create", "subjectaccessreviews.authorization.k8s.io", "", ""]));
    assert!(!site.may(api, &[], ["impersonate", "users", "", ""]));
    assert!(!site.may(api, &[], ["patch", "isolatedprojects.dejima.dev", "", ""]));

    site.the_api_speaks_tls();

    // The same again changes nothing; then it goes, and data, hosts and the ledger's volume stay.
    let again = ["upgrade", "dejima", "CHART", "--namespace", "dejima-system", "--values", "-"];
    let (good, said) = site.helm(&again, VALUES);
    assert!(good, "{said}");
    let (good, said) = site.helm(&["uninstall", "dejima", "--namespace", "dejima-system"], "");
    assert!(good, "{said}");
    for kept in [
        &["crd", "isolatedprojects.dejima.dev"][..],
        &["host", "host-a"],
        &["namespace", "dejima-host-host-a"],
        &["pvc", "dejima-ledger", "-n", "dejima-system"],
    ] {
        assert!(site.is_there(kept), "{kept:?} went with the chart");
    }
    for gone in [
        &["validatingadmissionpolicy", "dejima-marks"][..],
        &["deployment", "dejima-operator", "-n", "dejima-system"],
    ] {
        assert!(!site.is_there(gone), "{gone:?} stayed");
    }
    let (good, said) = site.install(VALUES);
    assert!(good, "what stayed is taken over: {said}");
}

#[test]
fn the_unit_of_a_host_is_one_that_systemd_understands() {
    let folder = place("unit");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("dejima-hostd.service");
    let complaints = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let output = finish(verify.args(["verify", "--man=no"]).arg(&path), None).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Of other units it says what it finds as well; and the program is not installed on the machine that tests.
        let ours = said
            .lines()
            .filter(|line| line.contains("dejima-hostd") && !line.contains("is not executable"));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    let unit = std::fs::read_to_string(root().join("charts/hostd/dejima-hostd.service")).unwrap();
    assert_eq!(complaints(&unit), Vec::<String>::new());
    let misspelt = unit.replace("MemorySwapMax=", "MemorySwapMaximum=");
    assert_eq!(complaints(&misspelt).len(), 1, "the control");
}

#[test]
fn what_the_unit_tells_the_agent_is_what_the_agent_can_be_told() {
    let text = std::fs::read_to_string(root().join("charts/hostd/hostd.env")).unwrap();
    let help = finish(Command::new(program()).args(["hostd", "--help"]), None).unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let told = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='));
    for (name, _) in told {
        assert!(help.contains(&format!("env: {name}")), "`dejima hostd` knows no {name}");
    }
}

#[test]
fn the_doctor_says_what_this_machine_lacks_and_how_to_mend_it() {
    let doctor = |keys: &str, lang: &str| {
        let mut command = Command::new(program());
        let words = [
            "doctor",
            "--lang",
            lang,
            "--role",
            "machines",
            "--libvirt",
            "test:///default",
            "--keys",
            keys,
        ];
        let output = finish(command.args(words), None).unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, said) = doctor("http://keys.example:8200", "en");
    assert!(!good, "{said}");
    let line = |about: &str| {
        said.lines()
            .find(|line| line.split_whitespace().nth(1) == Some(about))
            .unwrap()
            .to_owned()
    };
    assert!(line("key-server").starts_with("lacking"), "{said}");
    assert!(line("programs").starts_with("good"), "{said}");
    assert!(said.contains("in the clear on loopback alone"));
    let (_, said) = doctor("http://keys.example:8200", "ja");
    assert!(said.contains("暗号なしはループバックだけ"), "{said}");
    let (_, said) = doctor("https://keys.example:8200", "en");
    assert!(
        said.lines().any(|line| line.starts_with("good    key-server")),
        "the control: {said}"
    );
}
