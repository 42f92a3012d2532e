//! What every driver of networks does: the real one, and the one that remembers.

use dejima_crds::bounded::Uid;
use dejima_crds::host_plan::Segment;
use dejima_hostd::driver::Network;
use dejima_plan::Seen;
use dejima_plan::host::segment_digest;

use crate::{as_kept, drawn, proved};

/// One host, and what the suite needs of it.
pub(crate) struct Bench<'a> {
    /// The driver in a new life.
    pub(crate) next_life: &'a dyn Fn() -> Box<dyn Network>,
    /// Somebody else changes the rules in force.
    pub(crate) change: &'a dyn Fn(),
}

pub(crate) async fn suite(bench: Bench<'_>) {
    let (one, two, three) = (Uid::from("p-1"), Uid::from("p-2"), Uid::from("p-3"));
    let egress = [("192.0.2.0/24", 443), ("198.51.100.0/24", 443)];
    let (open, closed) = (drawn(&one, 2, &egress), drawn(&one, 2, &egress[..1]));
    let beside = drawn(&two, 1, &egress);
    let network = (bench.next_life)();

    // Nothing is there: nothing to prove, and nothing to remove.
    assert_eq!(network.observe(&one).await, Seen::Absent);
    assert!(network.prove(&one, &open).await.is_err(), "nothing is sealed");
    network.remove(&one).await.unwrap();
    assert!(
        network.seal(&one, &unreadable(&open)).await.is_err(),
        "rules were made of what is no address"
    );
    assert_eq!(network.observe(&one).await, Seen::Absent);

    // Sealed once, however often it is asked for; proved until rules are loaded again.
    network.seal(&one, &open).await.unwrap();
    network.seal(&one, &open).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&open, false));
    proved(network.prove(&one, &open).await);
    network.seal(&one, &open).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&open, true), "nothing was loaded again");
    proved(network.prove(&one, &open).await);
    assert_eq!(network.observe(&one).await, as_kept(&open, true));

    // The next life finds it, and proves again.
    drop(network);
    let network = (bench.next_life)();
    assert_eq!(network.observe(&one).await, as_kept(&open, false));
    proved(network.prove(&one, &open).await);

    // An entry closes: other rules are in force, and the proof of the old ones is void.
    assert!(network.prove(&one, &closed).await.is_err(), "what is not in force was proved");
    network.seal(&one, &closed).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&closed, false));
    assert!(network.prove(&one, &open).await.is_err(), "what is in force no more was proved");
    proved(network.prove(&one, &closed).await);

    // Another project's rules come into force beside it: whatever was proved on this host is proved anew.
    network.seal(&two, &beside).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&closed, false));
    proved(network.prove(&one, &closed).await);
    proved(network.prove(&two, &beside).await);
    assert_eq!(network.observe(&one).await, as_kept(&closed, true));
    assert_eq!(network.observe(&two).await, as_kept(&beside, true));

    // A third whose network one of them routes is refused, and changes nothing; as long as nothing is routed it may lie there.
    assert!(network.seal(&three, &on_the_network_of(&beside, &three, &egress)).await.is_err());
    assert_eq!(network.observe(&three).await, Seen::Absent);
    assert_eq!(network.observe(&two).await, as_kept(&beside, true));
    let silent = on_the_network_of(&beside, &three, &[]);
    network.seal(&three, &silent).await.unwrap();
    proved(network.prove(&three, &silent).await);
    assert_eq!(network.observe(&three).await, as_kept(&silent, true), "the control");
    network.remove(&three).await.unwrap();

    // Somebody changes the rules: that is seen, nothing is proved meanwhile, and sealing makes it whole.
    proved(network.prove(&one, &closed).await);
    (bench.change)();
    let Seen::Present(seen) = network.observe(&one).await else {
        panic!("what was changed is there still")
    };
    assert!(seen.rules != segment_digest(&closed) && seen.proved.is_none(), "{seen:?}");
    assert!(network.prove(&one, &closed).await.is_err(), "what was changed was proved");
    network.seal(&one, &closed).await.unwrap();
    assert_eq!(network.observe(&one).await, as_kept(&closed, false));
    network.seal(&two, &beside).await.unwrap();
    proved(network.prove(&one, &closed).await);
    proved(network.prove(&two, &beside).await);

    // One goes: the other stands, and is proved under the rules that are left. Going twice changes nothing.
    network.remove(&one).await.unwrap();
    assert_eq!(network.observe(&one).await, Seen::Absent);
    assert_eq!(network.observe(&two).await, as_kept(&beside, false));
    proved(network.prove(&two, &beside).await);
    network.remove(&one).await.unwrap();
    assert_eq!(network.observe(&two).await, as_kept(&beside, true));
    network.remove(&two).await.unwrap();
    assert_eq!((bench.next_life)().observe(&two).await, Seen::Absent);
}

/// The same with something that is no address.
fn unreadable(segment: &Segment) -> Segment {
    let mut bad = segment.clone();
    bad.gateway = "10.1.2.3; drop".into();
    bad
}

/// The segment of a project that has drawn the addresses of another one.
fn on_the_network_of(segment: &Segment, project: &Uid, egress: &[(&str, u16)]) -> Segment {
    let mut same = drawn(project, 1, egress);
    same.cidr = segment.cidr.clone();
    same.gateway = segment.gateway.clone();
    same.ports[0].address = segment.ports[0].address.clone();
    same
}
