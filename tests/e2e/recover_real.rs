//! Faults on real parts: libvirt, QEMU, LUKS, nftables and a guest that boots. Whatever fails, times out or is killed, the end is
//! the clean run's, and so is the number of processes, disks, links and rules that are left.

use dejima_tests::{LEAD, example};

use crate::matrix::{Matrix, Stage};
use crate::running::{PROJECT, Running};

const HOST: &str = "host-q";

/// A project comes with a machine that boots and data in it, and goes.
fn life(stage: &mut Stage, tenant: &str, manifest: &str) {
    stage.world.create(LEAD, manifest).accepted();
    stage.wait("ready and mounted", &|platform| {
        let project = platform.world.get(tenant, "isolatedproject", PROJECT);
        project["status"]["summary"]["datasets"] == "1/1"
    });
    stage.same("ready");
    let delete = ["delete", "isolatedproject", PROJECT, "-n", tenant, "--wait=false"];
    stage.world.run(LEAD, &delete).accepted();
    stage.wait("gone", &|platform| {
        let words = ["get", "isolatedproject", PROJECT, "-n", tenant];
        let answer = platform.world.run(dejima_tests::ADMIN, &words);
        !answer.accepted && answer.text.contains("NotFound")
    });
    stage.same("gone");
}

#[test]
fn whatever_fails_on_real_parts_the_end_is_the_clean_runs() {
    let running = Running::new("real-faults", &[HOST], "usagepolicy-open.yaml", 4_000_000);
    let (platform, provider, tenant, _alone) = running.taken_apart();
    let places = [
        ("namespace: jichi", format!("namespace: {provider}")),
        ("namespace: osaka-radiology", format!("namespace: {tenant}")),
    ];
    let places = places.iter().map(|(from, to)| (*from, to.as_str())).collect::<Vec<_>>();
    let manifest = example("isolatedproject-story.yaml", &places);
    let matrix = Matrix {
        name: "real parts",
        sample: 2,
        whole: Some(8),
        restarted: &[],
        perhaps: &[],
        starting: &[],
    };
    Stage::new(platform, &[HOST]).run(&matrix, &mut |stage| life(stage, &tenant, &manifest));
}
