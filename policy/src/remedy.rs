//! What to do about each reason, in both languages, and who can.

use dejima_crds::bounded::{Prose, Ref};
use dejima_crds::reason::{Code, Reason, Who};
use dejima_crds::text::Text;

/// A complete reason.
pub fn reason(code: Code, dataset: &Ref, clause: &str, required: impl Into<String>, actual: impl Into<String>) -> Reason {
    let (who, ja, en) = remedy(code);
    Reason {
        code,
        dataset: Some(dataset.clone()),
        clause: clause.into(),
        required: brief(&required.into()),
        actual: brief(&actual.into()),
        remedy: Text::of(ja, en),
        who,
    }
}

/// How many letters of what is required, or there, a reason tells.
const BRIEF: usize = 400;

/// A clause that lists much is cut: a status that is too long to be written would say nothing at all.
fn brief(text: &str) -> Prose {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) => Prose::cut(&format!("{}…", text.get(..end).unwrap_or_default())),
        None => Prose::cut(text),
    }
}

fn remedy(code: Code) -> (Who, &'static str, &'static str) {
    match code {
        Code::Unattested => (
            Who::Office,
            "事務局(または倫理委員会)による証明を待つ: kubectl dejima attest",
            "wait for the office or committee to vouch for exactly this entry: kubectl dejima attest",
        ),
        Code::ReviewPending => (
            Who::Board,
            "審査の申請が提供者の名前空間にある。審査を待つ",
            "a request stands in the provider's namespace: wait for its review",
        ),
        Code::QuorumNotReached => (
            Who::Board,
            "承認がまだ足りない。審査を待つ: kubectl dejima review approve",
            "more approvals are needed: kubectl dejima review approve",
        ),
        Code::SelfReview => (
            Who::Board,
            "プロジェクトの構成員の審査は数えない。別の人の審査が要る",
            "a review by a member of the project does not count: somebody else must review",
        ),
        Code::NoEffectiveMember => (
            Who::Member,
            "少なくとも一人の構成員が条件を満たす必要がある(規約への同意など): kubectl dejima terms accept",
            "at least one member must meet the clauses on persons, such as accepting the terms: kubectl dejima terms accept",
        ),
        Code::EthicsMissing => (Who::Project, "倫理審査の承認を記入する", "add the approval of the ethics committee"),
        Code::EthicsExpired => (
            Who::Project,
            "倫理審査の承認を更新する",
            "renew the approval of the ethics committee",
        ),
        Code::PurposeNotAllowed => (
            Who::Project,
            "利用目的を条件に合わせる",
            "ask for a purpose that the policy permits",
        ),
        Code::DiseaseMismatch => (
            Who::Project,
            "対象疾患を条件に合わせる",
            "ask for a disease that the policy permits",
        ),
        Code::ActionNotAllowed => (
            Who::Project,
            "許された行為だけを求める",
            "ask only for actions that the policy and the request permit",
        ),
        Code::InstitutionNotAllowed => (
            Who::Nobody,
            "この機関(または種別)には許されていない",
            "this institution, or its kind, is not permitted",
        ),
        Code::CountryNotAllowed => (
            Who::Nobody,
            "この国での利用は許されていない",
            "use in this country is not permitted",
        ),
        Code::SiteNotAllowed => (Who::Project, "許されたサイトを選ぶ", "choose a site that the policy permits"),
        Code::IsolationTooWeak => (
            Who::Project,
            "placement.dedicated を true にする",
            "set placement.dedicated to true",
        ),
        Code::EgressForbidden => (
            Who::Project,
            "network の外部宛先を消す。またはこのデータセットを外す",
            "remove the entries of network, or this dataset",
        ),
        Code::LinkNotAllowed | Code::CombinationForbidden => (
            Who::Project,
            "併用できないデータセットのどちらかを外す",
            "remove one of the two datasets that exclude each other",
        ),
        Code::PolicyConflict => (
            Who::Provider,
            "打ち消し合う条項を直した新しい条件を作る",
            "make a new policy without the two clauses that cancel each other",
        ),
        Code::BeforeWindow => (Who::Nobody, "利用期間の開始を待つ", "wait for the window to begin"),
        Code::AfterWindow => (
            Who::Project,
            "利用期間が終わった。延長は新しい申請による",
            "the window is over: a longer period asks anew",
        ),
        Code::Embargoed => (Who::Nobody, "公開猶予期間の終わりを待つ", "wait for the end of the embargo"),
        Code::Rejected => (
            Who::Project,
            "却下された。申請を変えて出し直す",
            "it was rejected: change the request, and it is made anew",
        ),
        Code::Revoked => (
            Who::Provider,
            "許可が取り消された。提供者に相談する",
            "the grant was revoked: ask the provider",
        ),
        Code::Suspended => (
            Who::Provider,
            "提供者が停止を解くのを待つ",
            "wait until the provider lifts the suspension",
        ),
        Code::Withdrawn => (Who::Nobody, "データは撤回された", "the data was withdrawn"),
        Code::NotMountable => (
            Who::Provider,
            "データセットの登録が終わるのを待つ: kubectl get datasets",
            "wait until the dataset is Mountable: kubectl get datasets",
        ),
        Code::ObligationOverdue => (Who::Project, "期限を過ぎた義務を果たす", "fulfil what is overdue"),
        Code::Unintelligible => (
            Who::Provider,
            "この条項はまだ判定できない。条項のない条件を新しく作る",
            "this clause cannot be judged yet: make a policy without it",
        ),
        Code::RoleNotAllowed => (Who::Project, "許された役割の構成員を加える", "add a member of a permitted role"),
        Code::TrainingMissing | Code::TrainingExpired => {
            (Who::Member, "研修を受け、証明を受ける", "pass the training and have it attested")
        }
        Code::TermsNotAccepted => (
            Who::Member,
            "規約に同意する: kubectl dejima terms accept",
            "accept the terms: kubectl dejima terms accept",
        ),
        Code::Moratorium => (Who::Nobody, "公表猶予期間の終わりを待つ", "wait for the end of the moratorium"),
    }
}
