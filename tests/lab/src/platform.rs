//! A whole platform: control plane, key server, hosts, and our own parts as black boxes under the narrow identities that the chart gives them.
//!
//! ```text
//! Setup::dir                      everything but what QEMU must read
//!    kubeconfigs/LOGIN.yaml       of people and parts
//!    PART.log                     of operator, API and each host's agent
//!    hosts/HOST                   what the agent of a host keeps, its identity at the key server
//!    image-store                  sealed shards, and what machines boot
//! /var/lib/dejima-lab/NAME/HOST   a host that runs machines: its images, and below `hostd` what its agent keeps
//! ```

mod later;
mod parts;

pub use later::{Names, end};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::children::{Running, Stay};
use crate::control_plane::free_port;
use crate::people::{ADMIN, Person};
use crate::run::{Error, await_until, file, succeed};
use crate::{Binaries, Guest, Host, KeyServer, Reporter, World, guest};

/// What the operator may do at the key server: make and destroy keys of projects and shards, write the policies of hosts, and let
/// receipts be signed.
const OPERATOR_POLICY: &str = r#"
path "transit/keys/project-*" { capabilities = ["create", "update", "delete"] }
path "transit/keys/shard-*" { capabilities = ["create", "update", "delete"] }
path "sys/policy/dejima-host-*" { capabilities = ["create", "update"] }
path "sys/policies/acl/dejima-host-*" { capabilities = ["create", "update"] }
path "transit/sign/dejima-receipts" { capabilities = ["update"] }
path "transit/keys/dejima-receipts" { capabilities = ["read"] }
"#;

/// What a platform is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name: hosts that run machines lie under it.
    pub name: String,
    /// The directory of everything.
    pub dir: PathBuf,
    /// The binary `dejima`.
    pub program: PathBuf,
    /// The directory of the chart.
    pub chart: PathBuf,
    /// Who has a login.
    pub people: Vec<Person>,
    /// How long its processes stay.
    pub stay: Stay,
}

/// A running platform.
#[derive(Debug)]
pub struct Platform {
    // What speaks to others ends before them.
    running: BTreeMap<String, Running>,
    hosts: BTreeMap<String, Host>,
    /// The key server.
    pub keys: KeyServer,
    /// The control plane with the chart.
    pub world: World,
    setup: Setup,
    api: String,
    namespaces: BTreeMap<String, PathBuf>,
}

impl Platform {
    /// A control plane, a key server, and the API. Operator and hosts are started by name.
    pub fn start(binaries: &Binaries, setup: Setup) -> Result<Self, Error> {
        let dir = &setup.dir;
        let world = World::start(setup.stay, binaries, dir, &setup.chart, &setup.people)?;
        let keys = KeyServer::start(setup.stay, binaries, &dir.join("keys"))?;
        keys.run(&["policy", "write", "dejima-operator", "-"], Some(OPERATOR_POLICY))?;
        keys.run(&["write", "transit/keys/dejima-receipts", "type=ed25519", "exportable=false"], None)?;
        let token = keys.run(
            &["token", "create", "-orphan", "-policy=dejima-operator", "-ttl=768h", "-field=token"],
            None,
        )?;
        let api = format!("127.0.0.1:{}", free_port()?);
        for (name, text) in [
            ("operator.token", token.as_str()),
            ("site.yaml", "retryMs: 100\nretryMaxMs: 1000\n"),
            (parts::ADDRESS, api.as_str()),
        ] {
            let path = dir.join(name);
            file("write", &path, std::fs::write(&path, text))?;
        }
        for name in ["operator", "api"] {
            world.plane().service_account("dejima-system", name)?;
        }
        let mut platform = Self {
            running: BTreeMap::new(),
            hosts: BTreeMap::new(),
            keys,
            world,
            setup,
            api,
            namespaces: BTreeMap::new(),
        };
        platform.start_api()?;
        Ok(platform)
    }

    /// A host as an admin makes it: the object, its namespace, its identities.
    pub fn add_host(&self, host: &str, spec: &str) -> Result<(), Error> {
        let space = format!("dejima-host-{host}");
        let manifest = format!(
            "apiVersion: dejima.dev/v1alpha1\nkind: Host\nmetadata: {{name: {host}}}\nspec: {spec}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: {space}}}\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: hostd, namespace: {space}}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: hostd, namespace: {space}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dejima-hostd}}\nsubjects: [{{kind: ServiceAccount, name: hostd, namespace: {space}}}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: hostd-{host}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dejima-hostd-host}}\nsubjects: [{{kind: ServiceAccount, name: hostd, namespace: {space}}}]\n"
        );
        self.world.apply(ADMIN, &manifest).ok()?;
        self.world.plane().service_account(&space, "hostd")?;
        let role = format!("auth/approle/role/dejima-host-{host}");
        // Bound to where the host is, and short-lived: the host renews it.
        let renew = format!(
            "path \"{role}/secret-id\" {{ capabilities = [\"update\"] }}\npath \"{role}/secret-id/destroy\" {{ capabilities = [\"update\"] }}\n"
        );
        self.keys
            .run(&["policy", "write", &format!("dejima-renew-{host}"), "-"], Some(&renew))?;
        let policies = format!("token_policies=dejima-host-{host},dejima-renew-{host}");
        let bound = ["secret_id_bound_cidrs=127.0.0.1/32", "token_bound_cidrs=127.0.0.1/32"];
        let short = ["secret_id_ttl=24h", "token_ttl=1h", "token_no_default_policy=true"];
        self.keys
            .run(&[&["write", &role, &policies], &bound[..], &short[..]].concat(), None)?;
        let folder = self.host_dir(host);
        file("make", &folder, std::fs::create_dir_all(&folder))?;
        succeed(Command::new("chmod").arg("700").arg(&folder), None)?;
        let role_id = self.keys.run(&["read", "-field=role_id", &format!("{role}/role-id")], None)?;
        let secret_id = self
            .keys
            .run(&["write", "-force", "-field=secret_id", &format!("{role}/secret-id")], None)?;
        for (name, text) in [("role-id", role_id), ("secret-id", secret_id)] {
            let path = folder.join(name);
            file("write", &path, std::fs::write(&path, text))?;
        }
        Ok(())
    }

    /// A host with libvirt and QEMU in namespaces of its own, and its agent running in them.
    pub fn add_machine_host(&mut self, host: &str, spec: &str) -> Result<(), Error> {
        let started = Host::start_for(self.setup.stay, &self.setup.name, host)?;
        self.hosts.insert(host.to_owned(), started);
        self.add_host(host, spec)?;
        self.start_host(host, None)
    }

    /// What the lab's guest boots, as the image `probe`; and `probe-hostile`, whose guest does no hot-plug.
    pub fn install_probe_image(&self, command_line: Option<&str>, reporter: &dyn Reporter) -> Result<(), Error> {
        let guest = Guest::get(reporter)?;
        let folder = self.image_store().join("images/probe");
        file("make", &folder, std::fs::create_dir_all(&folder))?;
        let mut digests = Vec::new();
        for (name, from) in [("kernel", &guest.kernel), ("initrd", &guest.initrd)] {
            let to = folder.join(name);
            file("copy to", &to, std::fs::copy(from, &to))?;
            let said = succeed(Command::new("sha256sum").arg(&to), None)?;
            digests.push(said.split_whitespace().next().unwrap_or_default().to_owned());
        }
        let [kernel, initrd] = digests.as_slice() else {
            return Err(Error::Unexpected("a kernel and an initrd have two digests".into()));
        };
        let line = command_line.unwrap_or(guest::COMMAND_LINE);
        for (name, line) in [("probe", line.to_owned()), ("probe-hostile", format!("{line} acpiphp.disable=1"))] {
            let boot = format!(
                "{{path: images/probe/kernel, digest: \"sha256:{kernel}\", initrd: images/probe/initrd, initrdDigest: \"sha256:{initrd}\", commandLine: \"{line}\"}}"
            );
            self.replace_image(name, &boot)?;
        }
        Ok(())
    }

    /// An image of the name that says what it boots; one that is there already goes.
    pub fn replace_image(&self, name: &str, boot: &str) -> Result<(), Error> {
        let manifest = format!(
            "apiVersion: dejima.dev/v1alpha1\nkind: MachineImage\nmetadata: {{name: {name}}}\nspec: {{format: kernel-initrd, guest: probe, boot: {{kernel: {boot}}}}}\n"
        );
        self.world
            .run(ADMIN, &["delete", "machineimage", name, "--ignore-not-found"])
            .ok()?;
        self.world.create(ADMIN, &manifest).ok().map(drop)
    }

    /// The pool of a host with real volumes.
    pub fn volumes(&self, host: &str) -> PathBuf {
        match self.hosts.get(host) {
            Some(host) => host.images().join("volumes"),
            None => self.setup.dir.join("volumes").join(host),
        }
    }

    /// Gives a host that only remembers its machines real volumes, and real networks in this network namespace; at its next start.
    pub fn network_in(&mut self, host: &str, namespace: PathBuf) {
        self.namespaces.insert(host.to_owned(), namespace);
    }

    /// Where the agent of a host keeps what it keeps.
    pub fn host_dir(&self, host: &str) -> PathBuf {
        match self.hosts.get(host) {
            Some(host) => host.dir().join("hostd"),
            None => self.setup.dir.join("hosts").join(host),
        }
    }

    /// Where sealed shards lie, and what machines boot.
    pub fn image_store(&self) -> PathBuf {
        self.setup.dir.join("image-store")
    }

    /// The directory below which the intake roots of a host lie; a host that has one seals.
    pub fn sources(&self, host: &str) -> Result<PathBuf, Error> {
        let path = self.setup.dir.join("sources").join(host);
        file("make", &path, std::fs::create_dir_all(&path))?;
        Ok(path)
    }

    /// A host that runs machines.
    pub fn host(&self, name: &str) -> Result<&Host, Error> {
        self.hosts.get(name).ok_or_else(|| no_host(name))
    }

    /// The same, to stop and start its libvirt.
    pub fn host_mut(&mut self, name: &str) -> Result<&mut Host, Error> {
        self.hosts.get_mut(name).ok_or_else(|| no_host(name))
    }

    /// Where everything lies that QEMU need not read.
    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    /// The binary `dejima`.
    pub fn program(&self) -> &Path {
        &self.setup.program
    }

    /// Waits until something is so; where it does not come about, the error says what the objects and the logs say.
    pub fn eventually(&self, what: &str, seconds: u64, so: impl FnMut() -> bool) -> Result<(), Error> {
        await_until(what, seconds, "below", so).map_err(|late| Error::Unexpected(format!("{late}\n{}", self.report())))
    }

    /// What the objects and the ends of the logs say.
    pub fn report(&self) -> String {
        let objects = self
            .world
            .run(ADMIN, &["get", "iproj,accessgrants,hosts,hostplans", "-A", "-o", "wide"]);
        let mut said = vec![objects.text];
        for part in self.running.keys() {
            let text = std::fs::read_to_string(self.log(part)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n");
            said.push(format!("--- {part}\n{tail}"));
        }
        said.join("\n")
    }

    /// Waits until a project is ready; the host it is on.
    pub fn ready(&self, namespace: &str, name: &str, seconds: u64) -> Result<String, Error> {
        self.eventually(&format!("{namespace}/{name} ready"), seconds, || {
            self.world.condition(namespace, "isolatedproject", name, "Ready").0 == "True"
        })?;
        let object = self.world.get(namespace, "isolatedproject", name)?;
        let host = object.pointer("/status/summary/host").and_then(serde_json::Value::as_str);
        Ok(host.unwrap_or_default().to_owned())
    }
}

fn no_host(name: &str) -> Error {
    Error::Unexpected(format!("`{name}` is no host that runs machines"))
}
