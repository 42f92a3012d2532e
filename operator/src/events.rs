//! Events: what `kubectl describe` tells of each step. One for each condition that turned, none for one that only says more.

use dejima_crds::condition::{Condition, ConditionKind, Truth};
use dejima_crds::names;
use dejima_plan::effect::{Effect, through};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt as _};

use crate::Context;
use crate::pass::Error;

/// The conditions whose status or reason is another one than before.
fn turned<'a>(before: &[Condition], after: &'a [Condition]) -> Vec<&'a Condition> {
    let same = |new: &Condition| {
        let old = before.iter().find(|old| old.kind == new.kind);
        old.is_some_and(|old| old.status == new.status && old.reason == new.reason)
    };
    after.iter().filter(|new| !same(new)).collect()
}

/// Whether somebody should look: what must hold does not, or what must not does.
fn is_warning(condition: &Condition) -> bool {
    let bad = matches!(
        condition.kind,
        ConditionKind::Degraded | ConditionKind::Drifted | ConditionKind::Fenced
    );
    match condition.status {
        Truth::True => bad,
        // A project that is not being taken down yet, and says so: a notice of its end.
        Truth::False => matches!(condition.kind, ConditionKind::Admitted | ConditionKind::Terminating),
        Truth::Unknown => true,
    }
}

/// Says what turned, as events of an object. An event that cannot be written is no reason to stop: the condition says the same.
pub async fn announce<K>(context: &Context, object: &K, before: &[Condition], after: &[Condition])
where
    K: Resource<DynamicType = ()> + Send + Sync,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(context.client.clone(), &namespace);
    let kind = K::kind(&()).into_owned();
    for condition in turned(before, after) {
        // INVARIANT: this is an adapter's clock, as every write has one; nothing is decided by it.
        let now = jiff::Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(names::event_name(&object.name_any(), now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some(format!("{:?}", condition.kind)),
            reason: Some(condition.reason.to_string().chars().take(128).collect()),
            note: Some(note(format!(
                "{:?} is {:?}: {}",
                condition.kind, condition.status, condition.message
            ))),
            regarding: Some(ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(kind.clone()),
                name: Some(object.name_any()),
                namespace: Some(namespace.clone()),
                uid: object.meta().uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(names::OPERATOR.to_owned()),
            reporting_instance: Some(names::OPERATOR.to_owned()),
            type_: Some(if is_warning(condition) { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        let effect = Effect::new(format!("event/{}", kind.to_lowercase()), "announce");
        let written = through(context.gate.as_ref(), effect, async {
            let written = api.create(&PostParams::default(), &event).await;
            written.map(drop).map_err(|cause| Error::Api {
                what: "announce",
                name: object.name_any(),
                cause: Box::new(cause),
            })
        });
        if let Err(error) = written.await {
            tracing::debug!(kind, name = object.name_any(), error = %error, "an event was not written");
        }
    }
}

/// As much of a text as the API server takes of an event: 1,024 bytes, whatever they are letters of.
fn note(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(1024));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: ConditionKind, status: Truth, reason: &str, message: &str) -> Condition {
        Condition {
            kind,
            status,
            reason: reason.into(),
            message: message.into(),
            observed_generation: 1,
            last_transition_time: "2026-11-24T00:00:00Z".into(),
        }
    }

    #[test]
    fn a_note_has_room_whatever_it_is_written_in() {
        assert_eq!(note("short".to_owned()), "short");
        assert_eq!(note("島".repeat(1000)), "島".repeat(341));
    }

    #[test]
    fn only_what_turned_is_announced_and_what_somebody_should_look_at_is_a_warning() {
        let before = [
            condition(ConditionKind::Placed, Truth::True, "Held", "a"),
            condition(ConditionKind::Ready, Truth::False, "Waiting", "a"),
        ];
        let after = [
            condition(ConditionKind::Placed, Truth::True, "Held", "says more"),
            condition(ConditionKind::Ready, Truth::True, "Ready", "a"),
            condition(ConditionKind::Degraded, Truth::True, "NoEffectiveMember", "a"),
        ];
        let news: Vec<_> = turned(&before, &after)
            .into_iter()
            .map(|news| (news.kind, is_warning(news)))
            .collect();
        assert_eq!(news, [(ConditionKind::Ready, false), (ConditionKind::Degraded, true)]);
    }

    #[test]
    fn a_notice_of_an_end_is_a_warning_and_is_given_once() {
        let notice = |days: &str| condition(ConditionKind::Terminating, Truth::False, days, "until when");
        let (month, week) = (notice("DestructionWithin30Days"), notice("DestructionWithin7Days"));
        assert_eq!(
            turned(std::slice::from_ref(&month), std::slice::from_ref(&month)),
            Vec::<&Condition>::new()
        );
        assert_eq!(turned(std::slice::from_ref(&month), std::slice::from_ref(&week)), [&week]);
        assert!(is_warning(&week));
        assert!(!is_warning(&condition(ConditionKind::Terminating, Truth::True, "Terminating", "")));
    }
}
