//! How far a dataset has come: its conditions in order, from its facts.

use dejima_crds::condition::{ConditionKind, Truth};
use dejima_crds::dataset::{ApprovalRole, Version};
use dejima_crds::when::When;
use jiff::{Timestamp, tz::TimeZone};

use crate::facts::{Claimed, DatasetFacts, Vouched, nobody_vouches};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is said.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// The newest version that is sealed and not withdrawn.
pub fn newest(dataset: &DatasetFacts) -> Option<&Version> {
    dataset
        .versions
        .iter()
        .filter(|version| !is_withdrawn(dataset, version.version))
        .max_by_key(|version| version.version)
}

/// Whether a version was withdrawn.
pub fn is_withdrawn(dataset: &DatasetFacts, version: u32) -> bool {
    let number = version.to_string();
    dataset
        .withdrawn
        .iter()
        .any(|withdrawn| *withdrawn == "all" || *withdrawn == number.as_str())
        || dataset
            .versions
            .iter()
            .any(|known| known.version == version && known.withdrawn_at.is_some())
}

fn lasts<T>(claimed: &Claimed<T>, valid_until: Option<&When>, at: Timestamp, zone: &TimeZone) -> Result<(), (&'static str, String)> {
    let Vouched::By { until, .. } = &claimed.vouched else {
        return Err(("Unattested", format!("{}: the office attests it", nobody_vouches(&claimed.vouched))));
    };
    for end in [until.as_ref(), valid_until].into_iter().flatten() {
        match end.ends(zone) {
            Ok(ends) if at < ends => {}
            Ok(_) => return Err(("Expired", format!("it ended with {end}"))),
            Err(error) => return Err(("Unintelligible", error.to_string())),
        }
    }
    Ok(())
}

fn approval(dataset: &DatasetFacts, role: ApprovalRole, at: Timestamp, zone: &TimeZone) -> Result<When, (&'static str, String)> {
    let mut last = Err(("EthicsMissing", "there is no such approval: add it to approvals".to_owned()));
    for claimed in dataset.approvals.iter().filter(|claimed| claimed.value.role == role) {
        match lasts(claimed, claimed.value.valid_until.as_ref(), at, zone) {
            Ok(()) => return Ok(claimed.value.approved_on.clone()),
            Err(why) => last = Err(why),
        }
    }
    last
}

/// The conditions of a dataset, in order. `Mountable` says the first thing that is missing.
pub fn standing(dataset: &DatasetFacts, at: Timestamp, zone: &TimeZone) -> Vec<Standing> {
    let provider = approval(dataset, ApprovalRole::Provider, at, zone);
    let platform = approval(dataset, ApprovalRole::Platform, at, zone);
    let in_order = |earlier: &When, later: &When| match (earlier.begins(zone), later.ends(zone)) {
        (Ok(begins), Ok(ends)) => begins < ends,
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    };
    let ordered = match (&provider, &platform) {
        (Ok(provider), Ok(platform)) if !in_order(provider, platform) => Err((
            "OutOfOrder",
            format!("the platform's approval ({platform}) precedes the provider's ({provider})"),
        )),
        (Ok(_), Ok(platform)) => match &dataset.transferred {
            Some(transferred) if !in_order(platform, transferred) => Err((
                "OutOfOrder",
                format!("the transfer ({transferred}) precedes the platform's approval ({platform})"),
            )),
            Some(_) | None => Ok(()),
        },
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Ok(()),
    };
    let agreement = match &dataset.agreement {
        None => Err(("AgreementMissing", "there is no agreement: add it".to_owned())),
        Some(claimed) => lasts(claimed, None, at, zone),
    };
    let sealed = newest(dataset);
    let ingested = match sealed {
        Some(version) if version.version >= dataset.revision => {
            Ok(format!("version {} is sealed: {} files", version.version, version.files))
        }
        Some(version) => Ok(format!(
            "version {} is sealed; revision {} is being sealed",
            version.version, dataset.revision
        )),
        None => Err(("NotSealed", format!("revision {} is not sealed yet", dataset.revision))),
    };
    let verified = match (sealed, dataset.declared_bytes) {
        (None, _) => Err(("NotSealed", "nothing is sealed yet".to_owned())),
        (Some(version), Some(declared)) if version.bytes != declared => {
            // A difference is said, and stands in nobody's way: the table's numbers are rounded.
            Ok(format!("the files have {} bytes, {declared} were declared", version.bytes))
        }
        (Some(_), _) => Ok("every file has the digest it was read with".to_owned()),
    };
    let said = |kind, result: Result<String, (&'static str, String)>, reason: &'static str| match result {
        Ok(message) => Standing {
            kind,
            status: Truth::True,
            reason,
            message,
        },
        Err((reason, message)) => Standing {
            kind,
            status: Truth::False,
            reason,
            message,
        },
    };
    let mut all = vec![
        said(ConditionKind::Registered, Ok("the entry is complete".to_owned()), "Registered"),
        said(
            ConditionKind::EthicsProvider,
            provider.map(|on| format!("approved {on}")),
            "Approved",
        ),
        said(
            ConditionKind::EthicsPlatform,
            platform.and_then(|on| ordered.map(|()| format!("approved {on}"))),
            "Approved",
        ),
        said(
            ConditionKind::AgreementSigned,
            agreement.map(|()| "signed and attested".to_owned()),
            "Signed",
        ),
        said(ConditionKind::Ingested, ingested, "Sealed"),
        said(ConditionKind::Verified, verified, "Verified"),
    ];
    let gone = match (
        &dataset.suspended,
        dataset.deleted,
        dataset.withdrawn.iter().any(|version| *version == "all"),
    ) {
        (_, _, true) => Some(("Withdrawn", "all versions were withdrawn".to_owned())),
        (_, true, _) => Some(("Withdrawn", "the dataset is being deleted".to_owned())),
        (Some(why), _, _) => Some(("Suspended", why.clone())),
        (None, false, false) => None,
    };
    let missing = all
        .iter()
        .find(|standing| standing.status != Truth::True)
        .map(|standing| (standing.reason, format!("{:?}: {}", standing.kind, standing.message)));
    all.push(said(
        ConditionKind::Mountable,
        gone.or(missing).map_or(Ok("projects may ask for it".to_owned()), Err),
        "Mountable",
    ));
    all
}
