//! Sealing 2 GB in 4,000 files, beside the same programs by hand.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dejima_lab::run::succeed;
use dejima_tests::PROVIDER;

use crate::figures::{Goal, Row};
use crate::running::{INTAKE, Running};

const FILES: usize = 4000;
const BYTES: usize = 500_000;

const SCRIPT: &str = r#"set -eu
cd "$1"
find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum > "$2/manifest"
mkfs.erofs -T0 --all-root "$2/image.erofs" . >/dev/null 2>&1
sha256sum "$2/image.erofs" > "$2/digest"
truncate -s $(($(stat -c %s "$2/image.erofs") + 2097152)) "$2/sealed.luks"
cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64 --pbkdf-force-iterations 1000 --key-size 512 --hash sha256 --key-file "$2/key" "$2/sealed.luks"
qemu-img convert -n --object secret,id=key,file="$2/key",format=raw -f raw --target-image-opts "$2/image.erofs" driver=luks,key-secret=key,file.driver=file,file.filename="$2/sealed.luks"
sha256sum "$2/sealed.luks" >> "$2/digest"
sync "$2/sealed.luks"
"#;

/// Files that no compression and no deduplication makes smaller.
fn fill(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let mut random = File::open("/dev/urandom").unwrap();
    let mut bytes = vec![0; BYTES];
    for number in 0..FILES {
        random.read_exact(&mut bytes).unwrap();
        let part = folder.join(format!("{:02}", number / 100));
        std::fs::create_dir_all(&part).unwrap();
        File::create(part.join(format!("{number:04}.dcm")))
            .unwrap()
            .write_all(&bytes)
            .unwrap();
    }
}

fn by_hand(source: &Path, work: &PathBuf) -> f64 {
    std::fs::create_dir_all(work).unwrap();
    // Any text will do: its content takes no time.
    std::fs::write(work.join("key"), "k".repeat(44)).unwrap();
    let begun = Instant::now();
    succeed(Command::new("sh").args(["-c", SCRIPT, "sh"]).arg(source).arg(work), None).unwrap();
    let took = begun.elapsed().as_secs_f64();
    std::fs::remove_dir_all(work).unwrap();
    took
}

/// Pairs, in turns; the rate of each in MB/s.
pub(crate) fn pairs(running: &Running, pairs: usize) -> Row {
    let source = running.platform.sources(INTAKE).join("jichi/large");
    fill(&source);
    #[expect(clippy::cast_precision_loss, reason = "2 GB")]
    let rate = |seconds: f64| (FILES * BYTES) as f64 / seconds / 1e6;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let name = format!("large-{pair}");
        let manifest = running.example(
            "dataset-story.yaml",
            &[("name: ct-mr,", &format!("name: {name},")), ("path: ct-mr}", "path: large}")],
        );
        assert!(manifest.contains(&name) && manifest.contains("path: large"), "{manifest}");
        let begun = Instant::now();
        running.platform.world.create(PROVIDER, &manifest).accepted();
        let object = format!("dataset/{name}");
        let wait = [
            "wait",
            "--for=condition=Ingested",
            "--timeout=300s",
            &object,
            "-n",
            &running.provider,
        ];
        running.platform.world.run(PROVIDER, &wait).accepted();
        ours.push(rate(begun.elapsed().as_secs_f64()));
        theirs.push(rate(by_hand(&source, &running.platform.dir().join("by-hand"))));
    }
    Row {
        what: "sealing 2 GB in 4,000 files",
        unit: "MB/s",
        ours,
        rival: Some(("the same programs by hand", theirs)),
        goal: Goal::Ratio(0.9),
    }
}
