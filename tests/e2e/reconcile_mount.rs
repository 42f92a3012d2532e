//! A licensed dataset in a running project: exposure and record before access, and gone the moment the grant is.

use dejima_lab::{ToStderr, dicom};
use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, BOARD_JICHI, BOARD_PLATFORM, LEAD, OFFICE, PROVIDER, STUDENT, example};
use serde_json::{Value, json};

const HOST: &str = "host-m";
const INTAKE: &str = "intake-1";

struct Story {
    platform: Platform,
    provider: String,
    tenant: String,
}

/// Everything of the story up to the reviews: a sealed, Mountable dataset and a project that waits.
fn story() -> Story {
    let mut platform = Platform::new("mount", &[HOST]);
    let provider = platform.world.namespace(
        "jichi",
        &[
            ("dejima-provider", "dejima.dev/provider-jichi"),
            ("dejima-reviewer", "dejima.dev/tenant-osaka"),
        ],
    );
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.add_host(
        INTAKE,
        &format!("{{roles: [intake], intake: [{{namespace: {provider}, path: jichi}}]}}"),
    );
    let source = platform.sources(INTAKE).join("jichi");
    std::fs::create_dir_all(&source).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(dicom::images(&ToStderr).unwrap())
        .arg(source.join("ct-mr"))
        .status()
        .unwrap();
    assert!(copied.success());
    platform.start_operator(None);
    platform.start_host(HOST, None);
    platform.start_host(INTAKE, None);
    let replace = [
        ("namespace: jichi", format!("namespace: {provider}")),
        ("namespace: osaka-radiology", format!("namespace: {tenant}")),
    ];
    let replace: Vec<(&str, &str)> = replace.iter().map(|(from, to)| (*from, to.as_str())).collect();
    for name in ["usagepolicy-story.yaml", "dataset-story.yaml"] {
        platform.world.create(PROVIDER, &example(name, &replace)).accepted();
    }
    platform
        .world
        .create(LEAD, &example("isolatedproject-story.yaml", &replace))
        .accepted();
    let labels = [
        "dejima.dev/institution=035t8zc32",
        "dejima.dev/org-kind=public",
        "dejima.dev/country=JP",
    ];
    platform
        .world
        .run(OFFICE, &[&["label", "namespace", &tenant][..], &labels[..]].concat())
        .accepted();
    let story = Story {
        platform,
        provider,
        tenant,
    };
    let (dataset, project) = (format!("{}/ct-mr", story.provider), format!("{}/liver-ct", story.tenant));
    story.says(OFFICE, &["attest", "dataset", &dataset, "approval"]);
    story.says(OFFICE, &["attest", "dataset", &dataset, "agreement"]);
    story.says(OFFICE, &["attest", "project", &project, "ethics"]);
    story.says(LEAD, &["terms", "accept", &dataset, "--project", &project]);
    story.platform.ready(&story.tenant, "liver-ct");
    story.platform.eventually("Mountable", || {
        story.platform.condition(&story.provider, "dataset", "ct-mr", "Mountable").0 == "True"
    });
    story
}

impl Story {
    #[track_caller]
    fn says(&self, login: &str, arguments: &[&str]) {
        let answer = self.platform.dejima(login, arguments);
        assert!(
            answer.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&answer.stderr)
        );
    }

    fn project(&self) -> Value {
        self.platform.world.get(&self.tenant, "isolatedproject", "liver-ct")
    }

    fn grant(&self) -> String {
        self.platform.eventually("a request", || {
            !self
                .platform
                .world
                .run(PROVIDER, &["get", "accessgrants", "-n", &self.provider, "-o", "name"])
                .text
                .is_empty()
        });
        let names = self
            .platform
            .world
            .run(PROVIDER, &["get", "accessgrants", "-n", &self.provider, "-o", "name"])
            .accepted();
        names.lines().last().unwrap().rsplit('/').next().unwrap().to_owned()
    }

    /// How many shards the host has attached to the machine.
    fn attached(&self) -> usize {
        let remembered = self.platform.remembered(HOST);
        let projects = remembered["projects"].as_object().cloned().unwrap_or_default();
        projects
            .values()
            .filter_map(|project| project["domains"]["train"]["shards"].as_array().map(Vec::len))
            .sum()
    }

    /// Keeps what a person sees, for the README's picture.
    fn show(&self, title: &str) {
        let table = self
            .platform
            .world
            .run(LEAD, &["get", "isolatedprojects", "-n", &self.tenant])
            .accepted();
        let requests = self
            .platform
            .world
            .run(PROVIDER, &["get", "accessgrants", "-n", &self.provider])
            .accepted();
        let explained = self
            .platform
            .dejima(LEAD, &["--lang", "en", "explain", "project", &format!("{}/liver-ct", self.tenant)]);
        let text = format!("{table}\n{requests}\n{}", String::from_utf8_lossy(&explained.stdout));
        std::fs::write(self.platform.dir().join(format!("screen-{title}.txt")), text).unwrap();
    }

    /// The records about mounts: writer and phase.
    fn mounts(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.platform
            .records()
            .iter()
            .filter(|record| record["act"]["kind"] == "mount")
            .map(|record| (text(&record["writer"]), text(&record["act"]["phase"])))
            .collect()
    }
}

#[test]
fn data_appears_when_everybody_has_agreed_and_is_gone_the_moment_the_grant_is() {
    let mut story = story();
    let platform = &story.platform;
    // It waits for the reviewers alone; nothing is exposed, nothing recorded, nothing attached.
    platform.eventually("only the review is missing", || {
        let project = story.project();
        let reasons = project["status"]["datasets"][0]["reasons"].as_array().cloned().unwrap_or_default();
        reasons.len() == 1 && reasons[0]["code"] == "ReviewPending"
    });
    assert_eq!(
        (
            story.attached(),
            story.mounts().len(),
            story.project()["status"]["exposed"].is_null()
        ),
        (0, 0, true)
    );
    let grant = format!("{}/{}", story.provider, story.grant());
    let screen = |title: &str| story.show(title);
    screen("waits");
    story.says(BOARD_JICHI, &["review", "approve", &grant]);
    platform.eventually("one approval", || {
        platform
            .world
            .run(PROVIDER, &["get", "accessgrants", "-n", &story.provider])
            .text
            .contains("1/2")
    });
    assert_eq!(story.attached(), 0, "one of two is not enough");
    story.says(BOARD_PLATFORM, &["review", "approve", &grant]);
    platform.eventually("mounted", || story.project()["status"]["summary"]["datasets"] == "1/1");
    assert_eq!(story.attached(), 1);
    screen("mounted");

    // Exposure was written before the mount, and the host's record of its beginning is the host's.
    let exposed = story.project()["status"]["exposed"][0].clone();
    assert_eq!(
        (exposed["dataset"].as_str().unwrap(), &exposed["version"]),
        (format!("{}/ct-mr", story.provider).as_str(), &json!(1))
    );
    let writer = format!("system:serviceaccount:dejima-host-{HOST}:hostd");
    assert_eq!(story.mounts(), [(writer.clone(), "begun".to_owned())]);
    let policy = platform
        .keys
        .run(&["policy", "read", &format!("dejima-host-{HOST}")], None)
        .unwrap();
    assert!(policy.contains("decrypt/shard-"), "the host may open the shard: {policy}");

    // A plan that somebody deletes by hand ends its mounts and destroys nothing; the operator writes it again.
    story.platform.stop("operator");
    let space = format!("dejima-host-{HOST}");
    story
        .platform
        .world
        .run(ADMIN, &["delete", "hostplans", "--all", "-n", &space])
        .accepted();
    story.platform.eventually("the mounts end", || story.attached() == 0);
    let recorded = |phase: &str| {
        let of = |record: &&Value| record["act"]["kind"] == "mount" && record["act"]["phase"] == phase;
        story.platform.records().iter().filter(of).count()
    };
    assert!(recorded("begun") > 0);
    story
        .platform
        .eventually("their end is on record, though no plan names the project", || {
            recorded("begun") == recorded("ended")
        });
    assert!(
        story.platform.remembered(HOST).to_string().contains("\"running\""),
        "the machine goes on"
    );
    // That they ended is on record, and somebody is told what is here without a plan.
    let (begun, ended) = ((writer.clone(), "begun".to_owned()), (writer.clone(), "ended".to_owned()));
    story
        .platform
        .eventually("the end is on record", || story.mounts() == [begun.clone(), ended.clone()]);
    let uid = story.project()["metadata"]["uid"].clone();
    let unplanned = || story.platform.world.get("", "host", HOST)["status"]["unplanned"].clone();
    story.platform.eventually("it is told", || unplanned() == json!([uid]));
    // What one life of hostd said, the next one takes back.
    story.platform.stop(HOST);
    story.platform.start_operator(None);
    story.platform.eventually("the plan is made again", || {
        !story
            .platform
            .world
            .run(ADMIN, &["get", "hostplans", "-n", &space, "-o", "name"])
            .text
            .is_empty()
    });
    story.platform.start_host(HOST, None);
    story.platform.eventually("the plan is back", || story.attached() == 1);
    story.platform.eventually("it is told no longer", || {
        !story.platform.world.get("", "host", HOST)["status"]["unplanned"][0].is_string()
    });
    let platform = &story.platform;

    // The end of the grant is the end of the mount, although the project can no longer be carried out as its lead has left it.
    let image = |name: &str| {
        let patch = format!(r#"[{{"op":"replace","path":"/spec/machines/0/image","value":"{name}"}}]"#);
        platform
            .world
            .patch(LEAD, &story.tenant, "isolatedproject", "liver-ct", &patch)
            .accepted();
    };
    image("nowhere");
    platform.eventually("it cannot be carried out", || {
        platform.condition(&story.tenant, "isolatedproject", "liver-ct", "Ready").1 == "ImageMissing"
    });
    assert_eq!(story.attached(), 1, "the control: what is permitted goes on");
    story.says(PROVIDER, &["grant", "revoke", &grant, "--reason", "asked to"]);
    platform.eventually("gone", || story.attached() == 0);
    image("probe");
    platform.eventually("it can be carried out again", || {
        platform.condition(&story.tenant, "isolatedproject", "liver-ct", "Ready").0 == "True"
    });
    platform.eventually("said", || {
        story.mounts() == [begun.clone(), ended.clone(), begun.clone(), ended.clone()]
    });
    platform.eventually("the key is closed", || {
        !platform
            .keys
            .run(&["policy", "read", &format!("dejima-host-{HOST}")], None)
            .unwrap_or_default()
            .contains("shard-")
    });
    let project = story.project();
    assert_eq!(project["status"]["datasets"][0]["reasons"][0]["code"], "Revoked");
    assert_eq!(
        project["status"]["exposed"][0]["dataset"], exposed["dataset"],
        "what was seen was seen"
    );
    assert_eq!(platform.condition(&story.tenant, "isolatedproject", "liver-ct", "Ready").0, "True");
}

#[test]
fn a_record_is_written_by_who_it_is_about_and_read_by_who_may() {
    let mut platform = Platform::new("records", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    platform.add_host("host-n", "{roles: [machines], schedulable: false}");
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let manifest = example(
        "isolatedproject-story.yaml",
        &[("namespace: osaka-radiology", &format!("namespace: {tenant}"))],
    );
    platform.world.create(LEAD, &manifest).accepted();
    platform.ready(&tenant, "liver-ct");
    let uid = platform.world.get(&tenant, "isolatedproject", "liver-ct")["metadata"]["uid"].clone();
    let act = |host: &str, activity: &str| json!({"activity": activity, "phase": "begun", "kind": "mount", "host": host, "project": {"namespace": tenant, "name": "liver-ct", "uid": uid}});
    let (own, other) = (
        format!("system:serviceaccount:dejima-host-{HOST}:hostd"),
        "system:serviceaccount:dejima-host-host-n:hostd",
    );
    let post = |login: &str, act: &Value| platform.ask(login, "POST", "/api/v1/records", Some(act)).0;
    assert_eq!(post(&own, &act(HOST, "a")), 201, "the control");
    assert_eq!(post(&own, &act(HOST, "a")), 200, "the same again");
    assert_eq!(post(&own, &act("host-n", "b")), 403, "in another host's name");
    assert_eq!(post(other, &act("host-n", "c")), 403, "about a project that is in no plan of its");
    assert_eq!(post(LEAD, &act(HOST, "d")), 403, "a person");
    let over = json!({"activity": "e", "phase": "ended", "kind": "mount", "host": HOST, "project": {"namespace": tenant, "name": "liver-ct", "uid": uid}});
    assert_eq!(post(&own, &over), 422, "an end without a beginning");
    assert_eq!(platform.ask(STUDENT, "GET", "/api/v1/records", None).0, 403);
    assert_eq!(platform.ask(OFFICE, "GET", "/api/v1/records", None).0, 200);
    let writers: Vec<Value> = platform.records().iter().map(|record| record["writer"].clone()).collect();
    assert!(
        writers.contains(&json!(own)) && writers.contains(&json!("system:serviceaccount:dejima-system:operator")),
        "{writers:?}"
    );
    platform
        .world
        .run(ADMIN, &["delete", "isolatedproject", "liver-ct", "-n", &tenant, "--timeout=30s"])
        .accepted();
}
