//! Every example is accepted by the real API server, and what the rules forbid is refused in the user's words.

use dejima_tests::{ADMIN, example, root, world};

#[test]
fn every_example_is_accepted() {
    let world = world();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.contains(".yaml") {
            let text = example(
                &name,
                &[
                    ("namespace: jichi", "namespace: default"),
                    ("namespace: osaka-radiology", "namespace: default"),
                ],
            );
            world.input(ADMIN, &["create", "--dry-run=server", "-f", "-"], &text).accepted();
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} examples");
}

#[test]
fn wrong_shapes_are_refused_with_the_field_and_the_remedy() {
    let world = world();
    let project = |from: &str, to: &str| {
        let text = example(
            "isolatedproject-story.yaml",
            &[("namespace: osaka-radiology", "namespace: default"), (from, to)],
        );
        world.input(ADMIN, &["create", "--dry-run=server", "-f", "-"], &text)
    };
    project("title", "title").accepted();
    project("country: JP", "country: XX").refused("spec.country");
    project("DUO:0000042", "DUO:9999999").refused("spec.purpose[0].duo");
    project("ror.org/035t8zc32", "ror.org/oooops").refused("spec.institution");
    project("size: 64Mi", "size: -1").refused("spec.volumes[0].size");
    project("attachTo: train", "attachTo: nothing").refused("a volume is attached to one machine of this project");
    project("attachTo: [train]", "attachTo: [nothing]").refused("a dataset is attached to machines of this project");
    project("cpu: 1, ", "").refused("a machine names a class, or both cpu and memory");
    project("mountPath: /scratch", "mountPath: /scratch/../etc").refused("spec.volumes[0].mountPath");
    project("  machines:", "  destroyVolumes: [work]\n  machines:")
        .refused("a volume named in destroyVolumes must have left volumes first");
    let dataset = example(
        "dataset-story.yaml",
        &[("namespace: jichi", "namespace: default"), ("path: ct-mr", "path: ../other")],
    );
    world
        .input(ADMIN, &["create", "--dry-run=server", "-f", "-"], &dataset)
        .refused("spec.source.directory.path");
}

#[test]
fn what_must_not_change_does_not_change() {
    let world = world();
    let space = world.namespace("immutable", &[]);
    let here = [
        ("namespace: jichi", format!("namespace: {space}")),
        ("namespace: osaka-radiology", format!("namespace: {space}")),
    ];
    let here: Vec<(&str, &str)> = here.iter().map(|(from, to)| (*from, to.as_str())).collect();
    for name in ["usagepolicy-story.yaml", "dataset-story.yaml", "isolatedproject-story.yaml"] {
        world.create(ADMIN, &example(name, &here)).accepted();
    }
    let patch = |kind: &str, name: &str, patch: &str| world.patch(ADMIN, &space, kind, name, patch);
    patch(
        "usagepolicy",
        "ct-mr-2026",
        r#"[{"op":"replace","path":"/spec/review/required","value":false}]"#,
    )
    .refused("a policy never changes");
    patch("dataset", "ct-mr", r#"[{"op":"replace","path":"/spec/revision","value":3}]"#).accepted();
    patch("dataset", "ct-mr", r#"[{"op":"replace","path":"/spec/revision","value":2}]"#).refused("revision only grows");
    let withdrawal = r#"[{"op":"add","path":"/spec/withdrawn","value":[{"version":"1","by":"jichi","reason":"a subject asked"}]}]"#;
    patch("dataset", "ct-mr", withdrawal).accepted();
    patch("dataset", "ct-mr", r#"[{"op":"remove","path":"/spec/withdrawn"}]"#).refused("a withdrawal is final");
    patch(
        "isolatedproject",
        "liver-ct",
        r#"[{"op":"replace","path":"/spec/volumes/0/size","value":"128Mi"}]"#,
    )
    .accepted();
    patch(
        "isolatedproject",
        "liver-ct",
        r#"[{"op":"replace","path":"/spec/volumes/0/size","value":"32Mi"}]"#,
    )
    .refused("a volume grows, it never shrinks");
}

#[test]
fn columns_answer_whether_it_is_ready_and_why_not() {
    let world = world();
    let text = world
        .run(ADMIN, &["get", "isolatedprojects,datasets,accessgrants,hosts", "-A"])
        .accepted();
    assert!(text.contains("No resources") || text.contains("NAMESPACE"), "{text}");
    let space = world.namespace("columns", &[]);
    let project = example(
        "isolatedproject-story.yaml",
        &[("namespace: osaka-radiology", &format!("namespace: {space}"))],
    );
    world.create(ADMIN, &project).accepted();
    let text = world.run(ADMIN, &["get", "iproj", "-n", &space]).accepted();
    let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        ["NAME", "READY", "REASON", "HOST", "MACHINES", "DATASETS", "EXPIRES", "AGE"]
    );
    assert!(text.contains("2027-03-31"), "{text}");
}
