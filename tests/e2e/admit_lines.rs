//! Lines in one's own name: reviews, revocations, acceptances, attestations. Under the logins that they are for, never as admin.

use dejima_tests::{ADMIN, Answer, BOARD_JICHI, BOARD_PLATFORM, LEAD, OFFICE, OTHER_LEAD, PROVIDER, STUDENT, World, example, world};

const JICHI: &str = "https://ror.org/010hz0g26";
const ROIS: &str = "https://ror.org/04ksd4g47";

/// A provider's and a tenant's namespace, with the story's dataset, policy, project and request in them.
struct Story {
    world: &'static World,
    provider: String,
    tenant: String,
}

fn story() -> Story {
    let world = world();
    let provider = world.namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    let tenant = world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let here = [
        ("namespace: jichi", format!("namespace: {provider}")),
        ("namespace: osaka-radiology", format!("namespace: {tenant}")),
    ];
    let here: Vec<(&str, &str)> = here.iter().map(|(from, to)| (*from, to.as_str())).collect();
    world.create(PROVIDER, &example("usagepolicy-story.yaml", &here)).accepted();
    world.create(PROVIDER, &example("dataset-story.yaml", &here)).accepted();
    world.create(LEAD, &example("isolatedproject-story.yaml", &here)).accepted();
    Story { world, provider, tenant }
}

impl Story {
    fn grant(&self, name: &str, reviews: &str) -> String {
        format!(
            "apiVersion: dejima.dev/v1alpha1\nkind: AccessGrant\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n  \
             project: {{namespace: {}, name: liver-ct, uid: u-1}}\n  dataset: ct-mr\n  policy: {{name: ct-mr-2026, digest: \"sha256:{}\"}}\n  \
             request: {{purpose: [{{duo: \"DUO:0000042\", actions: [train]}}], institution: \"https://ror.org/035t8zc32\", orgKind: public, country: JP, \
             members: [\"{LEAD}\"], actions: [mount, read, train], egress: [], l2vpn: []}}\n  window: {{from: \"2026-04-01\", until: \"2027-03-31\"}}\n  reviews: [{reviews}]\n",
            self.provider,
            self.tenant,
            "a".repeat(64)
        )
    }

    fn review(&self, login: &str, name: &str, reviewer: &str, org: &str, decision: &str) -> Answer {
        let patch = format!(
            r#"[{{"op":"add","path":"/spec/reviews/-","value":{{"reviewer":"{reviewer}","org":"{org}","decision":"{decision}"}}}}]"#
        );
        self.patch(login, name, &patch)
    }

    fn patch(&self, login: &str, name: &str, patch: &str) -> Answer {
        self.world.patch(login, &self.provider, "accessgrant", name, patch)
    }

    fn attestation(&self, name: &str, claim: &str, by: &str) -> String {
        format!(
            "apiVersion: dejima.dev/v1alpha1\nkind: Attestation\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n  of: {{kind: IsolatedProject, name: liver-ct, uid: u-1}}\n  \
             claim: {claim}\n  value: {{protocol: \"24-0113\"}}\n  by: {by}\n",
            self.tenant
        )
    }
}

#[test]
fn two_reviewers_each_add_their_own_line_and_nobody_anothers() {
    let story = story();
    story.world.create(ADMIN, &story.grant("g", "")).accepted();
    story
        .review(BOARD_JICHI, "g", BOARD_PLATFORM, ROIS, "approve")
        .refused("only under the login it names");
    story
        .review(BOARD_JICHI, "g", BOARD_JICHI, ROIS, "approve")
        .refused("an organisation that is a group of this login");
    story
        .review(ADMIN, "g", BOARD_JICHI, JICHI, "approve")
        .refused("only under the login it names");
    story.review(BOARD_JICHI, "g", BOARD_JICHI, JICHI, "approve").accepted();
    story.review(BOARD_PLATFORM, "g", BOARD_PLATFORM, ROIS, "approve").accepted();

    let change = r#"[{"op":"replace","path":"/spec/reviews/0/decision","value":"reject"}]"#;
    story.patch(BOARD_PLATFORM, "g", change).refused("only under the login it names");
    story
        .patch(BOARD_PLATFORM, "g", r#"[{"op":"remove","path":"/spec/reviews/0"}]"#)
        .refused("only its author");
    story.patch(BOARD_JICHI, "g", change).accepted();
    story
        .patch(BOARD_JICHI, "g", r#"[{"op":"remove","path":"/spec/reviews/0"}]"#)
        .accepted();

    let merge = format!(r#"{{"spec":{{"reviews":[{{"reviewer":"{BOARD_JICHI}","org":"{JICHI}","decision":"approve"}}]}}}}"#);
    let merged = story.world.run(
        BOARD_JICHI,
        &["patch", "accessgrant", "g", "-n", &story.provider, "--type=merge", "-p", &merge],
    );
    merged.refused("use a JSON patch");
}

#[test]
fn a_request_is_not_born_with_somebody_elses_review() {
    let story = story();
    let line = format!("{{reviewer: {BOARD_JICHI}, org: \"{JICHI}\", decision: approve}}");
    story
        .world
        .create(ADMIN, &story.grant("g", &line))
        .refused("only under the login it names");
    story.world.create(ADMIN, &story.grant("g", "")).accepted();
}

#[test]
fn who_can_write_the_project_does_not_review_it() {
    let story = story();
    story.world.create(ADMIN, &story.grant("g", "")).accepted();
    // The control: the same login, the same line, before it was given a part in the project.
    story.review(BOARD_JICHI, "g", BOARD_JICHI, JICHI, "approve").accepted();
    story
        .patch(BOARD_JICHI, "g", r#"[{"op":"remove","path":"/spec/reviews/0"}]"#)
        .accepted();
    story.world.bind("dejima-tenant", "dejima.dev/org/010hz0g26", Some(&story.tenant));
    story
        .review(BOARD_JICHI, "g", BOARD_JICHI, JICHI, "approve")
        .refused("nobody reviews his own project");
}

#[test]
fn what_is_under_review_does_not_change_and_a_revocation_is_final() {
    let story = story();
    story.world.create(ADMIN, &story.grant("g", "")).accepted();
    let widen = r#"[{"op":"add","path":"/spec/request/actions/-","value":"publish"}]"#;
    story.patch(PROVIDER, "g", widen).refused("what is under review never changes");

    let revoke = |login: &str| {
        story.patch(
            login,
            "g",
            &format!(r#"[{{"op":"add","path":"/spec/revoked","value":{{"by":"{login}","reason":"asked to"}}}}]"#),
        )
    };
    revoke(BOARD_JICHI).refused("by one who has the verb revoke");
    let another = format!(r#"[{{"op":"add","path":"/spec/revoked","value":{{"by":"{BOARD_JICHI}","reason":"asked to"}}}}]"#);
    story.patch(PROVIDER, "g", &another).refused("under the login that revokes it");
    revoke(PROVIDER).accepted();
    story
        .patch(PROVIDER, "g", r#"[{"op":"remove","path":"/spec/revoked"}]"#)
        .refused("a revocation is final");
}

#[test]
fn terms_are_accepted_by_each_member_for_himself() {
    let story = story();
    let accept = |login: &str, member: &str| {
        let line = format!(r#"{{"member":"{member}","digest":"sha256:{}"}}"#, "9".repeat(64));
        story.world.patch(
            login,
            &story.tenant,
            "isolatedproject",
            "liver-ct",
            &format!(r#"[{{"op":"add","path":"/spec/termsAccepted","value":[{line}]}}]"#),
        )
    };
    accept(STUDENT, LEAD).refused("only under the login that the line names");
    accept(LEAD, LEAD).accepted();
    let back = r#"[{"op":"remove","path":"/spec/termsAccepted"}]"#;
    story
        .world
        .patch(STUDENT, &story.tenant, "isolatedproject", "liver-ct", back)
        .refused("only its author takes an acceptance back");
    story
        .world
        .patch(LEAD, &story.tenant, "isolatedproject", "liver-ct", back)
        .accepted();
}

#[test]
fn nobody_vouches_for_himself() {
    let story = story();
    let world = story.world;
    world.create(OFFICE, &story.attestation("a1", "ethics", OFFICE)).accepted();
    world
        .create(OFFICE, &story.attestation("a2", "ethics", LEAD))
        .refused("under the login it names");
    let widened = r#"[{"op":"replace","path":"/spec/value/protocol","value":"25-0001"}]"#;
    world
        .run(
            ADMIN,
            &["patch", "attestation", "a1", "-n", &story.tenant, "--type=json", "-p", widened],
        )
        .refused("an attestation never changes");

    // The tenant's admin gives, in his own namespace, every right that he can give: the claim is asked for the whole cluster.
    let role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: own, namespace: {0}}}\nrules: [{{apiGroups: [dejima.dev], resources: [attestations, claims], verbs: [\"*\"]}}]\n\
         ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: own, namespace: {0}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: own}}\n\
         subjects: [{{kind: ServiceAccount, name: straw-man, namespace: {0}}}]\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: straw-man, namespace: {0}}}\n",
        story.tenant
    );
    world.create(ADMIN, &role).accepted();
    world.plane().service_account(&story.tenant, "straw-man").unwrap();
    let straw = format!("system:serviceaccount:{}:straw-man", story.tenant);
    world
        .create(&straw, &story.attestation("a3", "ethics", &straw))
        .refused("given it for the whole cluster");

    // An office that may also write the project vouches no longer. The control is a1 above.
    world.bind("dejima-tenant", "dejima.dev/office", Some(&story.tenant));
    world
        .create(OFFICE, &story.attestation("a4", "ethics", OFFICE))
        .refused("nobody vouches for himself");
}

#[test]
fn a_committee_can_be_given_one_claim_alone() {
    let story = story();
    let world = story.world;
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: ethics-committee}\n\
         rules: [{apiGroups: [dejima.dev], resources: [attestations], verbs: [create]}, {apiGroups: [dejima.dev], resources: [claims], resourceNames: [ethics], verbs: [attest]}]\n";
    world.apply(ADMIN, role).accepted();
    world.bind("ethics-committee", "dejima.dev/tenant-kyoto", None);
    world.create(OTHER_LEAD, &story.attestation("e", "ethics", OTHER_LEAD)).accepted();
    world
        .create(OTHER_LEAD, &story.attestation("t", "egress", OTHER_LEAD))
        .refused("the claim egress is attested only by a login that was given it");
}
