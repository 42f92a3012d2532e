//! Faults at beginnings and ends: a dataset is sealed and destroyed, a project outlives its period. Whatever fails, times out or is
//! killed meanwhile, the end is the clean run's.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OFFICE, PROVIDER, example};

use crate::matrix::{Matrix, Stage};
use crate::reconcile_ends::in_seconds;
use crate::recover_faults::{HOST, with_data};
use crate::running::{INTAKE, PROJECT};

fn gone(platform: &Platform, namespace: &str, kind: &str, name: &str) -> bool {
    let answer = platform.world.run(ADMIN, &["get", kind, name, "-n", namespace]);
    !answer.accepted && answer.text.contains("NotFound")
}

fn delete(stage: &Stage, login: &str, namespace: &str, kind: &str, name: &str) {
    let words = ["delete", kind, name, "-n", namespace, "--wait=false"];
    stage.world.run(login, &words).accepted();
}

/// A dataset is offered, sealed and vouched for; then it is deleted, held, and destroyed.
fn dataset(stage: &mut Stage, provider: &str) {
    let here = format!("namespace: {provider}");
    let changes = [
        ("namespace: jichi", here.as_str()),
        ("name: ct-mr,", "name: short-lived,"),
        ("policyRef: ct-mr-2026", "policyRef: open-2026"),
    ];
    stage.world.create(PROVIDER, &example("dataset-story.yaml", &changes)).accepted();
    for claim in ["approval", "agreement"] {
        let attest = stage.dejima(OFFICE, &["attest", "dataset", &format!("{provider}/short-lived"), claim]);
        assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    }
    stage.wait("Mountable", &|platform| {
        platform.condition(provider, "dataset", "short-lived", "Mountable").0 == "True"
    });
    stage.same("sealed");
    delete(stage, PROVIDER, provider, "dataset", "short-lived");
    stage.wait("gone", &|platform| gone(platform, provider, "dataset", "short-lived"));
    let said = stage
        .world
        .run(OFFICE, &["get", "attestations", "-n", provider, "-o", "name"])
        .accepted();
    let own: Vec<&str> = said.lines().filter(|name| name.contains("/short-lived-")).collect();
    assert_eq!(own.len(), 2, "{said}");
    let words = [&["delete", "-n", provider], own.as_slice()].concat();
    stage.world.run(OFFICE, &words).accepted();
    stage.same("gone");
}

/// A project is made, its period ends, it is held and destroyed; then its object is deleted.
fn period(stage: &mut Stage, tenant: &str, manifest: &str) {
    stage.world.create(LEAD, manifest).accepted();
    let project = |platform: &Platform| platform.world.get(tenant, "isolatedproject", PROJECT);
    stage.wait("ready and mounted", &|platform| {
        project(platform)["status"]["summary"]["datasets"] == "1/1"
    });
    stage.same("ready");
    let (until, _) = in_seconds(1);
    let patch = format!(r#"[{{"op":"replace","path":"/spec/period/until","value":"{until}"}}]"#);
    stage.world.patch(LEAD, tenant, "isolatedproject", PROJECT, &patch).accepted();
    stage.wait("over", &|platform| {
        let (_, reason, message) = platform.condition(tenant, "isolatedproject", PROJECT, "Ready");
        reason == "PeriodEnded" && message.contains("may be deleted")
    });
    stage.same("over");
    delete(stage, LEAD, tenant, "isolatedproject", PROJECT);
    stage.wait("gone", &|platform| gone(platform, tenant, "isolatedproject", PROJECT));
    stage.same("gone");
}

#[test]
fn whatever_fails_while_a_dataset_is_sealed_or_destroyed_or_a_period_ends_the_end_is_the_clean_runs() {
    let mut platform = Platform::new("end-faults", &[HOST]);
    let site = platform.dir().join("site.yaml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, format!("{text}retention: PT2S\n")).unwrap();
    platform.start_operator(None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let (provider, manifest) = with_data(&mut platform, &tenant, ("open-2026", "open-2026"));
    let mut stage = Stage::new(platform, &[HOST, INTAKE]);
    stage.run(&Matrix::of("dataset", 6), &mut |stage| dataset(stage, &provider));
    stage.run(&Matrix::of("period", 6), &mut |stage| period(stage, &tenant, &manifest));
}
