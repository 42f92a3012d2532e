//! Volumes that left the spec: kept with their data until their destruction is ordered; then a receipt says that it was carried out.
//!
//! ```text
//! left the spec -> plan: attached to nothing -> status.keptVolumes -> ordered -> plan: destroy -> host: ended -> receipt -> forgotten
//! ```
//! Each step waits until the one before was written down, so that no volume is destroyed of which nobody would know.

use std::collections::BTreeSet;

use dejima_crds::HostPlan;
use dejima_crds::bounded::{Bytes, Label, Line};
use dejima_crds::host_plan::{ItemState, ProjectPlan, VolumePlan};
use dejima_crds::names;
use dejima_crds::project::KeptVolume;
use dejima_crds::receipt::{HostEnd, Receipt, State};

use super::{Inputs, Step, host_of, of};
use crate::problems::{Problem, of_kept};

/// The kept volumes that were written down.
fn known<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a KeptVolume> {
    let status = inputs.project.status.as_ref();
    status.into_iter().flat_map(|status| &status.kept_volumes)
}

/// Whether there is no room for what is kept beside what is listed.
pub(super) fn too_many(inputs: &Inputs<'_>) -> Option<Problem> {
    of_kept(&inputs.project.spec, known(inputs).map(|kept| &kept.name))
}

fn is_listed(inputs: &Inputs<'_>, name: &Label) -> bool {
    inputs.project.spec.volumes.iter().any(|volume| volume.name == *name)
}

/// The volumes of a plan that are to be destroyed: ordered, and known to be kept. An order that the host has goes on although the
/// volume is listed again: then there is a new one once the old one is gone.
pub(super) fn ordered(inputs: &Inputs<'_>, current: Option<&ProjectPlan>) -> Vec<Label> {
    let spec = &inputs.project.spec.destroy_volumes;
    let given = |name: &Label| spec.contains(name) || current.is_some_and(|plan| plan.destroy.contains(name));
    let names: BTreeSet<&Label> = known(inputs).map(|kept| &kept.name).filter(|name| given(name)).collect();
    names.into_iter().cloned().collect()
}

/// Those of a plan's volumes that are kept: the spec lists them no more.
pub(super) fn detached(inputs: &Inputs<'_>, current: &ProjectPlan, ordered: &[Label]) -> Vec<VolumePlan> {
    let stays = |volume: &&VolumePlan| !is_listed(inputs, &volume.name) && !ordered.contains(&volume.name);
    let one = |volume: &VolumePlan| VolumePlan {
        attach_to: None,
        mount_path: None,
        ..volume.clone()
    };
    current.volumes.iter().filter(stays).map(one).collect()
}

/// How a host says that a volume stands, if it speaks of exactly this plan.
fn said<'a>(plan: &'a HostPlan, name: &Label) -> Option<(ItemState, &'a Line)> {
    let status = plan
        .status
        .as_ref()
        .filter(|status| status.plan_generation == plan.spec.plan_generation)?;
    let item = format!("volume/{name}");
    let found = status.items.iter().find(|known| known.item == item.as_str())?;
    Some((found.state, &found.since))
}

/// Kept volumes that their hosts have destroyed, and since when.
fn destroyed<'a>(inputs: &Inputs<'a>) -> Vec<(&'a KeptVolume, &'a Line)> {
    let one = |kept: &'a KeptVolume| {
        let plan = inputs.plans.iter().find(|plan| host_of(plan).as_ref() == Some(&kept.host))?;
        let ordered = plan.spec.project.as_ref().is_some_and(|plan| plan.destroy.contains(&kept.name));
        let (state, since) = said(plan, &kept.name).filter(|_| ordered)?;
        (state == ItemState::Ended).then_some((kept, since))
    };
    known(inputs).filter_map(one).collect()
}

/// A receipt for each volume that was destroyed: a function of what was written down.
pub(super) fn receipts(inputs: &Inputs<'_>) -> Vec<Step> {
    let one = |(kept, since): (&KeptVolume, &Line)| {
        let of = of(inputs);
        Step::Receipt(Box::new(Receipt {
            id: names::volume_receipt_id(&of.uid, &kept.name, since),
            project: Some(of),
            dataset: None,
            volume: Some(kept.name.clone()),
            state: State::Final,
            key_destroyed_at: since.clone(),
            hosts: vec![HostEnd {
                host: kept.host.clone(),
                closed_at: Some(since.clone()),
                unconfirmed_since: None,
            }],
            swept_at: Some(since.clone()),
            volumes: vec![kept.name.clone()],
            shards: Vec::new(),
            key_server_backup_horizon: inputs.horizon.clone(),
            issued_at: since.clone(),
        }))
    };
    destroyed(inputs).into_iter().map(one).collect()
}

/// What is kept now. One that was destroyed leaves the list with its receipt: this is written after the steps were carried out.
pub(super) fn volumes(inputs: &Inputs<'_>) -> Vec<KeptVolume> {
    let gone = destroyed(inputs);
    let mut all: Vec<KeptVolume> = known(inputs)
        .filter(|kept| !gone.iter().any(|(known, _)| known.name == kept.name))
        .filter(|kept| !is_listed(inputs, &kept.name) || is_being_destroyed(inputs, &kept.name))
        .cloned()
        .collect();
    for plan in inputs.plans.iter().filter(|plan| !plan.spec.ends) {
        let (Some(host), Some(project)) = (host_of(plan), &plan.spec.project) else {
            continue;
        };
        for volume in project.volumes.iter().filter(|volume| !is_listed(inputs, &volume.name)) {
            all.retain(|kept| kept.name != volume.name);
            all.push(KeptVolume {
                name: volume.name.clone(),
                host: host.clone(),
                size: size(volume.bytes),
                note: None,
            });
        }
    }
    for kept in &mut all {
        kept.note = note(inputs, kept).map(Into::into);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn is_being_destroyed(inputs: &Inputs<'_>, name: &Label) -> bool {
    let plans = inputs.plans.iter().filter_map(|plan| plan.spec.project.as_ref());
    plans.into_iter().any(|plan| plan.destroy.contains(name))
}

/// What is to be known about a kept volume.
fn note(inputs: &Inputs<'_>, kept: &KeptVolume) -> Option<&'static str> {
    if inputs.project.spec.destroy_volumes.contains(&kept.name) || is_being_destroyed(inputs, &kept.name) {
        return Some("its destruction is ordered");
    }
    let plan = inputs.plans.iter().find(|plan| host_of(plan).as_ref() == Some(&kept.host))?;
    let (state, _) = said(plan, &kept.name)?;
    match state {
        ItemState::Pending | ItemState::Failed => {
            Some("its machine still uses it: it is detached when nothing there has it open, or when the machine stops")
        }
        ItemState::Ready | ItemState::Ended | ItemState::Unknown => None,
    }
}

/// A number of bytes as people write it.
fn size(bytes: u64) -> Bytes {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let whole = units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(
        || Bytes::from(bytes.to_string()),
        |(unit, shift)| Bytes::from(format!("{}{unit}", bytes >> shift)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_size_is_written_so_that_it_is_read_again(bytes in 1_u64..1 << 49) {
            prop_assert_eq!(size(bytes).count(), Some(bytes));
        }
    }

    #[test]
    fn a_size_is_short_where_it_can_be() {
        assert_eq!(
            (size(64 << 20), size(3 << 40), size(1000)),
            ("64Mi".into(), "3Ti".into(), "1000".into())
        );
    }
}
