//! Sealing, on real parts: real DICOM files, erofs, LUKS, the real key server. What comes out opens with the key alone, file for file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use dejima_lab::{ToStderr, dicom};
use dejima_tests::parts::Platform;
use dejima_tests::{OFFICE, PROVIDER, example};
use serde_json::Value;

const INTAKE: &str = "intake-1";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Path and SHA-256 of every file below a directory, by the program of that name.
fn digests(folder: &Path) -> BTreeMap<String, String> {
    let listed = run(Command::new("find")
        .current_dir(folder)
        .args([".", "-type", "f", "-exec", "sha256sum", "{}", "+"]));
    let split = |line: &str| line.split_once("  ./").map(|(digest, path)| (path.to_owned(), digest.to_owned()));
    listed.lines().filter_map(split).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp").arg("-r").arg(from).arg(to));
}

struct Sealing {
    platform: Platform,
    provider: String,
    source: PathBuf,
}

fn sealing() -> Sealing {
    let mut platform = Platform::new("seal", &[]);
    let provider = platform
        .world
        .namespace("jichi", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    platform.add_host(
        INTAKE,
        &format!("{{roles: [intake], intake: [{{namespace: {provider}, path: jichi}}]}}"),
    );
    let source = platform.sources(INTAKE).join("jichi/ct-mr");
    copy(&dicom::images(&ToStderr).unwrap(), &source);
    platform.start_operator(None);
    platform.start_host(INTAKE, None);
    let here = format!("namespace: {provider}");
    platform
        .world
        .create(PROVIDER, &example("usagepolicy-story.yaml", &[("namespace: jichi", &here)]))
        .accepted();
    Sealing {
        platform,
        provider,
        source,
    }
}

impl Sealing {
    fn offer(&self, name: &str, path: &str, more: &str) {
        let replace = [
            ("namespace: jichi", format!("namespace: {}", self.provider)),
            ("name: ct-mr,", format!("name: {name},")),
            ("path: ct-mr}", format!("path: {path}}}{more}")),
        ];
        let replace: Vec<(&str, &str)> = replace.iter().map(|(from, to)| (*from, to.as_str())).collect();
        self.platform
            .world
            .create(PROVIDER, &example("dataset-story.yaml", &replace))
            .accepted();
    }

    fn status(&self, name: &str) -> Value {
        self.platform.world.get(&self.provider, "dataset", name)["status"].clone()
    }

    /// Waits for a version; it.
    #[track_caller]
    fn sealed(&self, name: &str, version: u64) -> Value {
        let find = || {
            self.status(name)["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|found| found["version"] == version)
                .cloned()
        };
        self.platform
            .eventually(&format!("version {version} of {name}"), || find().is_some());
        find().unwrap()
    }

    fn raise(&self, name: &str, revision: u32) {
        let patch = format!(r#"[{{"op":"replace","path":"/spec/revision","value":{revision}}}]"#);
        self.platform
            .world
            .patch(PROVIDER, &self.provider, "dataset", name, &patch)
            .accepted();
    }

    /// Opens every shard of a version with its key and gives the files together.
    fn opened(&self, name: &str, version: &Value) -> BTreeMap<String, String> {
        let status = self.status(name);
        let mut files = BTreeMap::new();
        for id in version["shards"].as_array().unwrap() {
            let shard = status["shards"]
                .as_array()
                .unwrap()
                .iter()
                .find(|shard| shard["id"] == *id)
                .unwrap()
                .clone();
            let text = |field: &str| shard[field].as_str().unwrap().to_owned();
            let stored = self
                .platform
                .image_store()
                .join(format!("shards/{}.luks", text("storedDigest").trim_start_matches("sha256:")));
            let path = format!("transit/decrypt/{}", text("key"));
            let key = self
                .platform
                .keys
                .run(
                    &["write", "-field=plaintext", &path, &format!("ciphertext={}", text("wrappedKey"))],
                    None,
                )
                .unwrap();
            let home = self.platform.dir().join("opened").join(text("id"));
            let _ = std::fs::remove_dir_all(&home);
            std::fs::create_dir_all(&home).unwrap();
            let (secret, image, out) = (home.join("key"), home.join("image"), home.join("files"));
            std::fs::write(&secret, key.trim()).unwrap();
            let open = |secret: &Path| {
                let mut command = Command::new("qemu-img");
                command.args([
                    "convert",
                    "--object",
                    &format!("secret,id=k,file={},format=raw", secret.display()),
                    "-O",
                    "raw",
                    "--image-opts",
                ]);
                command
                    .arg(format!(
                        "driver=luks,key-secret=k,file.driver=file,file.filename={}",
                        stored.display()
                    ))
                    .arg(&image);
                command
            };
            let wrong = home.join("wrong");
            std::fs::write(&wrong, "A".repeat(44)).unwrap();
            assert!(!open(&wrong).output().unwrap().status.success(), "it opens with any key");
            run(&mut open(&secret));
            assert_eq!(
                run(Command::new("sha256sum").arg(&image)).split(' ').next().unwrap(),
                text("digest").trim_start_matches("sha256:")
            );
            run(Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg(&image));
            files.extend(digests(&out));
        }
        files
    }
}

#[test]
fn what_is_sealed_opens_with_its_key_alone_file_for_file_and_is_the_same_each_time() {
    let sealing = sealing();
    sealing.offer("ct-mr", "ct-mr", "");
    let first = sealing.sealed("ct-mr", 1);
    let files = digests(&sealing.source);
    assert!(files.len() >= 30, "{} files", files.len());
    assert_eq!(first["files"], files.len() as u64);
    assert_eq!(sealing.opened("ct-mr", &first), files);

    // Nothing of a file is readable in the store; the same search finds it in the source, and in the images once they are opened.
    let search = |folder: &Path, which: &str| {
        let mut grep = Command::new("grep");
        grep.args(["-rqa", &format!("--include={which}"), "DICM"]).arg(folder);
        grep.status().unwrap().success()
    };
    let holds = |folder: &Path| search(folder, "*");
    let images = sealing.platform.dir().join("opened");
    assert!(holds(&sealing.source) && search(&images, "image"), "the control");
    assert!(!holds(&sealing.platform.image_store()), "the store holds plain data");
    assert_eq!(
        std::fs::read_dir(sealing.platform.host_dir(INTAKE).join("scratch"))
            .unwrap()
            .count(),
        0,
        "scratch is left"
    );

    // The office vouches; then it is Mountable.
    assert_eq!(
        sealing.platform.condition(&sealing.provider, "dataset", "ct-mr", "Mountable").1,
        "Unattested"
    );
    for claim in ["approval", "agreement"] {
        let attest = sealing
            .platform
            .dejima(OFFICE, &["attest", "dataset", &format!("{}/ct-mr", sealing.provider), claim]);
        assert!(attest.status.success(), "{}", String::from_utf8_lossy(&attest.stderr));
    }
    sealing.platform.eventually("Mountable", || {
        sealing.platform.condition(&sealing.provider, "dataset", "ct-mr", "Mountable").0 == "True"
    });
    let row = sealing
        .platform
        .world
        .run(PROVIDER, &["get", "datasets", "-n", &sealing.provider])
        .accepted();
    let digest = first["digest"]
        .as_str()
        .unwrap()
        .trim_start_matches("sha256:")
        .get(..12)
        .unwrap()
        .to_owned();
    assert!(row.contains(&digest) && row.contains(&format!(" {} ", files.len())), "{row}");

    // The same files again: the same digests, no new shard, no new key.
    let keys = || {
        sealing
            .platform
            .keys
            .run(&["list", "transit/keys"], None)
            .unwrap()
            .matches("shard-")
            .count()
    };
    let before = keys();
    sealing.raise("ct-mr", 2);
    let second = sealing.sealed("ct-mr", 2);
    assert_eq!((&first["digest"], &first["shards"]), (&second["digest"], &second["shards"]));
    assert_eq!(keys(), before);
    // The intake host may use no key any more.
    let policy = || {
        sealing
            .platform
            .keys
            .run(&["policy", "read", &format!("dejima-host-{INTAKE}")], None)
            .unwrap_or_default()
    };
    sealing.platform.eventually("the keys are closed", || !policy().contains("shard-"));

    // In small shards it is still one tree; a version with one file changed shares the others.
    copy(&sealing.source, &sealing.source.parent().unwrap().join("small"));
    sealing.offer("small", "small", ", shardBytes: 400000");
    let first = sealing.sealed("small", 1);
    let shards = |version: &Value| version["shards"].as_array().unwrap().clone();
    assert!(shards(&first).len() >= 3, "{first}");
    assert_eq!(sealing.opened("small", &first), files);
    let (changed, _) = files.iter().next().unwrap();
    let path = sealing.source.parent().unwrap().join("small").join(changed);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    sealing.raise("small", 2);
    let second = sealing.sealed("small", 2);
    let shared = shards(&second).iter().filter(|id| shards(&first).contains(id)).count();
    assert_eq!(shared, shards(&first).len() - 1);
    assert_eq!(
        sealing.opened("small", &second),
        digests(path.parent().unwrap().ancestors().find(|folder| folder.ends_with("small")).unwrap())
    );

    // A link out of the root is named, never followed; without it the same source is sealed.
    copy(&sealing.source, &sealing.source.parent().unwrap().join("linked"));
    let link = sealing.source.parent().unwrap().join("linked/out.dcm");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    sealing.offer("linked", "linked", "");
    let said = || sealing.platform.condition(&sealing.provider, "dataset", "linked", "Ingested");
    sealing.platform.eventually("the link is named", || said().2.contains("out.dcm"));
    assert_eq!(said().1, "SealingFailed");
    std::fs::remove_file(&link).unwrap();
    sealing.sealed("linked", 1);

    // A namespace without an intake root on that host seals nothing.
    let stranger = sealing
        .platform
        .world
        .namespace("stranger", &[("dejima-provider", "dejima.dev/provider-jichi")]);
    sealing
        .platform
        .world
        .create(
            PROVIDER,
            &example("dataset-story.yaml", &[("namespace: jichi", &format!("namespace: {stranger}"))]),
        )
        .accepted();
    sealing.platform.eventually("it is told", || {
        sealing.platform.condition(&stranger, "dataset", "ct-mr", "Ingested").1 == "NoIntake"
    });
}
