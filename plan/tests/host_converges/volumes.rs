//! Volumes of a running project: they grow, come, leave with their data, and are destroyed by order alone.

use super::*;

/// Volumes of one plan: for each name where it is (a machine, kept, or not in the plan), how large, and whether it is destroyed.
type Volumes = Vec<(Option<Option<usize>>, u64, bool)>;

/// A plan with two machines and these volumes.
fn with_volumes(wanted: &Volumes, power: Power) -> HostPlanSpec {
    let mut spec = plan(2, 0, 1, power);
    let project = spec.project.as_mut().unwrap();
    for (at, (place, bytes, destroyed)) in wanted.iter().enumerate() {
        let name = format!("v{at}");
        let attached = place.map(|machine| machine.map(|machine| format!("m{machine}")));
        if let Some(machine) = attached {
            let path = machine.as_ref().map(|_| format!("/{name}"));
            let volume = json!({"name": name, "uid": format!("u-{name}"), "serial": format!("{at:032}"), "bytes": bytes, "attachTo": machine, "mountPath": path});
            project.volumes.push(serde_json::from_value(volume).unwrap());
        } else if *destroyed {
            project.destroy.push(name.as_str().into());
        }
    }
    spec
}

fn volumes() -> impl Strategy<Value = Volumes> {
    let place = prop_oneof![Just(None), Just(Some(None)), Just(Some(Some(0))), Just(Some(Some(1)))];
    proptest::collection::vec((place, prop_oneof![Just(1024_u64), Just(2048)], any::<bool>()), 3)
}

/// The names of what is done, and that it is done.
fn done(spec: &HostPlanSpec, host: &mut Observed) -> Vec<String> {
    let named = carry_out(spec, host, usize::MAX);
    assert!(everything_is_ready(spec, host), "{named:?}");
    named
}

#[test]
fn a_volume_that_grows_reaches_the_machine_that_runs() {
    let (small, large) = (vec![(Some(Some(0)), 1024, false)], vec![(Some(Some(0)), 2048, false)]);
    let (spec, mut host) = (with_volumes(&small, Power::Running), empty());
    done(&spec, &mut host);
    let spec = with_volumes(&large, Power::Running);
    let plan = spec.project.as_ref().unwrap();
    assert_eq!(
        next(&spec, plan, &host, now()).actions,
        [Action::GrowVolume(plan.volumes[0].clone())]
    );
    apply(plan, &mut host, &Action::GrowVolume(plan.volumes[0].clone()));
    let half = next(&spec, plan, &host, now());
    assert_eq!(half.actions, [Action::ResizeVolume("m0".into(), plan.volumes[0].clone())]);
    let state = |next: &dejima_plan::host::Next| next.items.iter().find(|(item, ..)| item == "volume/v0").unwrap().1;
    assert_eq!(state(&half), ItemState::Pending, "the machine has not seen it yet");
    apply(plan, &mut host, &half.actions[0]);
    let whole = next(&spec, plan, &host, now());
    assert_eq!((whole.actions.len(), state(&whole)), (0, ItemState::Ready));
}

#[test]
fn a_volume_leaves_a_machine_once_its_guest_has_let_go_or_its_destruction_is_ordered() {
    let (spec, mut host) = (with_volumes(&vec![(Some(Some(0)), 1024, false)], Power::Running), empty());
    done(&spec, &mut host);
    let kept = with_volumes(&vec![(Some(None), 1024, false)], Power::Running);
    let told = carry_out(&kept, &mut host, 1);
    assert!(told[0].contains("tell"), "{told:?}");
    // The guest still uses it.
    list(&mut host.domains)[0].answered = false;
    let left = next(&kept, kept.project.as_ref().unwrap(), &host, now());
    assert_eq!(left.actions, []);
    assert!(
        left.items
            .contains(&("volume/v0".to_owned(), ItemState::Pending, Some("vault:v1:YQ==".into())))
    );
    // An order to destroy does not wait for it, and the bytes go once no process has the key.
    let ordered = with_volumes(&vec![(None, 1024, true)], Power::Running);
    let mut other = host.clone();
    let first = next(&ordered, ordered.project.as_ref().unwrap(), &other, now()).actions;
    assert_eq!(first, [Action::DetachVolume("m0".into(), "v0".into())]);
    assert!(
        carry_out(&ordered, &mut other, usize::MAX)
            .iter()
            .any(|name| name.contains("remove"))
    );
    let gone = next(&ordered, ordered.project.as_ref().unwrap(), &other, now());
    assert_eq!(
        gone.items.iter().find(|(item, ..)| item == "volume/v0").unwrap().1,
        ItemState::Ended
    );
    // It lets go.
    list(&mut host.domains)[0].answered = true;
    assert_eq!(done(&kept, &mut host).len(), 1);
    assert_eq!(host.volumes.present().unwrap().len(), 1, "kept");
}

#[test]
fn no_volume_is_destroyed_while_nobody_can_tell_whether_a_machine_has_it() {
    let (spec, mut host) = (with_volumes(&vec![(Some(None), 1024, false)], Power::Running), empty());
    done(&spec, &mut host);
    let ordered = with_volumes(&vec![(None, 1024, true)], Power::Running);
    let removes = |host: &Observed| {
        let todo = next(&ordered, ordered.project.as_ref().unwrap(), host, now());
        todo.actions.iter().any(|action| matches!(action, Action::RemoveVolume(_)))
    };
    assert!(removes(&host), "the control");
    host.domains = Seen::Unknown;
    assert!(!removes(&host));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The same for volumes: made, grown, attached, moved, detached, kept, destroyed, in machines that run or are stopped.
    #[test]
    fn volumes_come_and_go_and_a_change_that_was_cut_short_is_simply_continued(
        first in volumes(), second in volumes(), stopped in any::<bool>(), cut in 0_usize..30,
    ) {
        let before = with_volumes(&first, Power::Running);
        let after = with_volumes(&second, if stopped { Power::Stopped } else { Power::Running });
        let host = cut_twice(&before, &after, cut)?;
        // What is there is what the plan says, and what no plan ordered to be destroyed.
        let plan = after.project.as_ref().unwrap();
        let left = next(&after, plan, &host, now());
        prop_assert_eq!(left.actions, vec![]);
        for (item, state, _) in left.items {
            let wanted = if plan.destroy.iter().any(|name| item == format!("volume/{name}")) { ItemState::Ended } else { ItemState::Ready };
            prop_assert!(state == wanted || (stopped && item.starts_with("mount/")), "{} is {:?}", item, state);
        }
        for domain in host.domains.present().unwrap() {
            let wanted = volumes_of(plan, &mut host.clone(), &domain.machine);
            // One that is off sees how large they are at its start.
            prop_assert!(domain.volumes == wanted || (stopped && domain.volumes.keys().eq(wanted.keys())), "{:?} and {:?}", domain, wanted);
        }
    }
}
