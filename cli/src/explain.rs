//! In plain words: how a project stands, what is waiting for what, and whose turn it is.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use dejima_crds::IsolatedProject;
use dejima_crds::condition::{ConditionKind, Truth, get};
use dejima_crds::reason::{Decision, Reason, Who};
use dejima_crds::text::Language;
use kube::Api;

use crate::print;
use crate::roles::client;

/// What is explained.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// A project
    Project {
        /// NAMESPACE/NAME
        project: String,
    },
}

/// Explains.
pub(crate) async fn run(kubeconfig: Option<PathBuf>, what: What, lang: Language) -> Result<()> {
    let What::Project { project } = what;
    let (namespace, name) = project
        .split_once('/')
        .with_context(|| format!("`{project}` is not NAMESPACE/NAME"))?;
    let api: Api<IsolatedProject> = Api::namespaced(client(kubeconfig).await?, namespace);
    let found = api.get(name).await.with_context(|| format!("cannot read the project {project}"))?;
    for line in explain(&found, lang) {
        print(&line)?;
    }
    Ok(())
}

fn who(who: Who, lang: Language) -> &'static str {
    let (ja, en) = match who {
        Who::Project => ("プロジェクト", "the project"),
        Who::Member => ("その構成員", "that member"),
        Who::Provider => ("データ提供者", "the provider"),
        Who::Board => ("審査者", "the reviewers"),
        Who::Office => ("事務局", "the platform's office"),
        Who::Admin => ("管理者", "the platform's admins"),
        Who::Nobody => ("誰でもない", "nobody: only time, or nothing"),
    };
    match lang {
        Language::Ja => ja,
        Language::En => en,
    }
}

fn line(reason: &Reason, lang: Language) -> String {
    let (turn, remedy, wants, is) = match lang {
        Language::Ja => ("担当", "対処", "必要", "現状"),
        Language::En => ("whose turn", "remedy", "required", "actual"),
    };
    format!(
        "      - {:?} ({}): {wants}: {}; {is}: {}\n          {turn}: {}; {remedy}: {}",
        reason.code,
        reason.clause,
        reason.required,
        reason.actual,
        who(reason.who, lang),
        reason.remedy.get(lang)
    )
}

/// The lines of an explanation; only from what the project's own status says.
fn explain(project: &IsolatedProject, lang: Language) -> Vec<String> {
    let name = project.metadata.name.clone().unwrap_or_default();
    let status = project.status.clone().unwrap_or_default();
    let ready = get(&status.conditions, ConditionKind::Ready);
    let mounted = status.datasets.iter().filter(|dataset| !dataset.mounted_on.is_empty()).count();
    let all = project.spec.datasets.len();
    let mut lines = Vec::new();
    lines.push(match (ready.map(|condition| condition.status), lang) {
        (Some(Truth::True), Language::En) => format!("{name} is ready. {mounted} of {all} datasets are mounted."),
        (Some(Truth::True), Language::Ja) => {
            format!("{name} は準備ができている。データセットは {all} 件中 {mounted} 件がマウントされている。")
        }
        (Some(Truth::False | Truth::Unknown) | None, Language::En) => {
            format!("{name} is not ready. {mounted} of {all} datasets are mounted.")
        }
        (Some(Truth::False | Truth::Unknown) | None, Language::Ja) => {
            format!("{name} はまだ準備ができていない。データセットは {all} 件中 {mounted} 件がマウントされている。")
        }
    });
    for condition in status
        .conditions
        .iter()
        .filter(|condition| condition.kind != ConditionKind::DatasetsMounted)
    {
        // These two say what is wrong where they hold, the others where they do not.
        let bad = matches!(condition.kind, ConditionKind::Degraded | ConditionKind::Drifted);
        if bad == (condition.status == Truth::True) && (bad || condition.kind != ConditionKind::Terminating) {
            lines.push(format!("  {:?}: {} — {}", condition.kind, condition.reason, condition.message));
        }
    }
    // What is listed and closed says why, although the network is as it must be.
    if !project.spec.network.egress.is_empty()
        && let Some(network) = get(&status.conditions, ConditionKind::NetworkSealed).filter(|network| network.status == Truth::True)
    {
        let what = match lang {
            Language::En => "network",
            Language::Ja => "ネットワーク",
        };
        lines.push(format!("  {what}: {}", network.message));
    }
    for dataset in &status.datasets {
        let (what, version) = (
            format!("{}/{}", dataset.namespace, dataset.name),
            dataset.version.map(|version| format!("@{version}")).unwrap_or_default(),
        );
        let state = match (dataset.mounted_on.is_empty(), dataset.verdict, lang) {
            (false, _, Language::En) => format!(
                "read-only in {}",
                dataset.mounted_on.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            (false, _, Language::Ja) => format!(
                "読み取り専用でマウント: {}",
                dataset.mounted_on.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            (true, Decision::Permit, Language::En) => "permitted, being mounted".to_owned(),
            (true, Decision::Permit, Language::Ja) => "許可済み、マウント中".to_owned(),
            (true, Decision::NeedsReview, Language::En) => "not mounted: needs review".to_owned(),
            (true, Decision::NeedsReview, Language::Ja) => "マウントされていない: 審査が必要".to_owned(),
            (true, Decision::Deny, Language::En) => "not mounted: denied".to_owned(),
            (true, Decision::Deny, Language::Ja) => "マウントされていない: 不許可".to_owned(),
        };
        let until = match (&dataset.until, lang) {
            (Some(until), Language::En) => format!(", may stay until {until}"),
            (Some(until), Language::Ja) => format!("、{until} まで"),
            (None, _) => String::new(),
        };
        lines.push(format!("  {what}{version}  {state}{until}"));
        lines.extend(dataset.reasons.iter().map(|reason| line(reason, lang)));
    }
    for member in status.members.iter().filter(|member| !member.effective) {
        lines.push(match lang {
            Language::En => format!("  {} is not effective:", member.subject),
            Language::Ja => format!("  {} は要件を満たしていない:", member.subject),
        });
        lines.extend(member.reasons.iter().map(|reason| line(reason, lang)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use dejima_crds::reason::Code;
    use serde_json::json;

    #[test]
    fn an_explanation_names_what_waits_and_whose_turn_it_is_in_both_languages() {
        let reason = Reason {
            code: Code::Unattested,
            dataset: None,
            clause: "country".into(),
            required: "a label".into(),
            actual: "none".into(),
            remedy: dejima_crds::text::Text::of("証明を待つ", "wait for the office"),
            who: Who::Office,
        };
        let project = json!({
            "apiVersion": "dejima.dev/v1alpha1", "kind": "IsolatedProject", "metadata": {"name": "liver-ct"},
            "spec": {"title": {}, "purpose": [{"duo": "DUO:0000042"}], "institution": "https://ror.org/035t8zc32", "orgKind": "public", "country": "JP",
                "members": [{"subject": "lead", "role": "lead"}], "period": {"from": "2026-04", "until": "2027-03"},
                "machines": [{"name": "m", "cpu": 1, "memory": "1Gi", "image": "probe"}],
                "datasets": [{"namespace": "jichi", "name": "ct", "attachTo": ["m"], "mountPath": "/data"}]},
            "status": {"datasets": [{"namespace": "jichi", "name": "ct", "verdict": "needs-review", "reasons": [reason]}]},
        });
        let project: IsolatedProject = serde_json::from_value(project).unwrap();
        let english = explain(&project, Language::En).join("\n");
        assert!(
            english.contains("jichi/ct  not mounted: needs review")
                && english.contains("whose turn: the platform's office; remedy: wait for the office"),
            "{english}"
        );
        let japanese = explain(&project, Language::Ja).join("\n");
        assert!(japanese.contains("担当: 事務局; 対処: 証明を待つ"), "{japanese}");
    }
}
