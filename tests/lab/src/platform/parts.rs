//! Our own parts: the binary `dejima` in its roles.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use super::Platform;
use crate::children::{Running, start_for};
use crate::host::Network;
use crate::people::{ADMIN, OFFICE};
use crate::run::{Error, file, finish};

/// The file that names where the API answers.
pub(super) const ADDRESS: &str = "api.address";

pub(super) const API: &str = "dejima-api";

impl Platform {
    /// The log of a part.
    pub fn log(&self, part: &str) -> PathBuf {
        self.setup.dir.join(format!("{part}.log"))
    }

    /// Where the API answers.
    pub fn api_address(&self) -> String {
        format!("http://{}", self.api)
    }

    /// The program with what every part needs.
    fn part(&self, mut command: Command, part: &str, login: &str, faults: Option<&Value>) -> Result<Command, Error> {
        command
            .arg("--kubeconfig")
            .arg(self.world.plane().kubeconfig(login))
            .env("DEJIMA_KEYS", self.keys.address())
            .env("DEJIMA_API", self.api_address())
            .env("DEJIMA_LOG", "info,dejima=debug")
            .env_remove("DEJIMA_FAULTS");
        if let Some(faults) = faults {
            let path = self.setup.dir.join(format!("faults-{part}.json"));
            file("write", &path, std::fs::write(&path, faults.to_string()))?;
            command.env("DEJIMA_FAULTS", path);
        }
        Ok(command)
    }

    fn run_part(&mut self, part: &str, command: &Command, behind: bool) -> Result<(), Error> {
        let running = start_for(self.setup.stay, part, command, &self.log(part))?;
        let running = if behind { running.behind() } else { running };
        self.running.insert(part.to_owned(), running);
        Ok(())
    }

    /// Starts the API, which holds the ledger.
    pub fn start_api(&mut self) -> Result<(), Error> {
        self.stop(API)?;
        let login = "system:serviceaccount:dejima-system:api";
        let mut command = self.part(Command::new(self.program()), API, login, None)?;
        command
            .args(["api", "--listen", &self.api, "--ledger"])
            .arg(self.setup.dir.join("ledger"));
        self.run_part(API, &command, false)
    }

    /// Starts the operator.
    pub fn start_operator(&mut self, faults: Option<&Value>) -> Result<(), Error> {
        self.start_operator_as("operator", faults)
    }

    /// Starts a second operator beside the first, as an update that does not wait would.
    pub fn start_second_operator(&mut self) -> Result<(), Error> {
        self.start_operator_as("operator-2", None)
    }

    fn start_operator_as(&mut self, part: &str, faults: Option<&Value>) -> Result<(), Error> {
        self.stop(part)?;
        let login = "system:serviceaccount:dejima-system:operator";
        let mut command = self.part(Command::new(self.program()), part, login, faults)?;
        command
            .args(["operator", "--keys-token-file"])
            .arg(self.setup.dir.join("operator.token"))
            .arg("--site")
            .arg(self.setup.dir.join("site.yaml"));
        self.run_part(part, &command, false)?;
        self.await_admission()
    }

    /// What people write counts from when the operator has seen every admission policy refuse.
    fn await_admission(&self) -> Result<(), Error> {
        let words = ["get", "configmap", "dejima-admission", "-n", "dejima-system"];
        self.eventually("admission that was seen to stand", 30, || self.world.run(ADMIN, &words).accepted)
    }

    /// Starts operator and API in one process, instead of the two; each has the kubeconfig of its own, the process has none.
    pub fn start_serve(&mut self) -> Result<(), Error> {
        self.stop("operator")?;
        self.stop(API)?;
        let mut command = Command::new(self.program());
        command
            .args(["--kubeconfig", "none", "serve", "--listen", &self.api, "--ledger"])
            .arg(self.setup.dir.join("ledger"))
            .env("DEJIMA_KEYS", self.keys.address())
            .env("DEJIMA_API", self.api_address())
            .env("DEJIMA_LOG", "info,dejima=debug")
            .env_remove("DEJIMA_FAULTS");
        for (flag, name) in [("--operator-kubeconfig", "operator"), ("--api-kubeconfig", "api")] {
            let login = format!("system:serviceaccount:dejima-system:{name}");
            command.arg(flag).arg(self.world.plane().kubeconfig(&login));
        }
        command.arg("--keys-token-file").arg(self.setup.dir.join("operator.token"));
        command.arg("--site").arg(self.setup.dir.join("site.yaml"));
        self.run_part("serve", &command, false)?;
        self.await_admission()
    }

    /// Starts the agent of a host: inside it, where it is one that runs machines.
    pub fn start_host(&mut self, host: &str, faults: Option<&Value>) -> Result<(), Error> {
        self.stop(host)?;
        let login = format!("system:serviceaccount:dejima-host-{host}:hostd");
        let program = match self.hosts.get(host) {
            Some(inside) => inside.command(self.program(), Network::Machine),
            None => Command::new(self.program()),
        };
        let mut command = self.part(program, host, &login, faults)?;
        let folder = self.host_dir(host);
        command.args(["hostd", "--retry-ms", "100", "--host", host, "--state"]).arg(&folder);
        for (flag, name) in [("--role-id-file", "role-id"), ("--secret-id-file", "secret-id")] {
            command.arg(flag).arg(folder.join(name));
        }
        let intake = self.setup.dir.join("sources").join(host);
        if let Some(inside) = self.hosts.get(host) {
            let store = self.image_store();
            file("make", &store, std::fs::create_dir_all(&store))?;
            command.args(["--drivers", "libvirt", "--libvirt", "qemu:///system", "--run", "/run/dejima"]);
            command.arg("--cache").arg(inside.images().join("fetched"));
            command.arg("--volumes").arg(self.volumes(host)).arg("--image-store").arg(store);
            command.args(["--network-namespace", "/proc/1/ns/net"]);
        } else if intake.exists() {
            command.args(["--drivers", "none", "--intake"]).arg(intake);
            command.arg("--image-store").arg(self.image_store());
        } else {
            command.args(["--drivers", "memory"]);
        }
        if let Some(namespace) = self.namespaces.get(host) {
            command.arg("--network-namespace").arg(namespace);
            command.arg("--volumes").arg(self.volumes(host));
        }
        self.run_part(host, &command, self.hosts.contains_key(host))
    }

    /// Stops a part, where it runs. Of a host it is the agent: machines go on.
    pub fn stop(&mut self, part: &str) -> Result<(), Error> {
        match self.running.remove(part) {
            Some(mut running) => running.stop(Duration::from_secs(10)),
            None => Ok(()),
        }
    }

    /// Whether a part still runs.
    pub fn runs(&mut self, part: &str) -> bool {
        self.running.get_mut(part).is_some_and(Running::is_running)
    }

    /// Sends a signal to a part.
    pub fn signal(&self, part: &str, signal: nix::sys::signal::Signal) {
        if let Some(running) = self.running.get(part) {
            running.signal(signal);
        }
    }

    /// The pid of a host's agent, seen from the machine.
    pub fn hostd_pid(&self, host: &str) -> Option<u32> {
        self.running.get(host).map(Running::pid)
    }

    /// Runs the binary as a person, whatever way it ends.
    pub fn dejima(&self, login: &str, arguments: &[&str]) -> Result<Output, Error> {
        let kubeconfig = self.world.plane().kubeconfig(login);
        let mut command = Command::new(self.program());
        finish(command.arg("--kubeconfig").arg(kubeconfig).args(arguments), None)
    }

    /// Asks the API as a login; the status and the body.
    pub fn ask(&self, login: &str, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), Error> {
        let token = self.world.token(login)?;
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, "-w", "\n%{http_code}"]);
        for header in [&format!("Authorization: Bearer {token}"), "Content-Type: application/json"] {
            command.args(["-H", header]);
        }
        if let Some(body) = body {
            command.args(["-d", &body.to_string()]);
        }
        let output = finish(command.arg(format!("{}{path}", self.api_address())), None)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        Ok((status.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or_default()))
    }

    /// Every record, as the office reads them.
    pub fn records(&self) -> Result<Vec<Value>, Error> {
        let (status, answer) = self.ask(OFFICE, "GET", "/api/v1/records?count=1000", None)?;
        match answer.get("records").and_then(Value::as_array) {
            Some(records) if status == 200 => Ok(records.clone()),
            _ => Err(Error::Unexpected(format!("the API answered {status}: {answer}"))),
        }
    }

    /// What a host that only remembers remembers.
    pub fn remembered(&self, host: &str) -> Result<Value, Error> {
        let path = self.host_dir(host).join("world.json");
        if !Path::new(&path).exists() {
            return Ok(json!({"projects": {}}));
        }
        let text = file("read", &path, std::fs::read(&path))?;
        serde_json::from_slice(&text).map_err(|cause| Error::Unexpected(format!("`{}`: {cause}", path.display())))
    }
}
