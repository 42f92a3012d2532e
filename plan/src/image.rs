//! Whether what an image boots can be had: some host that runs machines finds it in the image store, with its digests.

use dejima_crds::Host;
use dejima_crds::bounded::{Digest, SubPath};
use dejima_crds::host::{EngineKind, HostRole};
use dejima_crds::image::{ImageFormat, Kernel, MachineImageSpec};

/// What was found: nothing, where no host has said what it finds; else whether it is there, or a reason word and what to do.
pub fn available(image: &MachineImageSpec, hosts: &[&Host]) -> Option<Result<(), (&'static str, String)>> {
    if let Some(problem) = not_built(image) {
        return Some(Err(("NotYetBuilt", format!("it {problem}"))));
    }
    let said: Vec<_> = hosts
        .iter()
        .filter(|host| host.spec.roles.contains(&HostRole::Machines))
        .filter_map(|host| host.status.as_ref())
        .filter(|status| status.engine.is_some())
        .collect();
    if said.is_empty() {
        return None;
    }
    let kernel = image.boot.kernel.as_ref();
    let files: Vec<(&SubPath, &Digest)> = kernel
        .into_iter()
        .flat_map(
            |Kernel {
                 path,
                 digest,
                 initrd,
                 initrd_digest,
                 ..
             }| [(path, digest), (initrd, initrd_digest)],
        )
        .collect();
    // A host says what it is and what it finds in one breath. One that only remembers boots nothing, hence anything.
    let only_remembers = said
        .iter()
        .any(|status| status.engine.as_ref().is_some_and(|engine| engine.kind == EngineKind::Memory));
    let missing: Vec<String> = files
        .into_iter()
        .filter(|(_, digest)| !said.iter().any(|status| status.images.contains(digest)))
        .map(|(path, digest)| format!("{path} with {digest}"))
        .collect();
    if only_remembers || missing.is_empty() {
        return Some(Ok(()));
    }
    let message = format!(
        "no host finds in the image store: {}. Copy the file there, or make the image again with the digest of what lies there",
        missing.join(", ")
    );
    Some(Err(("NotInStore", message)))
}

/// What an image asks for that is not built.
pub fn not_built(image: &MachineImageSpec) -> Option<String> {
    let word = match image.format {
        ImageFormat::KernelInitrd => return None,
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Raw => "raw",
    };
    Some(format!(
        "is a disk (format: {word}), which is not built yet: take one that is a kernel and an initrd"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(digit: &str) -> MachineImageSpec {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let kernel = json!({"path": "images/k", "digest": digest("a"), "initrd": "images/i", "initrdDigest": digest(digit)});
        serde_json::from_value(json!({"format": "kernel-initrd", "guest": "probe", "boot": {"kernel": kernel}})).unwrap()
    }

    fn host(role: &str, engine: Option<&str>, digits: &[&str]) -> Host {
        let images: Vec<String> = digits.iter().map(|digit| format!("sha256:{}", digit.repeat(64))).collect();
        let engine = engine.map(|kind| json!({"kind": kind}));
        serde_json::from_value(json!({
            "apiVersion": "dejima.dev/v1alpha1", "kind": "Host", "metadata": {"name": "h"}, "spec": {"roles": [role]},
            "status": {"engine": engine, "images": images},
        }))
        .unwrap()
    }

    #[test]
    fn an_image_is_available_where_a_host_finds_every_file_of_it() {
        let found = |hosts: &[Host]| available(&image("b"), &hosts.iter().collect::<Vec<_>>());
        assert_eq!(found(&[host("machines", Some("kvm"), &["a", "b"])]), Some(Ok(())));
        let Some(Err((reason, message))) = found(&[host("machines", Some("kvm"), &["a", "c"])]) else {
            panic!("another digest is not this image");
        };
        assert!(
            reason == "NotInStore" && message.contains("images/i with sha256:bbb") && !message.contains("images/k"),
            "{message}"
        );
        assert_eq!(found(&[host("machines", Some("memory"), &[])]), Some(Ok(())));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[host("machines", None, &[])]), None, "it has not said anything");
        assert_eq!(found(&[host("intake", Some("none"), &["a", "b"])]), None, "it boots nothing");
        let disk = MachineImageSpec {
            format: ImageFormat::Qcow2,
            ..image("b")
        };
        assert!(matches!(available(&disk, &[]), Some(Err(("NotYetBuilt", _)))));
    }
}
