//! `cargo xtask bench provision`: what the platform costs beside the same calls by hand, on real parts. A table, and a line of JSON.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench stops where it cannot go on, and prints what it found"
)]

mod by_hand;
mod data;
mod figures;
mod projects;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../e2e/running.rs"]
mod running;
mod seal;
mod terminal;

use figures::Row;
use running::Running;

/// The host that the platform has.
const HOST: &str = "host-m";
/// The host on which the same is done by hand.
const BY_HAND: &str = "host-h";

/// How often each figure is taken.
struct Counts {
    pairs: usize,
    revocations: usize,
    sealings: usize,
    idle_seconds: u64,
}

impl Counts {
    /// All of it, or with `DEJIMA_BENCH_SHORT` enough to see that it works.
    fn asked() -> Self {
        if std::env::var_os("DEJIMA_BENCH_SHORT").is_some() {
            return Self {
                pairs: 2,
                revocations: 3,
                sealings: 1,
                idle_seconds: 5,
            };
        }
        Self {
            pairs: 20,
            revocations: 100,
            sealings: 5,
            idle_seconds: 60,
        }
    }
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn main() {
    let counts = Counts::asked();
    say("==> a platform, a host of its own and one for the same by hand");
    // All data in one shard: by hand there is one disk too.
    let mut running = Running::new("bench", &[HOST], "usagepolicy-story.yaml", 1 << 30);
    running
        .platform
        .add_machine_host(BY_HAND, "{roles: [machines], schedulable: false}");
    running.platform.stop(BY_HAND);

    let mut rows: Vec<Row> = Vec::new();
    let mut part = |name: &str, measured: Vec<Row>| {
        say(&format!("==> {name}\n{}", figures::table(&measured)));
        rows.extend(measured);
    };
    part("projects, one at a time", projects::pairs(&running, counts.pairs));
    part("data that comes and goes", data::pairs(&running, counts.revocations));
    part("two projects at rest", projects::at_rest(&running, counts.idle_seconds));
    part("sealing", vec![seal::pairs(&running, counts.sealings)]);
    println!("{}", figures::table(&rows));
    println!("{}", figures::json("provision", &rows));
}
