//! Operator and API in one process: what one machine needs, with the identities that the two have apart.

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, without_data};

const HOST: &str = "host-s";

#[test]
fn a_project_gets_ready_and_goes_under_serve_which_stops_when_it_is_asked() {
    let mut platform = Platform::new("serve", &[HOST]);
    platform.start_serve();
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, "liver-ct");
    let operator = "system:serviceaccount:dejima-system:operator";
    let by_operator = |platform: &Platform| platform.records().iter().filter(|record| record["writer"] == operator).count();
    assert_eq!(by_operator(&platform), 1, "the record of the project's beginning");

    // Asked to stop, it stops: the operator, then the API.
    platform.stop("serve");
    let log = std::fs::read_to_string(platform.dir().join("serve.log")).unwrap();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("`{words}` is not in {log}"));
    assert!(at("the operator has stopped") < at("the API has stopped"));

    // Another life goes on with the same ledger.
    platform.start_serve();
    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", &tenant, "--wait=false"])
        .accepted();
    platform.eventually("the project gone", || {
        !platform
            .world
            .run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", &tenant])
            .accepted
    });
    assert!(by_operator(&platform) > 1);

    // One process, two identities: neither did the other's work.
    let audit = std::fs::read_to_string(platform.world.plane().audit_log()).unwrap();
    let did = |part: &str, resource: &str| {
        let login = format!("\"system:serviceaccount:dejima-system:{part}\"");
        let resource = format!("\"resource\":\"{resource}\"");
        audit.lines().any(|line| line.contains(&login) && line.contains(&resource))
    };
    assert!(did("operator", "hostplans") && did("api", "tokenreviews"));
    assert!(!did("api", "isolatedprojects") && !did("operator", "tokenreviews"));
}
