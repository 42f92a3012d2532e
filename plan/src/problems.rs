//! What is wrong with a project before anything is done for it: all at once, in the words of the manifest.

use dejima_crds::DatasetSpec;
use dejima_crds::dataset::{Delivery, Source};
use dejima_crds::project::{IsolatedProjectSpec, Machine};

use crate::segment;

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
        if memory
            .as_ref()
            .is_some_and(|memory| memory.count().is_none_or(|bytes| bytes < 64 << 20))
        {
            all.push(invalid(format!("machines[{name}].memory: give at least 64Mi")));
        }
    }
    for volume in volumes {
        if volume.backup {
            all.push(not_built(&format!("volumes[{}].backup", volume.name)));
        }
        if volume.size.count().is_none_or(|bytes| bytes < 16 << 20) {
            all.push(invalid(format!("volumes[{}].size: give at least 16Mi", volume.name)));
        }
    }
    if network.l2vpn.is_some() {
        all.push(not_built("network.l2vpn"));
    }
    if index.is_some() {
        all.push(not_built("index"));
    }
    all.extend(machine_names(spec));
    all.extend(paths(spec));
    all.extend(period(spec));
    let mut seen = std::collections::BTreeSet::new();
    for wish in datasets.iter().filter(|wish| !seen.insert((&wish.namespace, &wish.name))) {
        all.push(invalid(format!("datasets: {}/{} is listed twice", wish.namespace, wish.name)));
    }
    all
}

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

/// Machines that are several alike are numbered: none of these names may be another machine's.
fn machine_names(spec: &IsolatedProjectSpec) -> Vec<Problem> {
    let mut seen = std::collections::BTreeSet::new();
    let all = spec
        .machines
        .iter()
        .flat_map(|machine| segment::machine_names(&machine.name, machine.count));
    all.filter(|name| !seen.insert(name.clone()))
        .map(|name| {
            invalid(format!(
                "machines: two machines are both called {name}: several alike are numbered from 0; give one of them another name"
            ))
        })
        .collect()
}

/// Two things of one machine must not lie at, or below, one path.
fn paths(spec: &IsolatedProjectSpec) -> Vec<Problem> {
    let of_volumes = spec.volumes.iter().map(|volume| (&volume.attach_to, volume.mount_path.as_str()));
    let of_datasets = spec
        .datasets
        .iter()
        .flat_map(|wish| wish.attach_to.iter().map(move |machine| (machine, wish.mount_path.as_str())));
    let all: Vec<_> = of_volumes.chain(of_datasets).collect();
    let mut found = Vec::new();
    for (at, (machine, path)) in all.iter().enumerate() {
        for (other_machine, other) in all.iter().skip(at + 1) {
            let inside = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}/"));
            if machine == other_machine && (inside(path, other) || inside(other, path)) {
                found.push(invalid(format!(
                    "mountPath: {path} and {other} lie in each other in machine {machine}"
                )));
            }
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
