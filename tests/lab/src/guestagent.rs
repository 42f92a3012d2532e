//! A look into a running guest: commands through the QEMU guest agent. For tests alone; the platform needs no agent.

use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::run::{Error, await_until, finish, succeed};

/// The agent of one domain.
#[derive(Clone, Debug)]
pub struct Agent {
    uri: String,
    domain: String,
}

/// What a command in the guest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended; a signal counts as 128 and its number.
    pub status: i64,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

impl Ran {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        self.status == 0
    }
}

const PORT: &str = "org.qemu.guest_agent.0";

impl Agent {
    /// The agent of a domain at a libvirt address.
    pub fn new(uri: &str, domain: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            domain: domain.to_owned(),
        }
    }

    fn virsh(&self, words: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        command.args(["--quiet", "--connect", &self.uri]).args(words);
        command
    }

    /// Plugs the agent's port into a running domain that was defined without one; the lab's guest then starts its agent.
    /// A guest that does no hot-plug must have the port from the beginning.
    pub fn plug_in(&self) -> Result<(), Error> {
        let definition = succeed(&mut self.virsh(&["dumpxml", &self.domain]), None)?;
        if definition.contains(PORT) {
            return Ok(());
        }
        let port = format!("<channel type='unix'><target type='virtio' name='{PORT}'/></channel>");
        if !definition.contains("type='virtio-serial'") {
            self.attach("<controller type='virtio-serial' index='0'/>")?;
        }
        self.attach(&port)
    }

    fn attach(&self, device: &str) -> Result<(), Error> {
        let mut attach = self.virsh(&["attach-device", &self.domain, "/dev/stdin", "--live"]);
        succeed(&mut attach, Some(device.as_bytes())).map(drop)
    }

    /// Waits until the agent answers: some 5 to 10 s after the start of an emulated machine.
    pub fn ready(&self, seconds: u64) -> Result<(), Error> {
        await_until(&format!("the agent of `{}`", self.domain), seconds, &self.uri, || {
            self.ask(&json!({"execute": "guest-ping"})).is_ok()
        })
    }

    fn ask(&self, request: &Value) -> Result<Value, Error> {
        let text = request.to_string();
        let mut command = self.virsh(&["qemu-agent-command", "--timeout", "5", &self.domain, &text]);
        let output = finish(&mut command, None)?;
        if !output.status.success() {
            return Err(Error::Failed {
                command: format!("agent of {}", self.domain),
                status: output.status.to_string(),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|cause| Error::Unexpected(cause.to_string()))?;
        answer
            .get("return")
            .cloned()
            .ok_or_else(|| Error::Unexpected(format!("the agent of `{}` answered {answer}", self.domain)))
    }

    /// Runs a shell command in the guest, whatever way it ends; late after `seconds`.
    pub fn run(&self, command: &str, seconds: u64) -> Result<Ran, Error> {
        self.run_with(command, None, seconds)
    }

    /// The same with something on its standard input.
    pub fn run_with(&self, command: &str, input: Option<&[u8]>, seconds: u64) -> Result<Ran, Error> {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut arguments = json!({"path": "/bin/sh", "arg": ["-c", command], "env": [path], "capture-output": true});
        if let (Some(bytes), Some(map)) = (input, arguments.as_object_mut()) {
            map.insert("input-data".into(), Value::String(STANDARD.encode(bytes)));
        }
        let started = self.ask(&json!({"execute": "guest-exec", "arguments": arguments}))?;
        let pid = started
            .get("pid")
            .and_then(Value::as_i64)
            .ok_or_else(|| Error::Unexpected("the agent gave no pid".into()))?;
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let seen = self.ask(&json!({"execute": "guest-exec-status", "arguments": {"pid": pid}}))?;
            if seen.get("exited").and_then(Value::as_bool) == Some(true) {
                return Ok(ran(&seen));
            }
            if Instant::now() > end {
                return Err(Error::Late {
                    what: format!("the end of `{command}` in `{}`", self.domain),
                    seconds,
                    log: self.uri.clone(),
                });
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Runs a shell command in the guest that must succeed; its standard output without the last line break.
    pub fn succeed(&self, command: &str, seconds: u64) -> Result<String, Error> {
        let ran = self.run(command, seconds)?;
        if ran.is_success() {
            return Ok(ran.output.trim_end().to_owned());
        }
        Err(Error::Failed {
            command: format!("{command} (in `{}`)", self.domain),
            status: ran.status.to_string(),
            output: format!("{}{}", ran.output, ran.errors).trim().to_owned(),
        })
    }
}

fn ran(seen: &Value) -> Ran {
    let text = |key: &str| {
        let encoded = seen.get(key).and_then(Value::as_str).unwrap_or_default();
        String::from_utf8_lossy(&STANDARD.decode(encoded).unwrap_or_default()).into_owned()
    };
    let number = |key: &str| seen.get(key).and_then(Value::as_i64);
    Ran {
        status: number("exitcode")
            .or_else(|| number("signal").map(|signal| 128 + signal))
            .unwrap_or(-1),
        output: text("out-data"),
        errors: text("err-data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_answers_is_read() {
        let seen = json!({"exited": true, "exitcode": 3, "out-data": "b25lCg==", "err-data": "dHdv"});
        assert_eq!(
            ran(&seen),
            Ran {
                status: 3,
                output: "one\n".into(),
                errors: "two".into()
            }
        );
        assert_eq!(ran(&json!({"exited": true, "signal": 9})).status, 137);
    }
}
