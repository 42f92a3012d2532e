//! `docs/install.md` and `docs/operate.md`, run: every block of them, in its order, by whom it says, on real parts. What is done every
//! day is done before everything is taken away again.
//!
//! No kubelet and no systemd run here: what the chart asks a kubelet to run, and what the unit asks systemd to run, this test
//! starts, with exactly the arguments, variables, secrets and configuration that stand there.

use std::path::{Path, PathBuf};
use std::process::Command;

use dejima_lab::children::{Running, Stay, start_for};
use dejima_lab::control_plane::free_port;
use dejima_lab::host::Network;
use dejima_lab::run::finish;
use dejima_lab::{Binaries, Guest, Host, KeyServer, ToStderr, World, dicom, guest, people};
use dejima_tests::parts::program;
use dejima_tests::{LEAD, OFFICE, PROVIDER, place, root};
use serde_json::Value;

/// A block of the guide: who runs it, and what.
struct Block {
    who: String,
    text: String,
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut all = Vec::new();
    let mut open: Option<Block> = None;
    for line in guide.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(said)) => {
                let who = said.strip_prefix("sh").map(str::trim);
                open = Some(Block {
                    who: who.unwrap_or("nobody").to_owned(),
                    text: String::new(),
                });
            }
            (Some(block), None) => block.text.extend([line, "\n"]),
            (Some(_), Some(_)) => all.extend(open.take()),
            (None, None) => {}
        }
    }
    all
}

struct Site {
    dir: PathBuf,
    world: World,
    keys: KeyServer,
    host: Host,
    api: u16,
    running: Vec<Running>,
}

impl Site {
    /// Runs a block as one shell does that has run all before it; the shell's own variables are carried on in a file.
    fn run(&self, block: &Block, kubeconfig: &Path, inside: bool) {
        let variables = self.dir.join("variables");
        let script = format!(
            "set -euo pipefail\nset -a\n. {0}\nset +a\n{1}\nfor name in BAO_ADDR DEJIMA_API IMAGE MACHINE INTAKE MACHINE_ADDRESS INTAKE_ADDRESS; do declare -p $name; done >{0}\n",
            variables.display(),
            block.text
        );
        let mut command = if inside {
            self.host.command(Path::new("bash"), Network::Machine)
        } else {
            Command::new("bash")
        };
        let path = std::env::var("PATH").unwrap();
        command
            .args(["-c", &format!("cd {}\n{script}", self.dir.display())])
            .env("PATH", format!("{}:{path}", self.dir.join("bin").display()))
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", &self.dir)
            .env("ETC", self.dir.join("etc"))
            .env("BAO_TOKEN", self.keys.root_token())
            .env("DEJIMA_KEYS", self.keys.address())
            .env_remove("DEJIMA_FAULTS");
        let output = finish(&mut command, None).unwrap();
        assert!(
            output.status.success(),
            "{}\n{}{}\n{}",
            block.text,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
    }

    fn logs(&self) -> String {
        let end = |part: &str| {
            let text = std::fs::read_to_string(self.dir.join(format!("{part}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {part}\n{}", lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        ["dejima-api", "dejima-operator", "host-a", "intake-1"].map(end).join("\n")
    }

    fn start(&mut self, name: &str, command: &Command) {
        let log = self.dir.join(format!("{name}.log"));
        self.running.push(start_for(Stay::WithStarter, name, command, &log).unwrap());
    }

    /// What a kubelet would run for a deployment: its arguments and variables, with its secrets and configuration as files.
    fn pod(&mut self, deployment: &str, account: &str) {
        let object = self.world.get("dejima-system", "deployment", deployment).unwrap();
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], account);
        let container = &pod["containers"][0];
        let folder = self.dir.join("pods").join(deployment);
        let mut places = Vec::new();
        for mount in container["volumeMounts"].as_array().unwrap() {
            let volumes = pod["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let here = folder.join(mount["name"].as_str().unwrap());
            std::fs::create_dir_all(&here).unwrap();
            for (name, bytes) in self.files(volume) {
                std::fs::write(here.join(name), bytes).unwrap();
            }
            places.push((mount["mountPath"].as_str().unwrap().to_owned(), here.display().to_string()));
        }
        let api = self.api;
        let placed = |text: &Value| {
            let text = places
                .iter()
                .fold(text.as_str().unwrap().to_owned(), |text, (from, to)| text.replace(from, to));
            // The address of the service, as a cluster's network would bring it here.
            let text = text.replace("https://dejima-api.dejima-system.svc", &format!("https://127.0.0.1:{api}"));
            text.replace("0.0.0.0:7443", &format!("127.0.0.1:{api}"))
        };
        let kubeconfig = self.world.plane().service_account("dejima-system", account).unwrap();
        let mut command = Command::new(program());
        command.arg("--kubeconfig").arg(kubeconfig).env_remove("DEJIMA_FAULTS");
        command.args(container["args"].as_array().unwrap().iter().map(placed));
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), placed(&variable["value"]));
        }
        self.start(deployment, &command);
    }

    fn files(&self, volume: &Value) -> Vec<(String, Vec<u8>)> {
        let (kind, name) = match (volume["secret"]["secretName"].as_str(), volume["configMap"]["name"].as_str()) {
            (Some(name), _) => ("secret", name),
            (_, Some(name)) => ("configmap", name),
            // A claim: an empty directory.
            _ => return Vec::new(),
        };
        let object = self.world.get("dejima-system", kind, name).unwrap();
        let bytes = |value: &Value| {
            let text = value.as_str().unwrap();
            if kind == "secret" {
                let mut decode = Command::new("base64");
                return finish(decode.arg("--decode"), Some(text.as_bytes())).unwrap().stdout;
            }
            text.as_bytes().to_vec()
        };
        let data = object["data"].as_object().unwrap();
        data.iter().map(|(name, value)| (name.clone(), bytes(value))).collect()
    }

    /// What systemd would run for the unit, from what was brought to the host.
    fn unit(&mut self, host: &str, inside: bool) {
        let text = std::fs::read_to_string(root().join("charts/hostd/dejima-hostd.service")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let (binary, words) = line.split_once(' ').unwrap();
        assert_eq!(binary, "/usr/bin/dejima");
        let mut command = if inside {
            self.host.command(&program(), Network::Machine)
        } else {
            Command::new(program())
        };
        command.args(words.split(' ')).env_remove("DEJIMA_FAULTS");
        let brought = self.dir.join(format!("for-{host}"));
        let places = [
            ("/etc/dejima", brought.clone()),
            ("/var/lib/dejima/image-store", self.dir.join("image-store")),
            // QEMU reads below the directory of its host.
            (
                "/var/lib/dejima",
                if inside {
                    self.host.images()
                } else {
                    self.dir.join("state-of-intake")
                },
            ),
            ("/srv/dejima", self.dir.join("srv")),
        ];
        let told = std::fs::read_to_string(brought.join("hostd.env")).unwrap();
        for (name, value) in told
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
        {
            let place = places
                .iter()
                .find_map(|(from, to)| Some(format!("{}{}", to.display(), value.strip_prefix(from)?)));
            command.env(name, place.unwrap_or_else(|| value.to_owned()));
        }
        command.env("SSL_CERT_FILE", self.dir.join("ca.crt"));
        self.start(host, &command);
    }
}

/// What a site brings: programs, a certificate, authorities, sources, and what machines boot.
fn brought(dir: &Path, world: &World, binaries: &Binaries, api: u16, keys: &str) {
    for folder in ["bin", "etc/systemd/system", "srv/intake/jichi", "image-store/images/probe"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let kubectl = world.plane().kubectl_program();
    let programs = [
        ("kubectl", kubectl.to_owned()),
        ("helm", binaries.helm.clone()),
        ("bao", binaries.key_server.clone()),
        ("dejima", program()),
        ("kubectl-dejima", program()),
    ];
    for (name, to) in programs {
        std::os::unix::fs::symlink(to, dir.join("bin").join(name)).unwrap();
    }
    // It is only told what to start: this test starts it.
    let systemctl = dir.join("bin/systemctl");
    std::fs::write(&systemctl, format!("#!/bin/sh\necho \"$*\" >>{}/systemctl\n", dir.display())).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&systemctl).status().unwrap().success());
    for folder in ["charts", "examples", "crds"] {
        std::os::unix::fs::symlink(root().join(folder), dir.join(folder)).unwrap();
    }
    for (from, to) in [("server.crt", "api.crt"), ("server.key", "api.key"), ("ca.crt", "ca.crt")] {
        std::fs::copy(world.dir().join(from), dir.join(to)).unwrap();
    }
    let here = "MACHINE_ADDRESS=127.0.0.1\nINTAKE_ADDRESS=127.0.0.1\n";
    let variables = format!("BAO_ADDR={keys}\nDEJIMA_API=https://127.0.0.1:{api}\nIMAGE=\nMACHINE=\nINTAKE=\n{here}");
    std::fs::write(dir.join("variables"), variables).unwrap();
    let images = dicom::images(&ToStderr).unwrap();
    let mut copy = Command::new("cp");
    assert!(
        copy.arg("-r")
            .arg(images)
            .arg(dir.join("srv/intake/jichi/ct-mr"))
            .status()
            .unwrap()
            .success()
    );
    let probe = Guest::get(&ToStderr).unwrap();
    let digest = |name: &str, from: &Path| {
        let to = dir.join("image-store/images/probe").join(name);
        std::fs::copy(from, &to).unwrap();
        let said = finish(Command::new("sha256sum").arg(&to), None).unwrap();
        String::from_utf8_lossy(&said.stdout).split_whitespace().next().unwrap().to_owned()
    };
    let (kernel, initrd) = (digest("kernel", &probe.kernel), digest("initrd", &probe.initrd));
    let image = format!(
        "apiVersion: dejima.dev/v1alpha1\nkind: MachineImage\nmetadata: {{name: probe}}\nspec: {{format: kernel-initrd, guest: probe, boot: {{kernel: \
         {{path: images/probe/kernel, digest: \"sha256:{kernel}\", initrd: images/probe/initrd, initrdDigest: \"sha256:{initrd}\", commandLine: \"{}\"}}}}}}\n",
        guest::COMMAND_LINE
    );
    std::fs::write(dir.join("image.yaml"), image).unwrap();
}

#[test]
fn a_sites_first_day_goes_as_the_guide_says() {
    let _alone = crate::running::alone();
    let binaries = Binaries::get(&ToStderr).unwrap();
    let dir = place("guide");
    let world = World::bare(Stay::WithStarter, &binaries, &dir.join("cluster"), &people::cast()).unwrap();
    let keys = KeyServer::start(Stay::WithStarter, &binaries, &dir.join("keys")).unwrap();
    let host = Host::start(&format!("{}-guide", std::process::id()), "host-a").unwrap();
    let api = free_port().unwrap();
    brought(&dir, &world, &binaries, api, &keys.address());
    let mut site = Site {
        dir,
        world,
        keys,
        host,
        api,
        running: Vec::new(),
    };
    let read = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (install, operate) = (read("install.md"), read("operate.md"));
    let (first, last) = install.split_once("## Taking it away").unwrap();
    let parts = [first, operate.as_str(), last].map(blocks);
    for (part, at_least) in parts.iter().zip([12, 7, 2]) {
        assert!(part.len() >= at_least, "blocks are missing");
    }
    let admin = site.world.plane().kubeconfig("admin");
    for block in parts.iter().flatten() {
        match block.who.as_str() {
            "" => site.run(block, &admin, false),
            "host" => site.run(block, &admin, true),
            "office" => site.run(block, &site.world.plane().kubeconfig(OFFICE), false),
            "lead" => site.run(block, &site.world.plane().kubeconfig(LEAD), false),
            "provider" => site.run(block, &site.world.plane().kubeconfig(PROVIDER), false),
            other => panic!("nobody here is `{other}`: {}", block.text),
        }
        if block.text.contains("helm install") {
            site.pod("dejima-api", "api");
            site.pod("dejima-operator", "operator");
        }
        if block.text.contains("systemctl enable") {
            let told = std::fs::read_to_string(site.dir.join("systemctl")).unwrap();
            assert_eq!(told, "enable --now dejima-hostd\n");
            site.unit("host-a", true);
            site.unit("intake-1", false);
        }
    }
    while let Some(mut part) = site.running.pop() {
        part.stop(std::time::Duration::from_secs(10)).unwrap();
    }
    site.host.remove().unwrap();
}
