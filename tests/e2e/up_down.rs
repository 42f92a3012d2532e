//! What `cargo xtask up` makes stays after it, is found again with the story on it, and is gone after `cargo xtask down`.

use std::path::Path;
use std::process::Command;

use dejima_lab::{Binaries, Guest, Reporter as _, ToStderr, dicom};
use dejima_tests::parts::{built, program};
use dejima_tests::{place, root};

/// Run in namespaces of its own, so that nothing else on the machine comes or goes in the listings.
const SCRIPT: &str = r#"
set -eu
xtask=$1 program=$2 dir=$3 out=$4 examples=$5
ip link set lo up
listing() {
	ps -eo stat=,args= >"$out/all"
	# One that has ended and waits for process 1 runs no more.
	{ grep -v '^Z' "$out/all" | cut -d' ' -f2- | sed 's/^ *//' | sort
	lsns -rno NS,TYPE | sort
	cat /proc/self/mounts
	ip -o link
	nft list ruleset; } >"$out/$1"
}
# Where something fails on the way, nothing is left either.
trap '"$xtask" down --dir "$dir" >/dev/null 2>&1' EXIT
up() { "$xtask" up --yes --program "$program" --dir "$dir" "$@"; }
listing before
up --without-story >"$out/up" 2>&1
first=$(cat "$dir/etcd.pid")
# The whole story on the platform that stands, and then what is told where its data is sealed already.
up --story >"$out/whole" 2>&1
up >"$out/again" 2>&1
[ "$first" = "$(cat "$dir/etcd.pid")" ] || { echo "an up did not find the first" >&2; exit 1; }
# What it says that can be tried next, with a machine that runs when everything ends.
export KUBECONFIG=$(sed -n 's/.*export KUBECONFIG=//p' "$out/up") PATH=$dir/bin:$PATH
kubectl get hosts >"$out/hosts"
left() { kubectl get isolatedprojects -A -o name; kubectl get hosts -o json | grep -o '"heldBy"' || true; }
left >"$out/left"
kubectl create namespace osaka-radiology
kubectl apply -f "$examples/isolatedproject-story.yaml"
kubectl wait --for=condition=Ready isolatedproject/liver-ct -n osaka-radiology --timeout=120s
left >"$out/held"
kubectl dejima explain project osaka-radiology/liver-ct --lang en >"$out/explained"
listing while
"$xtask" down --dir "$dir" >"$out/down" 2>&1
listing after
"#;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The numbers of the steps that a run of `up` has told, in its order.
fn steps(told: &str) -> Vec<u32> {
    let number = |line: &str| line.split_once(". ")?.0.parse().ok();
    told.lines().filter_map(number).collect()
}

/// The first tenant's namespace that a story was told in.
fn tenant(told: &str) -> Option<&str> {
    let (before, _) = told.split_once("/liver-ct is ready on ")?;
    before.split_whitespace().next_back()
}

#[test]
fn what_up_makes_stays_is_found_again_and_is_gone_after_down() {
    let _alone = crate::running::alone();
    let xtask = built("xtask", "cargo build -p xtask");
    // There is no way to the outside in there: what is fetched once is fetched before.
    Binaries::get(&ToStderr).unwrap();
    Guest::get(&ToStderr).unwrap();
    dicom::images(&ToStderr).unwrap();
    let out = place("up-down");
    std::fs::create_dir_all(&out).unwrap();
    let dir = out.join("platform");
    let ran = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--mount-proc",
            "--kill-child=KILL",
            "--",
        ])
        .args(["bash", "-c", SCRIPT, "up-down"])
        .args([&xtask, &program(), &dir, &out, &root().join("examples")])
        .output()
        .unwrap();
    let said = || {
        let files = ["up", "whole", "again", "down"].map(|name| format!("--- {name}\n{}", read(&out.join(name))));
        format!("{}\n{}", String::from_utf8_lossy(&ran.stderr), files.join("\n"))
    };
    assert!(ran.status.success(), "{}", said());
    let (before, meanwhile, after) = (read(&out.join("before")), read(&out.join("while")), read(&out.join("after")));
    for part in ["etcd", "kube-apiserver", "bao", "operator", "libvirtd", "qemu-system", "mnt"] {
        assert!(meanwhile.contains(part), "the control: {part} runs while it is up\n{meanwhile}");
    }
    let count = |text: &str| text.lines().filter(|line| line.ends_with(" net")).count();
    assert_eq!(
        count(&meanwhile),
        count(&before) + 2,
        "the control: two hosts have networks of their own"
    );
    assert_eq!(before, after, "{}", said());
    assert!(!dir.exists(), "the directory is left");
    assert_eq!(read(&out.join("hosts")).lines().count(), 4, "{}", read(&out.join("hosts")));

    let (first, whole, again) = (read(&out.join("up")), read(&out.join("whole")), read(&out.join("again")));
    assert_eq!(steps(&first), [0; 0], "--without-story: {first}");
    assert_eq!(steps(&whole), [1, 2, 3, 4, 5, 6, 7, 8], "--story: {whole}");
    assert_eq!(steps(&again), [2, 3, 6, 7], "{again}");
    let spaces = [&whole, &again].map(|told| tenant(told).unwrap_or_else(|| panic!("{told}")));
    assert!(
        spaces.iter().all(|space| space.starts_with("osaka-")) && spaces[0] != spaces[1],
        "each story has namespaces of its own: {spaces:?}"
    );
    assert_eq!(read(&out.join("left")), "", "stories have left projects behind");
    assert_eq!(
        read(&out.join("held")),
        "isolatedproject.dejima.dev/liver-ct\n\"heldBy\"\n",
        "the control: the same look finds a project that is there"
    );
    for (name, told) in [("the whole story", &whole), ("the short one", &again)] {
        let took = told.lines().find(|line| line.starts_with("The story took"));
        ToStderr.say(&format!("{name}: {}", took.unwrap_or_else(|| panic!("{told}"))));
    }
}
