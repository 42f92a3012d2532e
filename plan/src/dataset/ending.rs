//! The end of a dataset that was deleted: its mounts end at once (the verdict says so), it is held, then the keys of its
//! shards are destroyed, the images leave the image store, and a receipt says it.

use std::collections::BTreeSet;

use dejima_crds::bounded::{KeyName, ObjectName};
use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, get, seconds};
use dejima_crds::host_plan::{HostPlanSpec, IntakePlan};
use dejima_crds::names;
use dejima_crds::receipt::{HostEnd, Receipt, State};
use jiff::Timestamp;

use super::{Inputs, Next, Step, identity, is_finalized, known, nothing};
use crate::project::{host_of, said};

/// The reason of `Destroyed` once the keys are.
const DESTROYED: &str = "KeysDestroyed";

/// What can be done now.
pub(super) fn next(inputs: &Inputs<'_>) -> Next {
    let (dataset, now) = (inputs.dataset, inputs.now);
    if !is_finalized(dataset) {
        return nothing(None);
    }
    let status = dataset.status.clone().unwrap_or_default();
    let plan = inputs.plans.iter().find(|plan| plan.spec.intake.is_some()).copied();
    let intake = plan.and_then(|plan| plan.spec.intake.as_ref());
    // The intake host may use no key of it any more, whatever it was sealing.
    let close = plan.and_then(host_of).map(|host| Step::CloseKeys { host });
    let keys: BTreeSet<KeyName> = status
        .shards
        .iter()
        .map(|shard| shard.key.clone())
        .chain(intake.iter().flat_map(|intake| &intake.keys).map(|key| key.key.clone()))
        .collect();
    if keys.is_empty() && plan.is_none() {
        // Nothing of it was ever sealed: there is nothing to hold.
        return Next {
            steps: vec![Step::Unfinalize],
            ..nothing(None)
        };
    }
    let say = |status, reason: &str, message: String| {
        Some(ConditionDraft {
            kind: ConditionKind::Destroyed,
            status,
            reason: reason.to_owned(),
            message,
            observed_generation: dataset.metadata.generation.unwrap_or(0),
        })
    };
    if let Some(until) = inputs.held_until.filter(|until| now < *until) {
        let message = format!(
            "it was deleted: nothing of it is mounted any more; its keys are destroyed at {}",
            seconds(until)
        );
        return Next {
            steps: close.into_iter().collect(),
            end: say(Truth::False, "Held", message),
            again: Some(until),
            ..nothing(None)
        };
    }
    let host = ObjectName::from(intake.map_or_else(
        || {
            dataset
                .spec
                .source
                .directory
                .as_ref()
                .map_or("", |source| source.host.as_str())
                .to_owned()
        },
        |intake| intake.source.host.to_string(),
    ));
    let is_known = inputs
        .hosts
        .iter()
        .any(|known| known.metadata.name.as_deref() == Some(host.as_str()));
    // The host is told before the key server is asked for anything: it ends although that is silent.
    let mut steps = Vec::new();
    if is_known && plan.is_none_or(|plan| !plan.spec.ends) {
        steps.extend(order(inputs, &host, intake));
    }
    steps.extend(close);
    let destroyed = get(&status.conditions, ConditionKind::Destroyed)
        .filter(|condition| condition.reason == DESTROYED)
        .and_then(|condition| condition.last_transition_time.as_str().parse::<Timestamp>().ok());
    let end = say(
        Truth::True,
        DESTROYED,
        "the keys of its shards are destroyed: every copy is noise".to_owned(),
    );
    let Some(destroyed) = destroyed else {
        // The receipt says when, hence comes once that was written down.
        steps.push(Step::DestroyKeys {
            keys: keys.into_iter().collect(),
        });
        return Next {
            steps,
            end,
            ..nothing(None)
        };
    };
    let closed = plan.and_then(|plan| said(plan, |status| status.closed_at.as_ref()));
    let swept = plan.and_then(|plan| said(plan, |status| status.swept_at.as_ref()));
    let asked = dataset.metadata.deletion_timestamp.as_ref().map_or(destroyed, |at| at.0);
    let shards: BTreeSet<_> = status
        .shards
        .iter()
        .map(|shard| shard.id.clone())
        .chain(intake.iter().flat_map(|intake| &intake.keys).map(|key| key.shard.clone()))
        .collect();
    let dataset = identity(dataset);
    steps.push(Step::Receipt(Box::new(Receipt {
        id: names::receipt_id(&dataset.uid),
        project: None,
        dataset: Some(dataset),
        volume: None,
        state: if closed.is_some() { State::Final } else { State::Partial },
        key_destroyed_at: seconds(destroyed),
        hosts: vec![HostEnd {
            host: host.clone(),
            closed_at: closed.map(seconds),
            unconfirmed_since: closed.is_none().then(|| seconds(asked)),
        }],
        swept_at: swept.map(seconds),
        volumes: Vec::new(),
        shards: shards.into_iter().collect(),
        key_server_backup_horizon: inputs.horizon.clone(),
        issued_at: seconds(closed.into_iter().chain(swept).fold(destroyed.max(asked), Timestamp::max)),
    })));
    // A host that an admin took away for good confirms nothing, and nothing waits for it: the receipt stays partial.
    if swept.is_some() || !is_known {
        steps.extend(plan.and_then(host_of).map(|host| Step::Forget { host }));
        steps.push(Step::Unfinalize);
    }
    Next {
        steps,
        end,
        ..nothing(None)
    }
}

/// The order to take everything of it out of the image store.
fn order(inputs: &Inputs<'_>, host: &ObjectName, intake: Option<&IntakePlan>) -> Option<Step> {
    let plan = inputs.plans.iter().find(|plan| plan.spec.intake.is_some());
    let source = inputs.dataset.spec.source.directory.clone();
    let bare = || {
        Some(IntakePlan {
            dataset: identity(inputs.dataset),
            version: inputs.dataset.spec.revision,
            source: source?,
            // Nothing is read by this order.
            root: "none".into(),
            shard_bytes: inputs.dataset.spec.source.shard_bytes,
            known: Vec::new(),
            keys: Vec::new(),
        })
    };
    let wanted = IntakePlan {
        known: known(&inputs.dataset.status.clone().unwrap_or_default()),
        ..intake.cloned().or_else(bare)?
    };
    let plan_generation = plan.map_or_else(|| crate::first_generation(inputs.now), |plan| plan.spec.plan_generation + 1);
    Some(Step::Write {
        host: host.clone(),
        spec: Box::new(HostPlanSpec {
            plan_generation,
            ends: true,
            project: None,
            intake: Some(wanted),
        }),
        from: plan.and_then(|plan| plan.metadata.resource_version.clone()),
    })
}
