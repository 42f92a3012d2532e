//! The fault matrix: a life is lived twice without faults and must be the same; then once for each of its effects and each fate,
//! and must come to the same again.
//!
//! ```text
//! life             what people do to a platform, and the moments at which everything must be the clean run's
//! effect           a name (verb, object, n-th): what one part did to the world, `plan::effect`
//! fate             the process is killed after it; it fails; it times out after it took effect
//! ```
//!
//! By default a sample is carried out, drawn by a seed that is the same every day, so that CI is deterministic; `DEJIMA_TEST_SEED`
//! draws another one, `cargo xtask test --all` (`DEJIMA_TEST_ALL=1`) carries all of it out, and `DEJIMA_TEST_CASE` whatever has this
//! text in its name (`data: write`: of one matrix alone).

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use dejima_tests::ADMIN;
use dejima_tests::parts::Platform;
use serde_json::{Value, json};

const FATES: [&str; 3] = ["kill", "fail", "time-out"];
const OPERATOR: &str = "operator";
/// The seed of a day like any other.
const SEED: u64 = 20_260_401;
/// What comes by the clock and not by what is done: it may fall into a clean run or beside it, so that it is no part of the names
/// that are compared.
const BY_THE_CLOCK: [&str; 4] = ["renew lease/hostd", "say-alive host/", "say host", "write machineimage/"];
/// Beginnings of what a life with a fault may do although no clean one does it.
const RECOVERING: [&str; 2] = [
    // A key that was handed over for a call that then failed is taken back.
    "sweep stray/secret",
    // A key that was kept for a volume that then was not formatted is opened; it is not made again.
    "unwrap-key volume/",
];
/// An event that is not written is written no more (`operator::events`): its own loss is the only difference that may stay.
const LOST: &str = "announce event/";

/// What a matrix is.
pub(crate) struct Matrix {
    /// Its name in what is printed.
    pub(crate) name: &'static str,
    /// How many cases a sample has.
    pub(crate) sample: usize,
    /// How many it has at most where everything is asked for.
    pub(crate) whole: Option<usize>,
    /// Parts that the life itself starts again: what goes wrong of theirs does so from then on.
    pub(crate) restarted: &'static [&'static str],
    /// Beginnings of names that may come or not, as the moments fall: no part of what is compared.
    pub(crate) perhaps: &'static [&'static str],
    /// Effects beside the life's own, of a part that starts: (part, name).
    pub(crate) starting: &'static [(&'static str, &'static str)],
}

impl Matrix {
    /// One with a sample of so many cases, of which nothing else is to be said.
    pub(crate) fn of(name: &'static str, sample: usize) -> Self {
        Self {
            name,
            sample,
            whole: None,
            restarted: &[],
            perhaps: &[],
            starting: &[],
        }
    }
}

/// A platform on which lives are lived.
pub(crate) struct Stage {
    platform: Platform,
    hosts: Vec<&'static str>,
    case: String,
    // What goes wrong of a part that the life starts.
    armed: Option<Value>,
    known: BTreeMap<String, Value>,
    begun: state::Begun,
}

impl Deref for Stage {
    type Target = Platform;

    fn deref(&self) -> &Platform {
        &self.platform
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Platform {
        &mut self.platform
    }
}

/// One effect that is let go wrong.
struct Case<'a> {
    part: &'a str,
    name: &'a str,
    nth: u64,
    fate: &'static str,
}

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { part, name, nth, fate } = self;
        write!(f, "{name} #{nth} of {part} ({fate})")
    }
}

/// How often each part did what.
type Effects = BTreeMap<String, BTreeMap<String, u64>>;

impl Stage {
    /// A platform with operator and hosts, which are (re)started so that their effects are written down.
    pub(crate) fn new(platform: Platform, hosts: &[&'static str]) -> Self {
        Self {
            platform,
            hosts: hosts.to_vec(),
            case: "before".to_owned(),
            armed: None,
            known: BTreeMap::new(),
            begun: state::Begun::default(),
        }
    }

    fn parts(&self) -> Vec<&'static str> {
        self.hosts.iter().copied().chain([OPERATOR]).collect()
    }

    fn log(&self, part: &str) -> std::path::PathBuf {
        self.dir().join(format!("effects-{part}.log"))
    }

    /// What a part is told: where it writes its effects down, and which of them goes wrong.
    fn faults(&self, part: &str, case: Option<&Case<'_>>) -> Value {
        let mut faults = json!({"log": self.log(part)});
        if let Some(case) = case {
            let (verb, object) = case.name.split_once(' ').unwrap();
            for (field, value) in [("verb", verb), ("object", object), ("fate", case.fate)] {
                faults[field] = value.into();
            }
            faults["nth"] = case.nth.into();
        }
        faults
    }

    fn start(&mut self, part: &str, faults: &Value) {
        if part == OPERATOR {
            self.start_operator(Some(faults));
        } else {
            self.start_host(part, Some(faults));
        }
    }

    fn start_whole(&mut self, part: &str) {
        let faults = self.faults(part, None);
        self.start(part, &faults);
    }

    /// A host loses its power: its agent is gone, and with it what this changes in the world that it remembers. It comes back.
    pub(crate) fn power_cut(&mut self, host: &str, lose: impl FnOnce(&mut Value)) {
        self.stop(host);
        let mut world = self.remembered(host);
        lose(&mut world);
        std::fs::write(self.host_dir(host).join("world.json"), world.to_string()).unwrap();
        let faults = self.armed.take().unwrap_or_else(|| self.faults(host, None));
        self.start(host, &faults);
    }

    /// Starts again, without faults, what a fault has killed.
    fn revive(&mut self) {
        for part in self.parts() {
            if !self.runs(part) {
                self.start_whole(part);
            }
        }
    }

    /// Waits until something is so, whoever is killed meanwhile.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, so: &dyn Fn(&Platform) -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !so(&self.platform) {
            self.revive();
            if Instant::now() > end {
                // Says what the logs say, and stops.
                let words = ["get", "isolatedprojects", "-A", "-o", "jsonpath={.items[*].status.datasets}"];
                let verdicts = self.world.run(ADMIN, &words).text;
                self.platform.within(0, &format!("{}: {what} {verdicts}", self.case), || false);
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// A moment at which everything must come to be as it was in the clean run.
    #[track_caller]
    pub(crate) fn same(&mut self, moment: &str) {
        let Some(clean) = self.known.get(moment).cloned() else {
            let mut before = (self.state(), self.done());
            let end = Instant::now() + Duration::from_mins(1);
            // It stands still, and nobody does anything: what is still to come would make the next run another one.
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let now = (self.state(), self.done());
                if now == before {
                    self.known.insert(moment.to_owned(), now.0);
                    return;
                }
                let other = state::difference(&before.0, &now.0);
                assert!(
                    Instant::now() < end,
                    "{moment} does not come to rest: {other} {:?} {:?}",
                    before.1,
                    now.1
                );
                before = now;
            }
        };
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            let now = self.state();
            if now == clean {
                return;
            }
            self.revive();
            if Instant::now() > end {
                let what = format!(
                    "{}: at `{moment}` not everything is as in the clean run: {}",
                    self.case,
                    state::difference(&clean, &now)
                );
                self.platform.within(0, &what, || false);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn state(&self) -> Value {
        state::of(&self.platform, &self.hosts, &self.begun)
    }

    /// Lives once; what each part did.
    fn once(&mut self, case: String, live: &mut dyn FnMut(&mut Self)) -> Effects {
        self.case = case;
        self.begun = state::begin(&self.platform);
        live(self);
        self.revive();
        self.effects()
    }

    fn effects(&self) -> Effects {
        self.parts()
            .into_iter()
            .map(|part| (part.to_owned(), names(&self.log(part))))
            .collect()
    }

    /// What was done that does not come by the clock.
    fn done(&self) -> Effects {
        let mut all = self.effects();
        for names in all.values_mut() {
            names.retain(|name, _| !BY_THE_CLOCK.iter().any(|begins| name.starts_with(begins)));
        }
        all
    }

    fn forget_effects(&self) {
        for part in self.parts() {
            std::fs::write(self.log(part), "").unwrap();
        }
    }

    /// Carries a matrix out.
    pub(crate) fn run(&mut self, matrix: &Matrix, live: &mut dyn FnMut(&mut Self)) {
        let only = set("DEJIMA_TEST_CASE").unwrap_or_default();
        if only.split_once(": ").is_some_and(|(name, _)| name != matrix.name) {
            return;
        }
        self.known.clear();
        // What parts do when they start, with the world as the life finds it.
        self.forget_effects();
        for part in self.parts() {
            self.start_whole(part);
        }
        self.begun = state::begin(&self.platform);
        self.same("start");
        self.known.clear();
        let starting = self.effects();
        let clean = ["first", "second"].map(|run| {
            self.forget_effects();
            self.once(format!("{}, {run} clean run", matrix.name), live)
        });
        let [first, second] = &clean;
        let (once, again) = (matrix.names(first), matrix.names(second));
        let other: Vec<_> = once.symmetric_difference(&again).collect();
        assert!(other.is_empty(), "{}: of two clean runs one alone has {other:?}", matrix.name);

        let cases = cases(matrix, &starting, first, second);
        let (all, chosen) = (cases.len(), choose(matrix, cases));
        let mut allowed = matrix.names(first);
        allowed.extend(matrix.names(&starting));
        let (mut hit, mut missed, mut others) = (0, Vec::new(), Vec::new());
        for case in &chosen {
            self.forget_effects();
            let faults = self.faults(case.part, Some(case));
            if matrix.restarted.contains(&case.part) {
                self.armed = Some(faults);
            } else {
                self.start(case.part, &faults);
            }
            let effects = self.once(format!("{}: {case}", matrix.name), live);
            let found = matrix.names(&effects);
            others
                .extend(strange(case, &matrix.names(first), &allowed, &found).inspect(|other| say(&format!("{}: {other}\n", matrix.name))));
            // A part that was killed and revived has written its names into the same log.
            if effects[case.part].get(case.name).is_some_and(|count| *count >= case.nth) {
                hit += 1;
            } else {
                // How often something is written depends on how much comes together: the n-th may not be there.
                assert!(case.nth > 1, "{}: {case} was never reached", matrix.name);
                missed.push(case.to_string());
                self.start_whole(case.part);
            }
        }
        let names = matrix.names(first).len();
        let line = format!(
            "{}: {names} names, {all} cases with every n-th of each, {} carried out: {hit} hit, {} not reached {missed:?}\n",
            matrix.name,
            chosen.len(),
            missed.len()
        );
        say(&line);
        let summary = self.dir().parent().unwrap().join("faults.txt");
        let mut summary = std::fs::File::options().create(true).append(true).open(summary).unwrap();
        summary.write_all(line.as_bytes()).unwrap();
        assert!(hit * 2 >= chosen.len(), "{line}");
        assert!(others.is_empty(), "{}: {others:#?}", matrix.name);
    }
}

/// A variable of the environment that says something.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Tells a line although the test passes: past the capture of a test's output.
fn say(line: &str) {
    let _ = write!(std::io::stderr(), "{line}");
}

/// The names in a log, with how often each stands there.
fn names(path: &std::path::Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

impl Matrix {
    /// Whether an effect comes for its own sake.
    fn compares(&self, name: &str) -> bool {
        !BY_THE_CLOCK.iter().chain(self.perhaps).any(|begins| name.starts_with(begins))
    }

    /// What was done at all, by which part.
    fn names(&self, effects: &Effects) -> BTreeSet<(String, String)> {
        let mut all = BTreeSet::new();
        for (part, names) in effects {
            let names = names.keys().filter(|name| self.compares(name));
            all.extend(names.map(|name| (part.clone(), name.clone())));
        }
        all
    }
}

/// Each effect that both clean runs had, and each fate.
fn cases<'a>(matrix: &'a Matrix, starting: &Effects, first: &'a Effects, second: &Effects) -> Vec<Case<'a>> {
    let mut all = Vec::new();
    for (part, names) in first {
        for (name, count) in names.iter().filter(|(name, _)| matrix.compares(name)) {
            // Those of the start come before.
            let again = matrix.restarted.contains(&part.as_str());
            let before = starting[part].get(name).copied().filter(|_| !again).unwrap_or(0);
            let count = if name.starts_with(LOST) {
                1
            } else {
                *count.min(&second[part][name])
            };
            all.extend((before + 1..=before + count).map(|nth| (part.as_str(), name.as_str(), nth)));
        }
    }
    all.extend(matrix.starting.iter().map(|(part, name)| (*part, *name, 1)));
    let with = |(part, name, nth)| FATES.map(|fate| Case { part, name, nth, fate });
    all.into_iter().flat_map(with).collect()
}

/// Those that are carried out: all, those that were asked for, or a sample of as many effects as it can have.
fn choose<'a>(matrix: &Matrix, mut cases: Vec<Case<'a>>) -> Vec<Case<'a>> {
    if let Some(only) = set("DEJIMA_TEST_CASE") {
        cases.retain(|case| format!("{}: {case}", matrix.name).contains(&only));
        return cases;
    }
    let size = match (set("DEJIMA_TEST_ALL"), matrix.whole) {
        (Some(_), None) => return cases,
        (Some(_), Some(size)) => size,
        (None, _) => matrix.sample,
    };
    let seed = set("DEJIMA_TEST_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    say(&format!("{}: a sample of {size} by seed {seed}\n", matrix.name));
    // A number of its own for each: what else there is has no bearing on where a case comes.
    let number = |case: &Case<'_>| drawn(seed, &format!("{}: {case}", matrix.name));
    cases.sort_by_cached_key(number);
    let mut used = BTreeSet::new();
    cases.retain(|case| used.insert((case.part, case.name)));
    cases.truncate(size);
    cases
}

/// A number that a seed draws for a text: FNV-1a, then the end of splitmix64, which mixes it well.
fn drawn(seed: u64, text: &str) -> u64 {
    let hash = text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A life with a fault may do something twice; it does nothing that no clean one does, but to recover, and leaves nothing out.
/// What is not so.
fn strange(
    case: &Case<'_>,
    clean: &BTreeSet<(String, String)>,
    allowed: &BTreeSet<(String, String)>,
    found: &BTreeSet<(String, String)>,
) -> Option<String> {
    let explained = |name: &str| RECOVERING.iter().any(|begins| name.starts_with(begins));
    let more: Vec<_> = found.difference(allowed).filter(|(_, name)| !explained(name)).collect();
    let less: Vec<_> = clean.difference(found).filter(|(_, name)| !name.starts_with(LOST)).collect();
    let same = more.is_empty() && less.is_empty();
    (!same).then(|| format!("{case} has {more:?} beside what clean runs have, and lacks {less:?}"))
}
