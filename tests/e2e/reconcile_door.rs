//! The door on a real machine: who comes in, what he sees of it, who is put out and how fast, and what stays on record.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dejima_crds::door::is_tame;
use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, OTHER_LEAD, PROVIDER, STUDENT};
use serde_json::{Value, json};

use crate::running::{PROJECT, Running, stands};

const HOST: &str = "host-m";
const STRANGER: &str = "stranger@example.org";
/// The budget of the host's agent, in bytes a minute, and what of it may go at once.
const A_MINUTE: f64 = 262_144.0;
const AT_ONCE: f64 = A_MINUTE / 4.0;

/// Somebody at the console, through the binary; what he gets goes to files.
struct Visitor {
    child: Child,
    shown: PathBuf,
    said: PathBuf,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // It has ended already, where the test came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Visitor {
    fn comes(running: &Running, name: &str, login: &str, more: &[&str]) -> Self {
        let platform = &running.platform;
        let file = |kind: &str| platform.dir().join(format!("visit-{name}.{kind}"));
        let (shown, said) = (file("shown"), file("said"));
        let mut command = Command::new(platform.program());
        command
            .arg("--kubeconfig")
            .arg(platform.world.plane().kubeconfig(login))
            .env("DEJIMA_API", platform.api_address())
            .args(["console", &machine(running)])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&shown).unwrap())
            .stderr(std::fs::File::create(&said).unwrap());
        let child = command.spawn().unwrap();
        Self { child, shown, said }
    }

    /// The same, at a terminal: script (1) makes one, and everything that he gets goes to one file.
    fn at_a_terminal(running: &Running, name: &str, login: &str) -> Self {
        let platform = &running.platform;
        let shown = platform.dir().join(format!("visit-{name}.shown"));
        let line = format!(
            "stty rows 30 cols 100; {} --kubeconfig {} console {}; stty -a | grep -c ' echo '",
            platform.program().display(),
            platform.world.plane().kubeconfig(login).display(),
            machine(running)
        );
        let mut command = Command::new("script");
        command
            .args(["-q", "-c", &line, "/dev/null"])
            .env("DEJIMA_API", platform.api_address())
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&shown).unwrap())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let visitor = Self {
            child,
            said: shown.clone(),
            shown,
        };
        visitor.hears(platform, "you are in");
        visitor
    }

    /// The same, and he is in.
    #[track_caller]
    fn is_in(running: &Running, name: &str, login: &str, more: &[&str]) -> Self {
        let visitor = Self::comes(running, name, login, more);
        visitor.hears(&running.platform, "you are in");
        visitor
    }

    fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn screen(&self) -> String {
        String::from_utf8(std::fs::read(&self.shown).unwrap()).unwrap()
    }

    #[track_caller]
    fn sees(&self, platform: &Platform, text: &str) {
        platform.within(40, &format!("`{text}` on the screen"), || self.screen().contains(text));
    }

    /// Whether a text comes to stand on the screen within so many seconds.
    fn comes_to_see(&self, text: &str, seconds: u64) -> bool {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !self.screen().contains(text) {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    #[track_caller]
    fn hears(&self, platform: &Platform, text: &str) {
        platform.within(30, &format!("`{text}` beside the screen"), || {
            std::fs::read_to_string(&self.said).unwrap().contains(text)
        });
    }

    /// How long it took until he was out, and what he was told.
    fn is_out(&mut self, seconds: u64) -> (Duration, ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (begun.elapsed(), status, std::fs::read_to_string(&self.said).unwrap());
            }
            assert!(begun.elapsed().as_secs() < seconds, "he is still in");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn leaves(&mut self) {
        self.types("\u{1d}");
        assert!(self.is_out(10).1.success());
    }
}

fn machine(running: &Running) -> String {
    format!("{}/{PROJECT}/train", running.tenant)
}

/// Who asks at the door and is not let in: what he is told.
#[track_caller]
fn refused(running: &Running, login: &str, machine: &str) -> String {
    let api = running.platform.api_address();
    let answer = running.platform.dejima(login, &["console", machine, "--api", &api]);
    assert!(!answer.status.success(), "{login} came in");
    String::from_utf8_lossy(&answer.stderr)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn effective(running: &Running, login: &str) -> bool {
    let project = running.project();
    let members = project["status"]["members"].as_array().cloned().unwrap_or_default();
    members
        .iter()
        .any(|member| member["subject"] == login && member["effective"] == true)
}

/// Begins and ends of visits, as the office reads them: writer and act.
fn visits(platform: &Platform, phase: &str) -> Vec<(String, Value)> {
    let records = platform.records();
    let own = records
        .iter()
        .filter(|record| record["act"]["kind"] == "visit" && record["act"]["phase"] == phase);
    own.map(|record| (record["writer"].as_str().unwrap().to_owned(), record["act"].clone()))
        .collect()
}

/// Reads a recording with a key, against a head.
fn reads(platform: &Platform, folder: &Path, key: &str, head: &str) -> Option<String> {
    let mut command = Command::new(platform.program());
    command.args(["recording", "read", "--head", head]).arg(folder);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn effective_members_come_in_see_screens_alone_and_are_put_out_within_a_second() {
    let mut running = Running::new("door", &[HOST], "usagepolicy-story.yaml", 4_000_000);
    let two = "{subject: \"lead@osaka.example\", role: lead}, {subject: \"student@osaka.example\", role: researcher}";
    running.apply(&[("{subject: \"lead@osaka.example\", role: lead}", two)]);
    assert_eq!(running.platform.ready(&running.tenant, PROJECT), HOST);
    let platform = &running.platform;
    // A tenant's admin and a cluster admin, who are no members.
    platform
        .world
        .bind("dejima-tenant", "dejima.dev/tenant-kyoto", Some(&running.tenant));
    platform.world.bind("cluster-admin", "dejima.dev/provider-jichi", None);
    let train = machine(&running);
    let project = format!("{}/{PROJECT}", running.tenant);

    // Refused in plain words; Kubernetes' rights alone let nobody in.
    let can = |login: &str| {
        let asked = ["auth", "can-i", "create", "isolatedprojects/console", "-n", &running.tenant];
        platform.world.run(login, &asked).text.contains("yes")
    };
    platform.eventually("rights", || can(OTHER_LEAD) && can(PROVIDER));
    assert!(can(ADMIN) && !can(STRANGER), "who has the right");
    let said = refused(&running, STRANGER, &train);
    assert!(said.contains("the verb create on isolatedprojects/console"), "{said}");
    for login in [OTHER_LEAD, PROVIDER] {
        let said = refused(&running, login, &train);
        assert!(said.contains("you are no member of a project of this name"), "{login}: {said}");
        let nowhere = format!("{}/no-such-project/train", running.tenant);
        assert_eq!(refused(&running, login, &nowhere), said, "whether there is a project is not told");
    }
    platform.eventually("judged", || running.project()["status"]["members"].is_array());
    let said = refused(&running, LEAD, &train);
    assert!(said.contains("TermsNotAccepted"), "{said}");
    for login in [LEAD, STUDENT] {
        running.says(login, &["terms", "accept", &running.dataset(), "--project", &project]);
        platform.eventually("effective", || effective(&running, login));
    }
    assert_eq!(visits(platform, "begun").len(), 0, "nobody was in");

    // A prompt, a command, its output. What a guest may print to a terminal reaches nobody.
    let mut lead = Visitor::is_in(&running, "lead", LEAD, &[]);
    lead.types("\r");
    lead.sees(platform, "/ #");
    lead.types("echo canary-of-\"\"keys; echo sum-$((40 + 2))\r");
    lead.sees(platform, "sum-42");
    lead.types("clear; printf '\\033[?1049h\\033]52;c;aGVsbG8=\\007\\033]8;;x\\033\\\\linked\\033]8;;\\033\\\\\\033]0;title\\007\\033[6n%s\\n' over-\"\"and-out\r");
    lead.sees(platform, "linkedover-and-out");
    assert!(is_tame(&lead.screen()), "a sequence of the guest's came through");

    // Another one watches; his keys reach the machine once the first has left.
    let mut student = Visitor::is_in(&running, "student", STUDENT, &[]);
    student.hears(platform, "you are in, and watch");
    student.types("echo by-the-\"\"student\r");
    lead.types("echo by-the-\"\"lead\r");
    student.sees(platform, "by-the-lead");
    assert!(!student.screen().contains("by-the-student") && !lead.screen().contains("by-the-student"));
    lead.leaves();
    student.hears(platform, "your keys reach the machine now");
    student.types("\recho by-the-\"\"student\r");
    student.sees(platform, "by-the-student");
    assert!(is_tame(&student.screen()));

    // A flood is slow, bounded and on record.
    let begun = Instant::now();
    let before = student.screen().len();
    student.types("base64 /bin/busybox\r");
    std::thread::sleep(Duration::from_secs(20));
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand bytes")]
    let (bytes, most) = (
        (student.screen().len() - before) as f64,
        AT_ONCE + (A_MINUTE - AT_ONCE) / 60.0 * (begun.elapsed().as_secs_f64() + 1.0),
    );
    assert!(bytes <= most && bytes > most / 10.0, "{bytes} bytes, at most {most}");
    // An interrupt throws away what was typed behind it, and may end the shell: it is typed again until somebody reads it.
    student.types("\u{3}");
    let over = (0..20).any(|_| {
        student.types("\recho after-the-\"\"flood\r");
        student.comes_to_see("after-the-flood", 5)
    });
    assert!(over, "the flood does not end");

    // A ticket works once.
    let path = format!("/api/v1/projects/{project}/machines/train/console");
    let (status, ticket) = platform.ask(LEAD, "POST", &path, Some(&json!({"watch": true})));
    assert_eq!(status, 200, "{ticket}");
    let upgrade = |login: &str, ticket: &Value| {
        let token = platform.world.token(login).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--http1.1", "--max-time", "3"]);
        for header in [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ] {
            curl.args(["-H", header]);
        }
        curl.args(["-H", &format!("Authorization: Bearer {token}")]);
        let ticket = ticket["ticket"].as_str().unwrap();
        let output = curl
            .arg(format!("{}{path}?ticket={ticket}", platform.api_address()))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(upgrade(LEAD, &ticket), "101");
    assert_eq!(upgrade(LEAD, &ticket), "403", "twice");
    let (_, ticket) = platform.ask(LEAD, "POST", &path, Some(&json!({})));
    assert_eq!(upgrade(STUDENT, &ticket), "403", "somebody else's");

    // Who takes his acceptance back is put out; the other stays.
    let mut lead = Visitor::is_in(&running, "lead-again", LEAD, &["--watch"]);
    let accepted = running.project()["spec"]["termsAccepted"].as_array().unwrap().clone();
    let own = accepted.iter().position(|line| line["member"] == LEAD).unwrap();
    let patch = format!(r#"[{{"op":"remove","path":"/spec/termsAccepted/{own}"}}]"#);
    platform
        .world
        .patch(LEAD, &running.tenant, "isolatedproject", PROJECT, &patch)
        .accepted();
    let (took, status, said) = lead.is_out(10);
    assert!(
        !status.success() && said.contains("NotEffective") && said.contains("TermsNotAccepted"),
        "{said}"
    );
    std::fs::write(platform.dir().join("put-out.txt"), format!("{took:?}\n")).unwrap();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    student.types("echo still-\"\"here\r");
    student.sees(platform, "still-here");

    // Both ends of each visit are on record, written by the host, with the head of the recording.
    student.leaves();
    let login = format!("system:serviceaccount:dejima-host-{HOST}:hostd");
    platform.eventually("the ends are on record", || {
        visits(platform, "ended").len() == visits(platform, "begun").len()
    });
    let over = visits(platform, "ended");
    assert!(over.iter().all(|(writer, _)| *writer == login), "{over:?}");
    let of = |who: &str, reason: &str| {
        let found = over
            .iter()
            .find(|(_, act)| act["facts"]["who"] == who && act["facts"]["reason"] == reason);
        found.map(|(_, act)| act.clone()).unwrap()
    };
    assert_eq!(of(LEAD, "NotEffective")["outcome"], "cut-short");
    let first = of(LEAD, "Left");
    assert_eq!((&first["outcome"], &first["facts"]["machine"]), (&json!("done"), &json!("train")));

    // The recording opens with the project's key alone, and holds what was shown and typed; a flipped byte is found.
    let visit = first["activity"].as_str().unwrap().trim_start_matches("visit/").to_owned();
    let uid = running.project()["metadata"]["uid"].as_str().unwrap().to_owned();
    let recordings = platform.host_dir(HOST).join("visits").join(&uid);
    let folder = recordings.join(visit);
    platform.eventually("it is put away", || folder.exists());
    let kept: Value = serde_json::from_slice(&std::fs::read(folder.join("visit.json")).unwrap()).unwrap();
    let key = running.open_key(&uid, kept["wrappedKey"].as_str().unwrap()).unwrap();
    let head = first["facts"]["recording"].as_str().unwrap();
    let cast = reads(platform, &folder, &key, head).unwrap();
    let events: Vec<Value> = cast.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let holds = |code: &str, text: &str| {
        events
            .iter()
            .any(|event| event[1] == code && event[2].as_str().unwrap().contains(text))
    };
    assert!(
        holds("o", "sum-42") && holds("i", "sum-$((40 + 2))") && holds("m", "you left"),
        "{cast}"
    );
    assert!(cast.lines().next().unwrap().contains("\"version\":3"));
    let chunks = folder.join("chunks");
    let mut bytes = std::fs::read(&chunks).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&chunks, &bytes).unwrap();
    assert_eq!(reads(platform, &folder, &key, head), None, "a flipped byte");
    bytes[middle] ^= 1;
    std::fs::write(&chunks, &bytes).unwrap();
    assert!(reads(platform, &folder, &key, head).is_some(), "the control");

    // What was typed and shown lies nowhere in the clear on the host's disk.
    for disk in [platform.host(HOST).dir().to_path_buf(), platform.host_dir(HOST)] {
        for secret in ["canary-of-keys", "sum-42", "by-the-student"] {
            assert!(!stands(secret, &disk), "`{secret}` lies in {}", disk.display());
            std::fs::write(disk.join("control"), format!("....{secret}....")).unwrap();
            assert!(stands(secret, &disk), "the control: the same search finds `{secret}`");
            std::fs::remove_file(disk.join("control")).unwrap();
        }
    }

    // A host's agent that is killed while somebody is in: he is out, and the next life says the end.
    let mut student = Visitor::is_in(&running, "student-again", STUDENT, &[]);
    let begun = visits(platform, "begun").len();
    let pid = platform.hostd_pid(HOST).to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let (_, status, said) = student.is_out(10);
    assert!(!status.success() && said.contains("HostGone"), "{said}");
    running.platform.start_host(HOST, None);
    let platform = &running.platform;
    platform.eventually("the end is on record", || visits(platform, "ended").len() == begun);
    let over = visits(platform, "ended");
    assert_eq!(over.last().unwrap().1["facts"]["reason"], "HostGone");

    // A project that is deleted puts everybody out.
    platform.eventually("the door is open again", || {
        platform.ask(STUDENT, "POST", &path, Some(&json!({}))).0 == 200
    });
    let mut student = Visitor::at_a_terminal(&running, "student-last", STUDENT);
    student.types("\recho in-a-\"\"terminal\r");
    student.sees(platform, "in-a-terminal");
    let delete = ["delete", "isolatedproject", PROJECT, "-n", &running.tenant, "--wait=false"];
    platform.world.run(LEAD, &delete).accepted();
    let (took, _, said) = student.is_out(10);
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    // His own screen is back before he is told why, and his terminal shows again what he types.
    let (during, after) = said.split_once("\u{1b}[?1049l").unwrap();
    assert!(during.contains("\u{1b}[?1049h") && after.contains("ProjectEnds"), "{said}");
    assert_eq!(after.trim_end().lines().last(), Some("1"), "{after}");
    platform.eventually("the last end is on record", || {
        visits(platform, "ended").len() == visits(platform, "begun").len()
    });
    let wait = [
        "wait",
        "--for=delete",
        "isolatedproject",
        PROJECT,
        "-n",
        &running.tenant,
        "--timeout=60s",
    ];
    platform.world.run(ADMIN, &wait).accepted();
    platform.within(15, "its recordings are gone", || !recordings.exists());
}
