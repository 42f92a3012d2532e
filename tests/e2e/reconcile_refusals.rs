//! What is asked for and cannot be is named where it is asked for: models, sources, clauses, images.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, PROVIDER, example, without_data};
use serde_json::json;

const HOST: &str = "host-v";

#[test]
fn what_cannot_be_had_is_named_on_the_object_that_asks_for_it() {
    let mut platform = Platform::new("refusals", &[HOST]);
    platform.start_operator(None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let provider = platform
        .world
        .namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    let says = |namespace: &str, kind: &str, name: &str, condition: &str, expected: (&str, &str), words: &[&str]| {
        let what = format!("{kind} {name}: {expected:?}");
        platform.eventually(&what, || {
            let (status, reason, message) = platform.condition(namespace, kind, name, condition);
            (status.as_str(), reason.as_str()) == expected && words.iter().all(|word| message.contains(word))
        });
    };

    // A model: the registry is not there.
    let digest = format!("sha256:{}", "b".repeat(64));
    let model = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "Model", "metadata": {"name": "liver", "namespace": tenant},
        "spec": {"name": "liver", "version": "1", "artifacts": [{"path": "model.safetensors", "digest": digest, "bytes": 1}]}});
    platform.world.create(LEAD, &model.to_string()).accepted();
    says(&tenant, "model", "liver", "Registered", ("False", "NotYetBuilt"), &["kind Model"]);

    // A policy whose clauses nobody evaluates, beside one whose every clause is.
    let here = format!("namespace: {provider}");
    for name in ["usagepolicy-disease.yaml", "usagepolicy-open.yaml"] {
        platform
            .world
            .create(PROVIDER, &example(name, &[("namespace: jichi", &here)]))
            .accepted();
    }
    let disease = platform
        .world
        .run(PROVIDER, &["get", "usagepolicies", "-n", &provider, "-o", "name"])
        .accepted();
    let disease = disease
        .lines()
        .find(|line| !line.contains("open-2026"))
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap();
    says(
        &provider,
        "usagepolicy",
        disease,
        "Admitted",
        ("False", "NotYetBuilt"),
        &["permits.duo"],
    );
    says(&provider, "usagepolicy", "open-2026", "Admitted", ("True", "Admitted"), &[]);

    // A dataset from where nothing is read yet, and as nothing is handed out yet: both are named.
    let source = (
        "source: {directory: {host: intake-1, path: ct-mr}}",
        "source: {nfs: {url: \"nfs://a/b\"}}\n  delivery: share",
    );
    let manifest = example("dataset-story.yaml", &[("namespace: jichi", &here), source]);
    platform.world.create(PROVIDER, &manifest).accepted();
    says(
        &provider,
        "dataset",
        "ct-mr",
        "Admitted",
        ("False", "NotYetBuilt"),
        &["source.nfs", "delivery: share"],
    );
    says(&provider, "dataset", "ct-mr", "Ingested", ("False", "NotYetBuilt"), &["source.nfs"]);

    // An image: what hosts find in the store says whether it is there. This one has an empty store, and says so itself.
    let hostd = format!("system:serviceaccount:dejima-host-{HOST}:hostd");
    let finds = |images: &[&str]| {
        let status = json!({"status": {"engine": {"kind": "tcg"}, "images": images}}).to_string();
        let words = ["patch", "host", HOST, "--subresource=status", "--type=merge", "-p", &status];
        platform.world.run(&hostd, &words).accepted();
    };
    says("", "machineimage", "probe", "Available", ("Unknown", "NoHost"), &[]);
    finds(&[]);
    let wanted = format!("sha256:{}", "a".repeat(64));
    says(
        "",
        "machineimage",
        "probe",
        "Available",
        ("False", "NotInStore"),
        &["vmlinux", &wanted],
    );
    let project = without_data(&tenant);
    platform.world.create(LEAD, &project).accepted();
    says(
        &tenant,
        "isolatedproject",
        "liver-ct",
        "Placed",
        ("False", "ImageUnavailable"),
        &["machines[train].image", "vmlinux"],
    );
    let other = project
        .replace("name: liver-ct,", "name: other,")
        .replace("image: probe", "image: none");
    platform.world.create(LEAD, &other).accepted();
    says(
        &tenant,
        "isolatedproject",
        "other",
        "Placed",
        ("False", "ImageMissing"),
        &["machines[train].image"],
    );
    // Another digest is another file; the right one is the image.
    finds(&[&digest]);
    says("", "machineimage", "probe", "Available", ("False", "NotInStore"), &[&wanted]);
    finds(&[&wanted]);
    says("", "machineimage", "probe", "Available", ("True", "InStore"), &[]);
    // The host is silent, which is another matter.
    says(
        &tenant,
        "isolatedproject",
        "liver-ct",
        "Placed",
        ("False", "NoHost"),
        &["it is silent"],
    );

    // A disk is no image that could be booted yet.
    let disk = json!({"apiVersion": "dejima.dev/v1alpha1", "kind": "MachineImage", "metadata": {"name": "debian"},
        "spec": {"format": "qcow2", "guest": "cloud-init", "source": "images/debian.qcow2", "digest": wanted}});
    platform.world.create(ADMIN, &disk.to_string()).accepted();
    says(
        "",
        "machineimage",
        "debian",
        "Available",
        ("False", "NotYetBuilt"),
        &["format: qcow2"],
    );
}
