//! The real key server on loopback: OpenBao with raft storage, the transit engine and AppRole logins.
//!
//! Its seal is a key file beside its storage: enough for one machine of one developer. A site seals with an HSM or a KMS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::binaries::Binaries;
use crate::children::{Running, Stay, start_for};
use crate::control_plane::free_port;
use crate::run::{Error, await_until, file, finish, succeed};

/// Its process and the log of it.
pub(crate) const PART: &str = "bao";
pub(crate) const LOG: &str = "server.log";
/// The file that names its port.
const PORT: &str = "port";

/// A running key server.
#[derive(Debug)]
pub struct KeyServer {
    dir: PathBuf,
    program: PathBuf,
    port: u16,
    token: String,
    child: Running,
}

impl KeyServer {
    /// Starts one in a directory; what the directory holds already is gone on with. Active in about 1 s.
    pub fn start(stay: Stay, binaries: &Binaries, dir: &Path) -> Result<Self, Error> {
        file("make", dir, std::fs::create_dir_all(dir.join("storage")))?;
        let (port, cluster) = (free_port()?, free_port()?);
        let seal = dir.join("seal.key");
        if !seal.exists() {
            succeed(Command::new("openssl").args(["rand", "-out"]).arg(&seal).arg("32"), None)?;
        }
        let text = format!(
            "api_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \"http://127.0.0.1:{cluster}\"\nlog_level = \"warn\"\n\
             storage \"raft\" {{\n  node_id = \"one\"\n  path = \"{}\"\n}}\n\
             seal \"static\" {{\n  current_key_id = \"one\"\n  current_key = \"file://{}\"\n}}\n\
             listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{cluster}\"\n  tls_disable = true\n}}\n",
            dir.join("storage").display(),
            seal.display()
        );
        file("write", dir, std::fs::write(dir.join("server.hcl"), text))?;
        file("write", dir, std::fs::write(dir.join(PORT), port.to_string()))?;
        let child = launch(stay, &binaries.key_server, dir)?;
        let mut server = Self {
            dir: dir.to_owned(),
            program: binaries.key_server.clone(),
            port,
            token: String::new(),
            child,
        };
        let log = dir.join(LOG).display().to_string();
        await_until("an answering key server", 30, &log, || server.state().is_some())?;
        server.token = server.initialised()?;
        await_until("an active key server", 30, &log, || server.state() == Some(false))?;
        for (kind, name) in [("secrets", "transit"), ("auth", "approle")] {
            let listed = server.run(&[kind, "list", "-format=json"], None)?;
            if !listed.contains(&format!("\"{name}/\"")) {
                server.run(&[kind, "enable", name], None)?;
            }
        }
        Ok(server)
    }

    /// The one that an earlier process started to stay; nothing where it runs no more.
    pub fn again(binaries: &Binaries, dir: &Path) -> Option<Self> {
        let mut server = Self {
            dir: dir.to_owned(),
            program: binaries.key_server.clone(),
            port: std::fs::read_to_string(dir.join(PORT)).ok()?.parse().ok()?,
            token: String::new(),
            child: Running::again(PART, &dir.join(LOG))?,
        };
        server.token = server.initialised().ok()?;
        Some(server)
    }

    fn initialised(&self) -> Result<String, Error> {
        let path = self.dir.join("init.json");
        if !path.exists() {
            let text = self.run(
                &["operator", "init", "-recovery-shares=1", "-recovery-threshold=1", "-format=json"],
                None,
            )?;
            file("write", &path, std::fs::write(&path, text))?;
        }
        let text = file("read", &path, std::fs::read_to_string(&path))?;
        let parsed: serde_json::Value = serde_json::from_str(&text).map_err(|error| Error::Unexpected(error.to_string()))?;
        parsed
            .get("root_token")
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| Error::Unexpected("the key server gave no token".into()))
    }

    /// Whether it is sealed; nothing where it does not answer.
    fn state(&self) -> Option<bool> {
        let mut command = self.command();
        let output = finish(command.args(["status", "-format=json"]), None).ok()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        status.get("sealed")?.as_bool()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("BAO_ADDR", self.address())
            .env("BAO_TOKEN", &self.token)
            .env("HOME", &self.dir);
        command
    }

    /// Where it answers.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The root token: for setting up, never for a part of the platform.
    pub fn root_token(&self) -> &str {
        &self.token
    }

    /// Runs its own client with the root token; what it says.
    pub fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String, Error> {
        succeed(self.command().args(arguments), input.map(str::as_bytes))
    }

    /// Seals it: it runs, and answers nothing but that it is sealed.
    pub fn seal(&self) -> Result<(), Error> {
        self.run(&["operator", "seal"], None)?;
        let log = self.dir.join(LOG).display().to_string();
        await_until("a sealed key server", 20, &log, || self.state() == Some(true))
    }

    /// Opens it again. What seals it by a key beside it opens as it starts, at the same address.
    pub fn unseal(&mut self) -> Result<(), Error> {
        let stay = self.child.stays();
        self.stop()?;
        self.child = launch(stay, &self.program, &self.dir)?;
        let log = self.dir.join(LOG).display().to_string();
        await_until("an active key server", 30, &log, || self.state() == Some(false))
    }

    /// Stops it and waits for its end.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.child.stop(Duration::from_secs(20))
    }
}

fn launch(stay: Stay, program: &Path, dir: &Path) -> Result<Running, Error> {
    let mut command = Command::new(program);
    command.arg("server").arg(format!("-config={}", dir.join("server.hcl").display()));
    start_for(stay, PART, &command, &dir.join(LOG))
}
