//! `Dataset`: what a provider offers, where it lies, and which versions of it were sealed.

#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Code, Digest, KeyName, Label, Licence, Line, ObjectName, Prose, Ror, ShardId, SubPath, Url, WrappedKey};
use crate::condition::Condition;
use crate::text::Text;
use crate::when::When;

/// 1 TiB: how large a shard may be where nothing else is said.
pub const SHARD_BYTES: u64 = 1 << 40;

/// Data that a provider offers under a policy.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "Dataset",
    namespaced,
    status = "DatasetStatus",
    shortname = "dset",
    category = "dejima",
    derive = "PartialEq",
    printcolumn(name = "Id", type_ = "integer", json_path = ".spec.catalogueId"),
    printcolumn(
        name = "Mountable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Mountable\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Mountable\")].reason"
    ),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.latest.version"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.latest.files"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.latest.bytes"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.latest.shortDigest"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policyRef"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "データ名", type_ = "string", priority = 1, json_path = ".spec.title.ja"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Mountable\")].message"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.revision >= oldSelf.revision").message("revision only grows: raising it orders one sealing of the source as it stands"),
    validation = Rule::new("!has(oldSelf.withdrawn) || (has(self.withdrawn) && oldSelf.withdrawn.all(w, w in self.withdrawn))").message("a withdrawal is final: withdrawn only grows"),
    validation = Rule::new("self.catalogueId == oldSelf.catalogueId").message("catalogueId never changes: it is how the catalogue knows this dataset")
)]
pub struct DatasetSpec {
    /// The number in the platform's catalogue.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub catalogue_id: u32,
    /// A persistent identifier: DOI or ARK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<Line>,
    /// Names elsewhere: JGAD…, DRS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub aliases: Vec<Line>,
    /// データ名.
    pub title: Text,
    /// 内容.
    #[serde(default)]
    pub description: Text,
    /// SIPテーマ, or whatever programme the site knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programme: Option<Code>,
    /// 研究機関(担当).
    #[schemars(length(min = 1, max = 16))]
    pub providers: Vec<Provider>,
    /// ファイル数.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// データフォーマット: DICOM, NIfTI, JPEG, CSV, MFER, text, or a media type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub formats: Vec<Code>,
    /// 総データサイズ, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub declared_bytes: Option<u64>,
    /// 加工状態.
    pub processing: Processing,
    /// 提供機関倫理委員会, ROIS内倫理審査: the platform's counts once attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub approvals: Vec<Approval>,
    /// データ移行開始(予定).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// 研究計画書名.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub research_plan: Option<ResearchPlan>,
    /// 備考.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Text>,
    /// Which of the platform's groups of data it belongs to.
    pub category: Category,
    /// What the law takes it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legal_class: Option<LegalClass>,
    /// What it may be used by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub legal_basis: Vec<LegalBasis>,
    /// The licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<Licence>,
    /// The agreement with the platform: counts once attested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// Raising it orders one sealing of the source as it stands; the version bears this number.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub revision: u32,
    /// The `UsagePolicy`, in this namespace. Moving it judges every live grant again.
    pub policy_ref: ObjectName,
    /// No new mounts, and those that stand end, while this is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// Versions that were withdrawn: their keys are destroyed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub withdrawn: Vec<Withdrawal>,
    /// Where it lies.
    pub source: Source,
    /// How it is handed out.
    #[serde(default)]
    pub delivery: Delivery,
    /// Where pseudonyms map to files; held by the custodian only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_index_ref: Option<Url>,
}

fn one() -> u32 {
    1
}

/// Who offers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provider {
    /// The organisation.
    pub ror: Ror,
    /// The department.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Line>,
    /// Whom to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<Line>,
}

/// How many of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// How many.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub value: u64,
    /// Of what.
    pub unit: CountUnit,
    /// As the table says it: `5.6億枚`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Line>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CountUnit {
    /// Files.
    File,
    /// Images (枚).
    Image,
    /// Records (件).
    Record,
    /// Cases (症例).
    Case,
    /// Pairs of image and text.
    Pair,
    /// Tokens.
    Token,
    /// Characters.
    Char,
}

/// 加工状態.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Processing {
    /// As it came.
    Raw,
    /// 仮名化.
    Pseudonymised,
    /// 匿名化.
    Anonymised,
    /// 匿名化相当.
    AnonymisedEquivalent,
    /// 匿名化+付加情報.
    AnonymisedAugmented,
    /// Only sums.
    Aggregated,
    /// Made up.
    Synthetic,
}

/// One ethics approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Whose committee.
    pub role: ApprovalRole,
    /// The committee.
    pub committee: Line,
    /// The protocol's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Line>,
    /// When it was approved.
    pub approved_on: When,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<When>,
    /// The digest of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_digest: Option<Digest>,
}

/// Whose approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalRole {
    /// The provider's: its own word.
    Provider,
    /// The platform's: counts once attested.
    Platform,
}

/// How it came, or will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transfer {
    /// When it is to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<When>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<When>,
    /// By which way.
    pub route: Route,
}

/// A way of transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// SINET L2VPN.
    L2vpn,
    /// Disks by courier.
    Media,
    /// Upload.
    Upload,
}

/// 研究計画書.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResearchPlan {
    /// Its title.
    pub title: Line,
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Line>,
    /// Its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// The platform's groups of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Crawled text.
    CrawlerText,
    /// Crawled pairs of image and text.
    CrawlerImageText,
    /// Medical text of quality: textbooks, papers.
    MedicalText,
    /// Clinical data.
    Clinical,
    /// Images.
    Image,
    /// Made for one task.
    TaskSpecific,
}

/// What the law takes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LegalClass {
    /// 個人情報.
    Personal,
    /// 要配慮個人情報.
    Sensitive,
    /// 仮名加工情報.
    PseudonymisedInformation,
    /// 匿名加工情報.
    AnonymisedInformation,
    /// 著作物.
    Copyrighted,
    /// None of these.
    None,
}

/// By what it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LegalBasis {
    /// 学術研究例外.
    AcademicResearch,
    /// 同意.
    Consent,
    /// オプトアウト.
    OptOut,
    /// 共同利用.
    JointUse,
    /// 契約.
    Contract,
    /// 非享受目的 (Copyright Act, article 30-4).
    CopyrightNonEnjoyment,
    /// A licence of the owner.
    CopyrightLicence,
}

/// The agreement with the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// The digest of the text.
    pub document_digest: Digest,
    /// When it was signed.
    pub signed_on: When,
}

/// A suspension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspension {
    /// By whom.
    pub by: Line,
    /// Why.
    pub reason: Prose,
}

/// A withdrawal; final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Withdrawal {
    /// A version's number, or `all`.
    #[schemars(regex(pattern = "^(all|[1-9][0-9]{0,6})$"))]
    pub version: Label,
    /// By whom.
    pub by: Line,
    /// Why.
    pub reason: Prose,
}

/// Where the data lies: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.directory), has(self.nfs), has(self.cephfs), has(self.s3)].filter(x, x).size() == 1").message("a source is exactly one of directory, nfs, cephfs, s3"))]
pub struct Source {
    /// A directory on an intake host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectorySource>,
    /// An NFS export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nfs: Option<RemoteSource>,
    /// A CephFS path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cephfs: Option<RemoteSource>,
    /// An S3 prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<RemoteSource>,
    /// The most bytes of files that one shard holds.
    #[serde(default = "shard_bytes")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_u64))]
    pub shard_bytes: u64,
}

fn shard_bytes() -> u64 {
    SHARD_BYTES
}

/// A directory on an intake host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectorySource {
    /// The host.
    pub host: Label,
    /// The path below the root that the host's admin gave to this namespace.
    pub path: SubPath,
}

/// A source that lies elsewhere; credentials by reference only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteSource {
    /// Where.
    pub url: Url,
    /// The name of a secret at the key server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<ObjectName>,
}

/// How data is handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// As read-only images.
    #[default]
    Image,
    /// As a shared tree (virtiofs).
    Share,
}

/// What the platform says of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// The newest version that is not withdrawn, for the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<Latest>,
    /// How many bytes the newest version has; beside `declaredBytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_bytes: Option<u64>,
    /// Sealed versions; one never changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".to_owned()]))]
    pub versions: Vec<Version>,
    /// The shards of all versions, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_owned()]))]
    pub shards: Vec<Shard>,
    /// The id of the receipt of the last destruction of keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Line>,
}

/// The newest version, for the columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latest {
    /// Its number.
    pub version: u32,
    /// How many files.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The first twelve digits of the manifest's digest.
    pub short_digest: Line,
}

/// A sealed version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Its number: the revision that ordered it.
    pub version: u32,
    /// The digest of the manifest: every path, size and SHA-256.
    pub digest: Digest,
    /// How many bytes the files have.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// Which shards.
    #[schemars(length(max = 1000))]
    pub shards: Vec<ShardId>,
    /// When it was sealed (RFC 3339).
    pub sealed_at: Line,
    /// When it was withdrawn (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn_at: Option<Line>,
}

/// One sealed shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The digest of the image before encryption.
    pub digest: Digest,
    /// The digest of the encrypted file, as the image store has it.
    pub stored_digest: Digest,
    /// Its key at the key server.
    pub key: KeyName,
    /// Its data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// How many bytes its files have.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
}

/// `namespace/name` of a dataset.
pub fn reference(namespace: &Label, name: &ObjectName) -> crate::bounded::Ref {
    crate::bounded::Ref::from(format!("{namespace}/{name}"))
}
