//! What is the platform's own, and which part of it may write what.

use dejima_tests::{ADMIN, LEAD, OFFICE, OTHER_LEAD, World, example, world};

const OPERATOR: &str = "system:serviceaccount:dejima-system:operator";

/// A host with its namespace and identity, as `xtask up` or an admin makes it.
fn host(world: &World, name: &str) -> String {
    let space = format!("dejima-host-{name}");
    let manifest = format!(
        "apiVersion: dejima.dev/v1alpha1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{roles: [machines]}}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {{name: {space}}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: hostd, namespace: {space}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: hostd, namespace: {space}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dejima-hostd}}\nsubjects: [{{kind: ServiceAccount, name: hostd, namespace: {space}}}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: hostd-{name}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dejima-hostd-host}}\nsubjects: [{{kind: ServiceAccount, name: hostd, namespace: {space}}}]\n"
    );
    world.apply(ADMIN, &manifest).accepted();
    world.plane().service_account(&space, "hostd").unwrap();
    format!("system:serviceaccount:{space}:hostd")
}

fn plan(host: &str, generation: u32) -> String {
    format!(
        "apiVersion: dejima.dev/v1alpha1\nkind: HostPlan\nmetadata: {{name: project-u-1, namespace: dejima-host-{host}}}\nspec:\n  planGeneration: {generation}\n  project:\n    \
         of: {{namespace: osaka, name: liver-ct, uid: u-1}}\n    dedicated: true\n    key: project-u-1\n    \
         segment: {{bridge: dj{generation}, cidr: 10.64.0.0/24, gateway: 10.64.0.1, ports: []}}\n    volumes: []\n    mounts: []\n    domains: []\n"
    )
}

#[test]
fn a_tenants_labels_are_the_offices_through_every_subresource() {
    let world = world();
    let space = world.namespace("labelled", &[]);
    world
        .run(OFFICE, &["label", "namespace", &space, "dejima.dev/institution=035t8zc32"])
        .accepted();
    // The tenant's admin may do everything with his namespace but this.
    let role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: own-{space}}}\n\
         rules: [{{apiGroups: [\"\"], resources: [namespaces, namespaces/status, namespaces/finalize], resourceNames: [{space}], verbs: [get, update, patch]}}]\n"
    );
    world.create(ADMIN, &role).accepted();
    world.bind(&format!("own-{space}"), "dejima.dev/tenant-osaka", None);
    world.run(LEAD, &["label", "namespace", &space, "team=ct"]).accepted();
    let refusal = "set by the platform's office";
    world
        .run(
            LEAD,
            &["label", "namespace", &space, "--overwrite", "dejima.dev/institution=000000000"],
        )
        .refused(refusal);
    world
        .run(LEAD, &["label", "namespace", &space, "dejima.dev/institution-"])
        .refused(refusal);
    let patch = r#"{"metadata":{"labels":{"dejima.dev/institution":"000000000"}}}"#;
    world
        .run(
            LEAD,
            &["patch", "namespace", &space, "--subresource=status", "--type=merge", "-p", patch],
        )
        .refused(refusal);
    let mut object = world.get("default", "namespace", &space);
    object["metadata"]["labels"]["dejima.dev/institution"] = "000000000".into();
    let path = format!("/api/v1/namespaces/{space}/finalize");
    world
        .input(LEAD, &["replace", "--raw", &path, "-f", "-"], &object.to_string())
        .refused(refusal);
    assert_eq!(
        world.get("default", "namespace", &space)["metadata"]["labels"]["dejima.dev/institution"],
        "035t8zc32"
    );
}

#[test]
fn status_is_written_by_its_owner_and_exposure_only_grows() {
    let world = world();
    world.plane().service_account("dejima-system", "operator").unwrap();
    let space = world.namespace("status", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    world.bind("cluster-admin", "dejima.dev/tenant-osaka", Some(&space));
    world
        .create(
            LEAD,
            &example(
                "isolatedproject-story.yaml",
                &[("namespace: osaka-radiology", &format!("namespace: {space}"))],
            ),
        )
        .accepted();
    let status = |login: &str, exposed: &str| {
        let patch = format!(r#"{{"status":{{"exposed":{exposed}}}}}"#);
        world.run(
            login,
            &[
                "patch",
                "isolatedproject",
                "liver-ct",
                "-n",
                &space,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ],
        )
    };
    let exposure = format!(
        r#"{{"dataset":"jichi/ct-mr","version":1,"policyDigest":"sha256:{}","since":"2026-11-24T00:00:00Z"}}"#,
        "a".repeat(64)
    );
    status(LEAD, "[]").refused("written by the platform's operator alone");
    status(ADMIN, "[]").refused("written by the platform's operator alone");
    status(OPERATOR, &format!("[{exposure}]")).accepted();
    status(OPERATOR, "[]").refused("exposure only grows");
}

#[test]
fn our_finalizers_and_labels_are_the_operators() {
    let world = world();
    world.plane().service_account("dejima-system", "operator").unwrap();
    let space = world.namespace("marks", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    world
        .create(
            LEAD,
            &example(
                "isolatedproject-story.yaml",
                &[("namespace: osaka-radiology", &format!("namespace: {space}"))],
            ),
        )
        .accepted();
    let patch = |login: &str, patch: &str| {
        world.run(
            login,
            &["patch", "isolatedproject", "liver-ct", "-n", &space, "--type=merge", "-p", patch],
        )
    };
    patch(LEAD, r#"{"metadata":{"labels":{"team":"ct"}}}"#).accepted();
    patch(LEAD, r#"{"metadata":{"labels":{"dejima.dev/held":"yes"}}}"#).refused("are the operator's");
    patch(LEAD, r#"{"metadata":{"finalizers":["dejima.dev/end"]}}"#).refused("are the operator's");
    patch(OPERATOR, r#"{"metadata":{"finalizers":["dejima.dev/end"]}}"#).accepted();
    patch(LEAD, r#"{"metadata":{"finalizers":[]}}"#).refused("are the operator's");
    patch(OPERATOR, r#"{"metadata":{"finalizers":[]}}"#).accepted();
}

#[test]
fn a_host_sees_and_writes_its_own_plans_alone() {
    let world = world();
    world.plane().service_account("dejima-system", "operator").unwrap();
    let (one, two) = (host(world, "admit-a"), host(world, "admit-b"));
    world
        .create(ADMIN, &plan("admit-a", 1))
        .refused("a host plan is written by the operator");
    world.create(OPERATOR, &plan("admit-a", 1)).accepted();
    world.run(&one, &["get", "hostplans", "-n", "dejima-host-admit-a"]).accepted();
    world
        .run(&two, &["get", "hostplans", "-n", "dejima-host-admit-a"])
        .refused("forbidden");
    let status = |login: &str| {
        let patch = r#"{"status":{"planGeneration":1}}"#;
        world.run(
            login,
            &[
                "patch",
                "hostplan",
                "project-u-1",
                "-n",
                "dejima-host-admit-a",
                "--subresource=status",
                "--type=merge",
                "-p",
                patch,
            ],
        )
    };
    status(OPERATOR).refused("forbidden");
    status(ADMIN).refused("its status by the hostd of the host");
    status(&one).accepted();
    // A changed plan bears a higher number; the control is the one that does.
    world
        .input(
            OPERATOR,
            &["replace", "-f", "-"],
            &plan("admit-a", 1).replace("dedicated: true", "dedicated: false"),
        )
        .refused("higher planGeneration");
    world.input(OPERATOR, &["replace", "-f", "-"], &plan("admit-a", 2)).accepted();
}

#[test]
fn a_host_says_what_it_is_and_never_who_holds_it() {
    let world = world();
    world.plane().service_account("dejima-system", "operator").unwrap();
    let (one, two) = (host(world, "admit-c"), host(world, "admit-d"));
    let status = |login: &str, patch: &str| {
        world.run(
            login,
            &["patch", "host", "admit-c", "--subresource=status", "--type=merge", "-p", patch],
        )
    };
    let capacity = r#"{"status":{"capacity":{"cpus":2,"memory":1024,"bytes":1024}}}"#;
    let held = r#"{"status":{"heldBy":{"namespace":"osaka","name":"liver-ct","uid":"u-1"}}}"#;
    status(&two, capacity).refused("the hostd of that host alone");
    status(&one, capacity).accepted();
    status(&one, held).refused("is the operator's to say");
    status(OPERATOR, held).accepted();
    status(&one, r#"{"status":{"heldBy":null}}"#).refused("is the operator's to say");
    status(OPERATOR, r#"{"status":{"capacity":{"cpus":64,"memory":1024,"bytes":1024}}}"#).refused("its own hostd's to say");
    world.run(OTHER_LEAD, &["get", "hosts"]).refused("forbidden");
}
