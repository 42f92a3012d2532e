//! Names that we give: each is made in one place, from UIDs, so that whatever is found can be attributed.

use uuid::Uuid;

use crate::GROUP;
use crate::bounded::{KeyName, Label, Line, Login, ObjectName, ShardId, Uid};

/// The finalizer that keeps an object until its end was carried out.
pub const FINALIZER: &str = "dejima.dev/end";
/// Label of a tenant's namespace: the institution (nine characters of its ROR id).
pub const INSTITUTION_LABEL: &str = "dejima.dev/institution";
/// Label of a tenant's namespace: `non-profit`, `for-profit` or `public`.
pub const ORG_KIND_LABEL: &str = "dejima.dev/org-kind";
/// Label of a tenant's namespace: the country (ISO 3166-1 alpha-2).
pub const COUNTRY_LABEL: &str = "dejima.dev/country";
/// Field manager of the operator.
pub const OPERATOR: &str = "dejima-operator";
/// Field manager of hostd.
pub const HOSTD: &str = "dejima-hostd";

/// The namespace of everything ours; drawn once, never to change.
const ROOT: Uuid = Uuid::from_u128(0x0c85_a1c2_6f1f_4d5e_9d0e_64e6_a1de_0001);

/// The namespace in which a host's plans stand.
pub fn host_namespace(host: &str) -> Label {
    Label::from(format!("dejima-host-{host}"))
}

/// The host whose namespace this is.
pub fn host_of_namespace(namespace: &str) -> Option<&str> {
    namespace.strip_prefix("dejima-host-")
}

/// The login of the hostd of this host: a service account of its own namespace.
pub fn host_login(host: &str) -> Login {
    Login::from(format!("system:serviceaccount:{}:hostd", host_namespace(host)))
}

/// The name of the plan for one project or dataset on a host: its UID, which no second one can have.
pub fn plan_name(kind: PlanKind, uid: &Uid) -> String {
    match kind {
        PlanKind::Project => format!("project-{uid}"),
        PlanKind::Intake => format!("intake-{uid}"),
    }
}

/// What a host plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// What the host holds for a project.
    Project,
    /// What the host seals for a dataset.
    Intake,
}

/// The transit key of a project.
pub fn project_key(project: &Uid) -> KeyName {
    KeyName::from(format!("project-{project}"))
}

/// The transit key of one sealed shard.
pub fn shard_key(dataset: &Uid, shard: &ShardId) -> KeyName {
    KeyName::from(format!("shard-{dataset}-{shard}"))
}

/// The id of the receipt of a project, or of a dataset.
pub fn receipt_id(of: &Uid) -> Uid {
    Uid::from(id(of, "receipt").to_string())
}

/// The id of the receipt of a volume that was destroyed at this time: one of that name may be made, and destroyed, again.
pub fn volume_receipt_id(project: &Uid, volume: &Label, at: &Line) -> Uid {
    Uid::from(id(project, &format!("receipt/{volume}/{at}")).to_string())
}

/// The beginning of a name, for names of ours that bear it: what follows makes them differ where what was cut off did.
pub fn shortened(name: &str, most: usize) -> String {
    let short: String = name.chars().take(most).collect();
    // What is cut at a dot or a hyphen would be no name with something behind it.
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The name of an event of an object, at this time (nanoseconds since 1970).
pub fn event_name(object: &str, at: i128) -> String {
    format!("{}.{at:x}", shortened(object, 200))
}

/// The name of the ConfigMap that bears the receipt of a volume of a project.
pub fn volume_receipt_name(name: &ObjectName, volume: &Label, receipt: &Uid) -> ObjectName {
    let digits: String = receipt.as_str().chars().take(8).collect();
    ObjectName::from(format!("receipt-{}-{volume}-{digits}", shortened(name.as_str(), 150)))
}

/// The name of the ConfigMap that bears a project's receipt: who looks for it knows the project's name, and another
/// project of that name has another.
pub fn receipt_name(name: &ObjectName, project: &Uid) -> ObjectName {
    let digits: String = project.as_str().chars().take(8).collect();
    ObjectName::from(format!("receipt-{}-{digits}", shortened(name.as_str(), 200)))
}

/// The id of something we make for a project: UUIDv5 of the project's UID and the role of the thing, e.g. `domain/train`.
pub fn id(owner: &Uid, role: &str) -> Uuid {
    Uuid::new_v5(&ROOT, format!("{GROUP}/{owner}/{role}").as_bytes())
}

/// A short form of an id for names that the kernel keeps short (links have at most 15 characters).
pub fn short_id(owner: &Uid, role: &str) -> String {
    id(owner, role).simple().to_string().chars().take(10).collect()
}

/// The serial of a disk: 32 hex digits; SCSI takes 36, virtio-blk would cut after 20.
pub fn serial(owner: &Uid, role: &str) -> String {
    id(owner, role).simple().to_string()
}

/// The MAC address of a machine's port: locally administered, from the id.
pub fn mac(owner: &Uid, role: &str) -> String {
    let digits = serial(owner, role);
    let pairs: Vec<&str> = (0..5).filter_map(|pair| digits.get(pair * 2..pair * 2 + 2)).collect();
    format!("52:{}", pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names as Kubernetes takes them (RFC 1123): labels of at most 63 characters with dots between, 253 in all.
    fn object_names() -> impl Strategy<Value = String> {
        let label = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
        proptest::collection::vec(label, 1..8).prop_map(|labels| {
            let text: String = labels.join(".").chars().take(253).collect();
            text.trim_end_matches(['-', '.']).to_owned()
        })
    }

    fn is_object_name(text: &str) -> bool {
        let is_label = |label: &str| {
            let inside = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
            !label.is_empty() && label.chars().all(inside) && !label.starts_with('-') && !label.ends_with('-')
        };
        !text.is_empty() && text.len() <= 253 && text.split('.').all(is_label)
    }

    proptest! {
        /// Two that begin alike, however long: what is made of their names is a name, and no two are one.
        #[test]
        fn names_that_were_shortened_are_names_and_no_two_are_one(
            name in object_names(), tails in ("[a-z0-9]{1,9}", "[a-z0-9]{1,9}"), uids in ("[0-9a-f]{8}-0", "[0-9a-f]{8}-1"), volume in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
        ) {
            prop_assume!(uids.0.get(..8) != uids.1.get(..8));
            let like = |tail: &str| shortened(&name, 253 - tail.len()) + tail;
            let (one, other) = (like(&tails.0), like(&tails.1));
            prop_assert!(is_object_name(&one) && is_object_name(&other), "the control: {} {}", one, other);
            let made = |name: &str, uid: &str| {
                let (name, uid) = (ObjectName::from(name), Uid::from(uid));
                [
                    receipt_name(&name, &uid).to_string(),
                    volume_receipt_name(&name, &volume.as_str().into(), &uid).to_string(),
                    event_name(name.as_str(), i128::from(u32::from_str_radix(uid.as_str().get(..8).unwrap_or_default(), 16).unwrap_or_default())),
                ]
            };
            let (first, second) = (made(&one, &uids.0), made(&other, &uids.1));
            for (first, second) in first.iter().zip(&second) {
                prop_assert!(is_object_name(first) && is_object_name(second), "{} {}", first, second);
                prop_assert_ne!(first, second);
            }
            // What we make for a project has a name of its UID and its role alone.
            let (one, other) = (Uid::from(uids.0.as_str()), Uid::from(uids.1.as_str()));
            let role = format!("domain/{volume}");
            prop_assert_ne!(serial(&one, &role), serial(&other, &role));
            prop_assert_ne!(plan_name(PlanKind::Project, &one), plan_name(PlanKind::Project, &other));
            prop_assert_ne!(plan_name(PlanKind::Project, &one), plan_name(PlanKind::Intake, &one));
        }
    }

    #[test]
    fn the_same_role_of_another_project_has_another_id() {
        let (one, two) = (Uid::from("u-1"), Uid::from("u-2"));
        assert_eq!(id(&one, "domain/train"), id(&one, "domain/train"));
        assert_ne!(id(&one, "domain/train"), id(&two, "domain/train"));
        assert_ne!(id(&one, "domain/train"), id(&one, "volume/train"));
        assert_eq!(serial(&one, "volume/work").len(), 32);
        assert!(format!("dj{}", short_id(&one, "bridge")).len() <= 15);
    }

    #[test]
    fn a_receipt_bears_its_projects_name_and_fits() {
        assert_eq!(
            receipt_name(&"liver-ct".into(), &"9b1deb4d-3b7d".into()),
            "receipt-liver-ct-9b1deb4d"
        );
        let long = format!("{}.{}", "a".repeat(199), "b".repeat(50));
        let name = receipt_name(&long.as_str().into(), &"9b1deb4d-3b7d".into());
        assert!(name.as_str().len() <= 253 && name.as_str().ends_with("a-9b1deb4d"), "{name}");
        let volume = volume_receipt_name(&long.as_str().into(), &"v".repeat(63).as_str().into(), &"5e1deb4d-3b7d".into());
        assert!(volume.as_str().len() <= 253 && volume.as_str().ends_with("v-5e1deb4d"), "{volume}");
        assert_ne!(
            volume_receipt_id(&"u".into(), &"a".into(), &"t".into()),
            volume_receipt_id(&"u".into(), &"a".into(), &"s".into())
        );
    }

    #[test]
    fn a_host_is_known_by_its_namespace_and_back() {
        assert_eq!(host_of_namespace(host_namespace("host-a").as_str()), Some("host-a"));
        assert_eq!(host_of_namespace("kube-system"), None);
    }
}
