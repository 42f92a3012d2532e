//! What a verdict says: the codes, in one place, with who can do something about each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Line, Prose, Ref};
use crate::text::Text;

/// What follows from all reasons together; the least one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The request, or the time, must change.
    Deny,
    /// Somebody's act on this request as it stands is awaited.
    NeedsReview,
    /// It may be.
    Permit,
}

/// Why something is not permitted. The vocabulary is `schema.md`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Code {
    /// A claim that nobody vouched for.
    Unattested,
    /// No grant yet, or what was reviewed has changed.
    ReviewPending,
    /// Too few approvals, or of too few organisations.
    QuorumNotReached,
    /// A review by somebody of the project does not count.
    SelfReview,
    /// No member meets the clauses on persons.
    NoEffectiveMember,
    /// There is no ethics approval.
    EthicsMissing,
    /// The ethics approval is over.
    EthicsExpired,
    /// The purpose is not allowed.
    PurposeNotAllowed,
    /// The disease is not one that is allowed.
    DiseaseMismatch,
    /// An action is not allowed.
    ActionNotAllowed,
    /// The institution, or its kind, is not allowed.
    InstitutionNotAllowed,
    /// The country is not allowed.
    CountryNotAllowed,
    /// The site is not allowed.
    SiteNotAllowed,
    /// The policy wants more isolation than the project asks for.
    IsolationTooWeak,
    /// The policy forbids the egress that the project lists.
    EgressForbidden,
    /// The dataset must not be linked with another one.
    LinkNotAllowed,
    /// The dataset must not be combined with another one.
    CombinationForbidden,
    /// Two clauses leave nothing that is allowed.
    PolicyConflict,
    /// The time has not come.
    BeforeWindow,
    /// The time is over.
    AfterWindow,
    /// The data is embargoed.
    Embargoed,
    /// A reviewer has rejected the request.
    Rejected,
    /// The grant was revoked.
    Revoked,
    /// The dataset is suspended.
    Suspended,
    /// The dataset, or the version, was withdrawn.
    Withdrawn,
    /// The dataset is not ready to be mounted.
    NotMountable,
    /// A report or the like is overdue.
    ObligationOverdue,
    /// The policy, or the request, says something that is not understood.
    Unintelligible,
    /// Of a member: the role is not one that is allowed.
    RoleNotAllowed,
    /// Of a member: a training is missing.
    TrainingMissing,
    /// Of a member: a training is over.
    TrainingExpired,
    /// Of a member: the terms were not accepted.
    TermsNotAccepted,
    /// Of publication and release only.
    Moratorium,
}

impl Code {
    /// What this code alone makes of a verdict on a mount.
    pub fn decision(self) -> Decision {
        match self {
            Self::Unattested | Self::ReviewPending | Self::QuorumNotReached | Self::SelfReview | Self::NoEffectiveMember => {
                Decision::NeedsReview
            }
            Self::EthicsMissing
            | Self::EthicsExpired
            | Self::PurposeNotAllowed
            | Self::DiseaseMismatch
            | Self::ActionNotAllowed
            | Self::InstitutionNotAllowed
            | Self::CountryNotAllowed
            | Self::SiteNotAllowed
            | Self::IsolationTooWeak
            | Self::EgressForbidden
            | Self::LinkNotAllowed
            | Self::CombinationForbidden
            | Self::PolicyConflict
            | Self::BeforeWindow
            | Self::AfterWindow
            | Self::Embargoed
            | Self::Rejected
            | Self::Revoked
            | Self::Suspended
            | Self::Withdrawn
            | Self::NotMountable
            | Self::ObligationOverdue
            | Self::Unintelligible => Decision::Deny,
            // These make a member ineffective, or concern what is published: a mount goes on.
            Self::RoleNotAllowed | Self::TrainingMissing | Self::TrainingExpired | Self::TermsNotAccepted | Self::Moratorium => {
                Decision::Permit
            }
        }
    }
}

/// Who can do something about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The project's own people.
    Project,
    /// One member, under his own login.
    Member,
    /// The provider of the dataset.
    Provider,
    /// The reviewers whom the policy names.
    Board,
    /// The platform's office, or a committee that may attest.
    Office,
    /// The platform's admins.
    Admin,
    /// Nobody: time alone, or a final act.
    Nobody,
}

/// One reason, complete: what was asked for, what is there, what to do, and who can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The code.
    pub code: Code,
    /// The dataset that it concerns (`namespace/name`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Ref>,
    /// The clause of the policy, as a path: `where.countries`.
    pub clause: Line,
    /// What the clause requires.
    pub required: Prose,
    /// What is there instead.
    pub actual: Prose,
    /// What to do about it.
    pub remedy: Text,
    /// Who can do it.
    pub who: Who,
}
