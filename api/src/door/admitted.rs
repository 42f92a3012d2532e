//! Who may be in a machine of a project: members that stand in its spec and are effective, as long as it stands. Pure.

use dejima_crds::IsolatedProject;
use dejima_crds::door::{Farewell, Why};

/// Why somebody may not be in a project's machines; nothing where he may.
///
/// Rights at Kubernetes play no part here: whoever may do everything there is no member by that.
pub(super) fn problem(project: Option<&IsolatedProject>, uid: Option<&str>, login: &str) -> Option<Farewell> {
    // The same words where there is no such project: who is no member learns nothing of it.
    let stranger = || {
        Farewell::new(
            Why::NotMember,
            "you are no member of a project of this name: people come in as members alone",
        )
    };
    let Some(project) = project else {
        return Some(stranger());
    };
    // Exactly: a login that only looks like a member's is none.
    if !project.spec.members.iter().any(|member| member.subject == *login) {
        return Some(stranger());
    }
    let known = project.metadata.uid.as_deref();
    if project.metadata.deletion_timestamp.is_some() || uid.is_some_and(|uid| known != Some(uid)) {
        return Some(Farewell::new(Why::ProjectEnds, "the project is being deleted"));
    }
    let members = project.status.as_ref().map(|status| status.members.as_slice()).unwrap_or_default();
    let Some(own) = members.iter().find(|member| member.subject == *login) else {
        return Some(Farewell::new(Why::NotEffective, "your membership has not been judged yet"));
    };
    if own.effective {
        return None;
    }
    let mut reasons: Vec<String> = own
        .reasons
        .iter()
        .map(|reason| {
            let dataset = reason.dataset.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{:?} ({} {dataset})", reason.code, reason.clause)
        })
        .collect();
    reasons.dedup();
    let message = format!("you are no effective member for what this project mounts: {}", reasons.join(", "));
    Some(Farewell::new(Why::NotEffective, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn project() -> IsolatedProject {
        let of = |login: &str, effective: bool| json!({"subject": login, "effective": effective});
        serde_json::from_value(json!({
            "apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProject", "metadata": {"namespace": "osaka", "name": "liver", "uid": "u-1"},
            "spec": {
                "title": {"en": "liver"}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public", "country": "JP",
                "members": [{"subject": "lead", "role": "lead"}, {"subject": "student", "role": "researcher"}, {"subject": "new", "role": "researcher"}],
                "period": {"from": "2026-04", "until": "2027-03"},
                "machines": [{"name": "train", "cpu": 1, "memory": "1Gi", "image": "probe"}],
            },
            "status": {"members": [of("lead", true), of("student", false), of("gone", true)]},
        }))
        .unwrap()
    }

    fn why(project: Option<&IsolatedProject>, uid: Option<&str>, login: &str) -> Option<Why> {
        problem(project, uid, login).map(|farewell| farewell.why)
    }

    #[test]
    fn effective_members_of_the_spec_come_in_and_nobody_else() {
        let project = project();
        assert_eq!(why(Some(&project), Some("u-1"), "lead"), None);
        assert_eq!(why(Some(&project), None, "student"), Some(Why::NotEffective));
        assert_eq!(why(Some(&project), None, "new"), Some(Why::NotEffective), "not judged yet");
        // Judged once, and taken out of the spec since: the spec counts at once.
        assert_eq!(why(Some(&project), None, "gone"), Some(Why::NotMember));
        for stranger in ["admin", "Lead", "lead ", "ｌead", ""] {
            assert_eq!(why(Some(&project), None, stranger), Some(Why::NotMember), "{stranger:?}");
        }
        assert_eq!(
            problem(Some(&project), None, "admin"),
            problem(None, None, "admin"),
            "whether there is a project is not told"
        );
    }

    #[test]
    fn who_is_in_a_project_that_goes_is_put_out() {
        let mut project = project();
        assert_eq!(
            why(Some(&project), Some("u-2"), "lead"),
            Some(Why::ProjectEnds),
            "another of its name"
        );
        project.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-04-01T00:00:00Z")).unwrap());
        assert_eq!(why(Some(&project), Some("u-1"), "lead"), Some(Why::ProjectEnds));
    }
}
