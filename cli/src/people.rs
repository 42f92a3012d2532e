//! What people do under their own login. Each of these is one write that kubectl can make as well; this only saves typing.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use dejima_crds::attestation::{Claim, Subject, SubjectKind};
use dejima_crds::bounded::Ror;
use dejima_crds::{AccessGrant, Attestation, AttestationSpec, Dataset, IsolatedProject, UsagePolicy};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::print;
use crate::roles::client;

/// What a reviewer says.
#[derive(Debug, Subcommand)]
pub(crate) enum ReviewCommand {
    /// Yes
    Approve(ReviewArguments),
    /// No: one rejection denies, unless the policy says otherwise
    Reject(ReviewArguments),
    /// Neither
    Abstain(ReviewArguments),
}

/// Which request.
#[derive(Debug, Args)]
pub(crate) struct ReviewArguments {
    /// The request, NAMESPACE/NAME (kubectl get accessgrants -A)
    grant: String,
    /// For which organisation (ROR), where your login has several
    #[arg(long)]
    org: Option<String>,
    /// Why
    #[arg(long)]
    comment: Option<String>,
}

/// About terms.
#[derive(Debug, Subcommand)]
pub(crate) enum TermsCommand {
    /// Accepts all terms that a dataset's policy asks for
    Accept {
        /// The dataset, NAMESPACE/NAME
        dataset: String,
        /// The project, NAMESPACE/NAME
        #[arg(long)]
        project: String,
    },
}

/// What is attested.
#[derive(Debug, Args)]
pub(crate) struct AttestArguments {
    /// Of what
    #[arg(value_enum)]
    kind: AttestKind,
    /// Of which, NAMESPACE/NAME
    object: String,
    /// Which claim
    #[arg(value_enum)]
    claim: AttestClaim,
    /// Which entry, counted from 0, where there are several
    #[arg(long, default_value_t = 0)]
    entry: usize,
    /// Until when
    #[arg(long)]
    until: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttestKind {
    /// A project
    Project,
    /// A dataset
    Dataset,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttestClaim {
    /// A project's ethics approval
    Ethics,
    /// A project's egress entry
    Egress,
    /// A dataset's platform approval
    Approval,
    /// A dataset's agreement
    Agreement,
}

/// About a grant.
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Revokes it; final
    Revoke {
        /// The grant, NAMESPACE/NAME
        grant: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

fn split(reference: &str) -> Result<(&str, &str)> {
    reference
        .split_once('/')
        .with_context(|| format!("`{reference}` is not NAMESPACE/NAME"))
}

/// Who the API server takes us for, with groups.
async fn myself(client: &Client) -> Result<(String, Vec<String>)> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .context("cannot ask who you are")?;
    let user = review
        .status
        .and_then(|status| status.user_info)
        .context("the API server does not say who you are")?;
    Ok((
        user.username.context("the API server does not say who you are")?,
        user.groups.unwrap_or_default(),
    ))
}

fn json_patch(operations: Value) -> Result<Patch<()>> {
    Ok(Patch::Json(serde_json::from_value(operations)?))
}

/// Adds, or changes, one's own line.
pub(crate) async fn review(kubeconfig: Option<PathBuf>, command: ReviewCommand) -> Result<()> {
    let (decision, arguments) = match command {
        ReviewCommand::Approve(arguments) => ("approve", arguments),
        ReviewCommand::Reject(arguments) => ("reject", arguments),
        ReviewCommand::Abstain(arguments) => ("abstain", arguments),
    };
    let client = client(kubeconfig).await?;
    let (login, groups) = myself(&client).await?;
    let orgs: Vec<&str> = groups.iter().filter_map(|group| group.strip_prefix("dejima.dev/org/")).collect();
    let org = match (&arguments.org, orgs.as_slice()) {
        (Some(org), _) => Ror::from_short(org.trim_start_matches(Ror::PREFIX)),
        (None, [one]) => Ror::from_short(one),
        (None, []) => bail!("your login {login} is of no organisation (groups dejima.dev/org/…), so its review would not count"),
        (None, several) => bail!(
            "your login {login} is of several organisations ({}): choose with --org",
            several.join(", ")
        ),
    };
    let (namespace, name) = split(&arguments.grant)?;
    let api: Api<AccessGrant> = Api::namespaced(client, namespace);
    let grant = api
        .get(name)
        .await
        .with_context(|| format!("cannot read the request {}", arguments.grant))?;
    let mut line = json!({"reviewer": login, "org": org, "decision": decision});
    if let (Some(comment), Some(fields)) = (arguments.comment, line.as_object_mut()) {
        fields.insert("comment".to_owned(), comment.into());
    }
    let own = grant.spec.reviews.iter().position(|line| line.reviewer == login.as_str());
    let operations = match own {
        Some(at) => {
            json!([{"op": "test", "path": format!("/spec/reviews/{at}/reviewer"), "value": login}, {"op": "replace", "path": format!("/spec/reviews/{at}"), "value": line}])
        }
        None if grant.spec.reviews.is_empty() => json!([{"op": "add", "path": "/spec/reviews", "value": [line]}]),
        None => json!([{"op": "add", "path": "/spec/reviews/-", "value": line}]),
    };
    api.patch(name, &PatchParams::default(), &json_patch(operations)?)
        .await
        .context("the review was refused")?;
    print(&format!("{decision}: {} by {login} for {org}", arguments.grant))
}

/// Accepts the terms of a dataset's policy for one project.
pub(crate) async fn terms(kubeconfig: Option<PathBuf>, command: TermsCommand) -> Result<()> {
    let TermsCommand::Accept { dataset, project } = command;
    let client = client(kubeconfig).await?;
    let (login, _) = myself(&client).await?;
    let (namespace, name) = split(&dataset)?;
    let datasets: Api<Dataset> = Api::namespaced(client.clone(), namespace);
    let found = datasets
        .get(name)
        .await
        .with_context(|| format!("cannot read the dataset {dataset}"))?;
    let policies: Api<UsagePolicy> = Api::namespaced(client.clone(), namespace);
    let policy = policies
        .get(found.spec.policy_ref.as_str())
        .await
        .with_context(|| format!("cannot read the policy of {dataset}"))?;
    let (namespace, name) = split(&project)?;
    let projects: Api<IsolatedProject> = Api::namespaced(client, namespace);
    let current = projects
        .get(name)
        .await
        .with_context(|| format!("cannot read the project {project}"))?;
    let accepted = &current.spec.terms_accepted;
    let missing: Vec<_> = policy
        .spec
        .prerequisites
        .terms
        .iter()
        .filter(|terms| {
            !accepted
                .iter()
                .any(|line| line.member == login.as_str() && line.digest == terms.digest)
        })
        .collect();
    if missing.is_empty() {
        return print(&format!("{login} has accepted all terms of {dataset} already"));
    }
    let lines: Vec<Value> = missing
        .iter()
        .map(|terms| json!({"member": login, "digest": terms.digest}))
        .collect();
    let operations = if accepted.is_empty() {
        json!([{"op": "add", "path": "/spec/termsAccepted", "value": lines}])
    } else {
        lines
            .into_iter()
            .map(|line| json!({"op": "add", "path": "/spec/termsAccepted/-", "value": line}))
            .collect()
    };
    projects
        .patch(name, &PatchParams::default(), &json_patch(operations)?)
        .await
        .context("the acceptance was refused")?;
    for terms in missing {
        print(&format!("accepted: {} ({}) by {login} for {project}", terms.url, terms.digest))?;
    }
    Ok(())
}

fn entry<T: serde::Serialize>(entries: &[T], at: usize, field: &str) -> Result<Value> {
    let entry = entries.get(at).with_context(|| format!("there is no entry {at} in {field}"))?;
    Ok(serde_json::to_value(entry)?)
}

/// Vouches for an entry exactly as it stands now.
pub(crate) async fn attest(kubeconfig: Option<PathBuf>, arguments: AttestArguments) -> Result<()> {
    let client = client(kubeconfig).await?;
    let (login, _) = myself(&client).await?;
    let (namespace, name) = split(&arguments.object)?;
    let (kind, uid, claim, value) = match (arguments.kind, arguments.claim) {
        (AttestKind::Project, AttestClaim::Ethics | AttestClaim::Egress) => {
            let project = Api::<IsolatedProject>::namespaced(client.clone(), namespace).get(name).await?;
            let (claim, value) = match arguments.claim {
                AttestClaim::Egress => (
                    Claim::Egress,
                    entry(&project.spec.network.egress, arguments.entry, "network.egress")?,
                ),
                AttestClaim::Ethics | AttestClaim::Approval | AttestClaim::Agreement => {
                    (Claim::Ethics, entry(&project.spec.ethics, arguments.entry, "ethics")?)
                }
            };
            (SubjectKind::IsolatedProject, project.uid(), claim, value)
        }
        (AttestKind::Dataset, AttestClaim::Approval | AttestClaim::Agreement) => {
            let dataset = Api::<Dataset>::namespaced(client.clone(), namespace).get(name).await?;
            let (claim, value) = match arguments.claim {
                AttestClaim::Agreement => (Claim::Agreement, entry(dataset.spec.agreement.as_slice(), 0, "agreement")?),
                AttestClaim::Ethics | AttestClaim::Egress | AttestClaim::Approval => {
                    let of_platform: Vec<_> = dataset
                        .spec
                        .approvals
                        .iter()
                        .filter(|approval| approval.role == dejima_crds::dataset::ApprovalRole::Platform)
                        .collect();
                    (
                        Claim::Approval,
                        entry(&of_platform, arguments.entry, "approvals with the role platform")?,
                    )
                }
            };
            (SubjectKind::Dataset, dataset.uid(), claim, value)
        }
        (AttestKind::Project, _) => bail!("of a project: ethics, egress"),
        (AttestKind::Dataset, _) => bail!("of a dataset: approval, agreement"),
    };
    let digest = dejima_crds::digest::of_value(&(&value, &arguments.until))?;
    let spec = AttestationSpec {
        of: Subject {
            kind,
            name: name.into(),
            uid: uid.unwrap_or_default().as_str().into(),
        },
        claim,
        value,
        document_digest: None,
        until: arguments.until.map(Into::into),
        by: login.as_str().into(),
    };
    let short: String = name.chars().take(200).collect();
    let mut attestation = Attestation::new(&format!("{short}-{}-{}", claim.word(), digest.short(8)), spec);
    attestation.metadata.namespace = Some(namespace.to_owned());
    let made = Api::<Attestation>::namespaced(client, namespace)
        .create(&PostParams::default(), &attestation)
        .await
        .context("the attestation was refused")?;
    print(&format!(
        "attested: {} of {} by {login} ({namespace}/{})",
        claim.word(),
        arguments.object,
        made.name_any()
    ))
}

/// Revokes a grant.
pub(crate) async fn grant(kubeconfig: Option<PathBuf>, command: GrantCommand) -> Result<()> {
    let GrantCommand::Revoke { grant, reason } = command;
    let client = client(kubeconfig).await?;
    let (login, _) = myself(&client).await?;
    let (namespace, name) = split(&grant)?;
    let api: Api<AccessGrant> = Api::namespaced(client, namespace);
    let operations = json!([{"op": "add", "path": "/spec/revoked", "value": {"by": login, "reason": reason}}]);
    api.patch(name, &PatchParams::default(), &json_patch(operations)?)
        .await
        .context("the revocation was refused")?;
    print(&format!("revoked: {grant} by {login}"))
}
