//! What is wrong with a project before anything is done for it: all at once, in the words of the manifest.

use std::collections::BTreeMap;
use std::path::Path;

use dejima_crds::DatasetSpec;
use dejima_crds::bounded::{Bytes, Label};
use dejima_crds::dataset::{Delivery, Source};
use dejima_crds::project::{IsolatedProjectSpec, Machine};

use crate::segment::machine_names;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `NotYetBuilt` or `Invalid`.
    pub reason: &'static str,
    /// Where, and what to do.
    pub message: String,
}

fn not_built(field: &str) -> Problem {
    Problem {
        reason: "NotYetBuilt",
        message: format!("{field} is not built yet: leave it out"),
    }
}

fn invalid(message: String) -> Problem {
    Problem {
        reason: "Invalid",
        message,
    }
}

/// Everything that is wrong with a spec, or asks for what is not built.
pub fn problems(spec: &IsolatedProjectSpec) -> Vec<Problem> {
    // Destructured without `..`: a new field does not compile until somebody says whether it is built.
    let IsolatedProjectSpec {
        title: _,
        purpose: _,
        institution: _,
        org_kind: _,
        country: _,
        members: _,
        terms_accepted: _,
        ethics: _,
        period: _,
        placement: _,
        machines,
        volumes,
        destroy_volumes: _,
        datasets,
        network,
        index,
    } = spec;
    let mut all = Vec::new();
    for machine in machines {
        let Machine {
            name,
            class,
            cpu: _,
            memory,
            image: _,
            count: _,
            devices,
            user_data: _,
        } = machine;
        if class.is_some() {
            all.push(not_built(&format!("machines[{name}].class")));
        }
        if !devices.is_empty() {
            all.push(not_built(&format!("machines[{name}].devices")));
        }
        if memory.as_ref().is_some_and(|memory| !within(memory, MEMORY)) {
            all.push(invalid(format!("machines[{name}].memory: give at least 64Mi and at most 64Ti")));
        }
    }
    for volume in volumes {
        if volume.backup {
            all.push(not_built(&format!("volumes[{}].backup", volume.name)));
        }
        if !within(&volume.size, VOLUME) {
            all.push(invalid(format!(
                "volumes[{}].size: give at least 16Mi and at most 4096Ti",
                volume.name
            )));
        }
    }
    if network.l2vpn.is_some() {
        all.push(not_built("network.l2vpn"));
    }
    if index.is_some() {
        all.push(not_built("index"));
    }
    all.extend(machines_together(machines));
    all.extend(paths(spec));
    all.extend(period(spec));
    let mut seen = std::collections::BTreeSet::new();
    for wish in datasets.iter().filter(|wish| !seen.insert((&wish.namespace, &wish.name))) {
        all.push(invalid(format!("datasets: {}/{} is listed twice", wish.namespace, wish.name)));
    }
    all
}

/// The least and the most bytes of memory of a machine.
const MEMORY: (u64, u64) = (64 << 20, 64 << 40);
/// The least and the most bytes of a volume.
const VOLUME: (u64, u64) = (16 << 20, 4096 << 40);
/// The most machines of a project.
const MACHINES: u64 = 64;
/// The most bytes of user data of all machines of a project, as they stand in its host plan, which holds all of it.
const USER_DATA: usize = 512 << 10;

fn within(amount: &Bytes, (least, most): (u64, u64)) -> bool {
    amount.count().is_some_and(|bytes| (least..=most).contains(&bytes))
}

/// What is wrong with machines that are each as they may be.
fn machines_together(machines: &[Machine]) -> Vec<Problem> {
    let mut all = Vec::new();
    let count: u64 = machines.iter().map(|machine| u64::from(machine.count)).sum();
    if count > MACHINES {
        // Their names are not counted up: nobody knows how many they would be.
        return vec![invalid(format!(
            "machines: they are {count}, counted with their count: a project has at most {MACHINES}"
        ))];
    }
    let mut names = BTreeMap::new();
    for machine in machines {
        for name in machine_names(&machine.name, machine.count) {
            if let Some(other) = names.insert(name.clone(), &machine.name) {
                all.push(invalid(format!(
                    "machines: one of {} and one of {other} would both be called {name}: rename one of the two",
                    machine.name
                )));
            }
        }
    }
    let bytes: usize = machines
        .iter()
        .filter_map(|machine| Some(as_json(machine.user_data.as_ref()?.as_str()) * usize::try_from(machine.count).ok()?))
        .sum();
    if bytes > USER_DATA {
        all.push(invalid(format!(
            "machines: their userData together, counted with their count, has {} KiB and may have {} KiB: let them read the rest from a volume",
            bytes >> 10,
            USER_DATA >> 10
        )));
    }
    all
}

/// How many bytes a text has inside JSON.
fn as_json(text: &str) -> usize {
    let sign = |sign: char| match sign {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        sign if sign.is_control() || matches!(sign, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => 6,
        sign => sign.len_utf8(),
    };
    text.chars().map(sign).sum()
}

/// What is wrong with what is kept, beside what is listed: `kept` are names of volumes that left the spec.
pub fn of_kept<'a>(spec: &IsolatedProjectSpec, kept: impl Iterator<Item = &'a Label>) -> Option<Problem> {
    let listed = |name: &&Label| spec.volumes.iter().any(|volume| volume.name == **name);
    let ordered = |name: &&Label| spec.destroy_volumes.contains(name);
    let stays = kept.filter(|name| !listed(name) && !ordered(name)).count();
    let all = stays + spec.volumes.len();
    (all > VOLUMES).then(|| {
        invalid(format!(
            "volumes: {} are listed and {stays} that left the list are kept, a project has at most {VOLUMES}: destroy some of status.keptVolumes \
             by naming them in destroyVolumes",
            spec.volumes.len()
        ))
    })
}

/// The most volumes of a project, listed or kept. With all of a list exchanged for another at once a host plan and `status.keptVolumes`
/// have room for them (256).
const VOLUMES: usize = 192;

/// The fields of a dataset that ask for what is not built.
pub fn of_dataset(spec: &DatasetSpec) -> Vec<&'static str> {
    // Destructured without `..`, as above. What describes the data asks for nothing.
    let DatasetSpec {
        catalogue_id: _,
        pid: _,
        aliases: _,
        title: _,
        description: _,
        programme: _,
        providers: _,
        count: _,
        formats: _,
        declared_bytes: _,
        processing: _,
        approvals: _,
        transfer: _,
        research_plan: _,
        notes: _,
        category: _,
        legal_class: _,
        legal_basis: _,
        licence: _,
        agreement: _,
        revision: _,
        policy_ref: _,
        suspended: _,
        withdrawn: _,
        source,
        delivery,
        // Where the custodian keeps it; nothing of ours reads it.
        subject_index_ref: _,
    } = spec;
    let Source {
        directory: _,
        nfs,
        cephfs,
        s3,
        shard_bytes: _,
    } = source;
    let asked = [
        (nfs.is_some(), "source.nfs is not built yet: use source.directory"),
        (cephfs.is_some(), "source.cephfs is not built yet: use source.directory"),
        (s3.is_some(), "source.s3 is not built yet: use source.directory"),
        (*delivery == Delivery::Share, "delivery: share is not built yet: use image"),
    ];
    asked.into_iter().filter_map(|(asked, name)| asked.then_some(name)).collect()
}

/// Two things of one machine must not lie at, or below, one path.
fn paths(spec: &IsolatedProjectSpec) -> Vec<Problem> {
    let of_volumes = spec.volumes.iter().map(|volume| (&volume.attach_to, volume.mount_path.as_str()));
    let of_datasets = spec
        .datasets
        .iter()
        .flat_map(|wish| wish.attach_to.iter().map(move |machine| (machine, wish.mount_path.as_str())));
    let mut machines: BTreeMap<&Label, Vec<&Path>> = BTreeMap::new();
    for (machine, path) in of_volumes.chain(of_datasets) {
        machines.entry(machine).or_default().push(Path::new(path));
    }
    let mut found = Vec::new();
    for (machine, mut paths) in machines {
        // In this order what lies below a path follows it; `above` are those that the next one may lie below.
        paths.sort();
        let mut above: Vec<&Path> = Vec::new();
        for path in paths {
            above.retain(|outer| path.starts_with(outer));
            found.extend(above.iter().map(|outer| {
                invalid(format!(
                    "mountPath: {} and {} lie in each other in machine {machine}",
                    outer.display(),
                    path.display()
                ))
            }));
            above.push(path);
        }
    }
    found
}

/// The period's end comes after its beginning; read in UTC, since no zone makes a wrong order right.
fn period(spec: &IsolatedProjectSpec) -> Option<Problem> {
    let zone = jiff::tz::TimeZone::UTC;
    match (spec.period.from.begins(&zone), spec.period.until.ends(&zone)) {
        (Ok(from), Ok(until)) if from < until => None,
        (Ok(_), Ok(_)) => Some(invalid(format!("period: {} ends before it begins", spec.period.until))),
        (Err(error), _) | (_, Err(error)) => Some(invalid(format!("period: {error}"))),
    }
}
