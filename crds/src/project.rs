//! `IsolatedProject`: the sealed environment of one research group, as the group asks for it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Bytes, Cidr, Code, Digest, Label, Line, Login, Mondo, MountPath, ObjectName, Orcid, Prose, Ref, Ror, UserText};
use crate::condition::Condition;
use crate::country::Country;
use crate::duo::DuoId;
use crate::reason::{Decision, Reason};
use crate::text::Text;
use crate::usage_policy::Action;
use crate::when::When;

/// The sealed environment of one research group.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "dejima.dev",
    version = "v1alpha1",
    kind = "IsolatedProject",
    namespaced,
    status = "IsolatedProjectStatus",
    shortname = "iproj",
    category = "dejima",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 253").message("the name of a project has at most 253 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.summary.host"),
    printcolumn(name = "Machines", type_ = "string", json_path = ".status.summary.machines"),
    printcolumn(name = "Datasets", type_ = "string", json_path = ".status.summary.datasets"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.period.until"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.destroyVolumes) || !has(self.volumes) || self.destroyVolumes.all(d, self.volumes.all(v, v.name != d))")
        .message("a volume named in destroyVolumes must have left volumes first: take it out of one of the two lists"),
    validation = Rule::new("!has(self.volumes) || self.volumes.all(v, self.machines.exists(m, m.name == v.attachTo && m.count == 1))")
        .message("a volume is attached to one machine of this project, whose count is 1: check attachTo"),
    validation = Rule::new("!has(self.datasets) || self.datasets.all(d, d.attachTo.all(a, self.machines.exists(m, m.name == a)))")
        .message("a dataset is attached to machines of this project: check attachTo"),
    validation = Rule::new("!has(oldSelf.volumes) || !has(self.volumes) || self.volumes.all(v, oldSelf.volumes.all(o, o.name != v.name || o.size == v.size || !isQuantity(v.size) || quantity(v.size).compareTo(quantity(o.size)) >= 0))")
        .message("a volume grows, it never shrinks: give it its old size or more"),
    validation = Rule::new("self.machines.map(m, m.count).sum() <= 64")
        .message("a project has at most 64 machines, counted with their count")
        .field_path(".machines"),
    // Texts of one length are in the order of their times. Whatever else is wrong with a period, the operator says.
    validation = Rule::new("self.period.from.size() != self.period.until.size() || self.period.from.size() > 10 || self.period.from <= self.period.until")
        .message("a period ends after it begins: check from and until")
        .field_path(".period")
)]
pub struct IsolatedProjectSpec {
    /// What the project is called.
    pub title: Text,
    /// What it is for: every purpose must be allowed by every dataset.
    #[schemars(length(min = 1, max = 16))]
    pub purpose: Vec<Purpose>,
    /// The research organisation: a claim, a fact only where the namespace's label says the same.
    pub institution: Ror,
    /// Its kind: a claim, a fact only where the namespace's label says the same.
    pub org_kind: OrgKind,
    /// Its country: a claim, a fact only where the namespace's label says the same.
    pub country: Country,
    /// The people. They come in by the platform's door; no key of a person lies in a machine.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["subject".to_owned()]))]
    pub members: Vec<Member>,
    /// Terms that were accepted: each line is written only under the login it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["member".to_owned(), "digest".to_owned()]))]
    pub terms_accepted: Vec<TermsAccepted>,
    /// Approvals of the group's ethics committee: each counts once it is attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ethics: Vec<EthicsApproval>,
    /// From when until when.
    pub period: ProjectPeriod,
    /// Where it may run.
    #[serde(default)]
    pub placement: Placement,
    /// Its machines.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub machines: Vec<Machine>,
    /// Its volumes: encrypted, readable only with the project's key. One that leaves this list is detached and kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub volumes: Vec<Volume>,
    /// Kept volumes that are to be destroyed: the only way, besides deleting the project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub destroy_volumes: Vec<Label>,
    /// The datasets it wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".to_owned(), "name".to_owned()]))]
    pub datasets: Vec<DatasetWish>,
    /// What may leave the sealed network, once attested.
    #[serde(default)]
    pub network: Network,
    /// A vector index over its datasets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
}

/// One purpose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Purpose {
    /// The kind of research, a DUO term.
    pub duo: DuoId,
    /// The diseases, MONDO terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub mondo: Vec<Mondo>,
    /// What is to be done with the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub actions: Vec<Action>,
}

/// The kind of an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrgKind {
    /// Not for profit.
    NonProfit,
    /// For profit.
    ForProfit,
    /// Public.
    Public,
}

impl OrgKind {
    /// The word in specs and labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::NonProfit => "non-profit",
            Self::ForProfit => "for-profit",
            Self::Public => "public",
        }
    }
}

/// One person of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The login's subject.
    pub subject: Login,
    /// The person's ORCID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orcid: Option<Orcid>,
    /// What the person does here.
    pub role: Role,
    /// Trainings that were passed: each counts once attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub training: Vec<Training>,
}

/// A person's part in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Leads it.
    Lead,
    /// Does research.
    Researcher,
    /// Runs machines.
    Engineer,
}

/// A training that somebody passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Training {
    /// Which.
    pub course: Code,
    /// When.
    pub passed_on: When,
}

/// One member's acceptance of one text of terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TermsAccepted {
    /// Who: this line is written only under this login.
    pub member: Login,
    /// The digest of the text.
    pub digest: Digest,
}

/// An ethics committee's approval of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EthicsApproval {
    /// The committee.
    pub committee: Line,
    /// The protocol's number.
    pub protocol: Line,
    /// When it was approved.
    pub approved_on: When,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<When>,
    /// The digest of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_digest: Option<Digest>,
}

/// The project's time; afterwards mounts end and machines stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectPeriod {
    /// Its beginning.
    pub from: When,
    /// Its end, inclusive.
    pub until: When,
}

/// Where the machines may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Hosts that nobody else may use while the project is there.
    #[serde(default = "yes")]
    pub dedicated: bool,
    /// Labels that a host must bear.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub host_selector: std::collections::BTreeMap<String, Line>,
    /// Sites that come into question; any, where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub sites: Vec<Code>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            dedicated: true,
            host_selector: std::collections::BTreeMap::new(),
            sites: Vec::new(),
        }
    }
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// A machine, or several alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.class) != (has(self.cpu) && has(self.memory))").message("a machine names a class, or both cpu and memory"),
    validation = Rule::new("!has(self.memory) || !isQuantity(self.memory) || (quantity(self.memory).compareTo(quantity('64Mi')) >= 0 && quantity(self.memory).compareTo(quantity('64Ti')) <= 0)")
        .message("memory is at least 64Mi and at most 64Ti")
        .field_path(".memory")
)]
pub struct Machine {
    /// Its name in the project.
    #[schemars(length(max = 40))]
    pub name: Label,
    /// A class of the site.
    #[serde(rename = "class", skip_serializing_if = "Option::is_none")]
    pub class: Option<Code>,
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub cpu: Option<u32>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// The `MachineImage` it boots.
    pub image: ObjectName,
    /// How many.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub count: u32,
    /// Devices such as `gpu`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub devices: Vec<Code>,
    /// What the machine is given at its first boot (cloud-init user data). It never touches a disk of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserText>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.mountPath.matches('^/(bin|boot|dev|etc|lib|lib32|lib64|proc|run|sbin|sys|usr)(/|$)')")
        .message("this would hide a directory that the machine itself needs: choose another, such as /data/..., /scratch, /home/... or /srv/...")
        .field_path(".mountPath"),
    validation = Rule::new("!isQuantity(self.size) || (quantity(self.size).compareTo(quantity('16Mi')) >= 0 && quantity(self.size).compareTo(quantity('4096Ti')) <= 0)")
        .message("a volume has at least 16Mi and at most 4096Ti")
        .field_path(".size")
)]
pub struct Volume {
    /// Its name in the project.
    pub name: Label,
    /// How large.
    pub size: Bytes,
    /// The machine that it is attached to.
    pub attach_to: Label,
    /// Where it appears there.
    pub mount_path: MountPath,
    /// Whether it is backed up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
}

/// A dataset that the project wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.mountPath.matches('^/(bin|boot|dev|etc|lib|lib32|lib64|proc|run|sbin|sys|usr)(/|$)')")
        .message("this would hide a directory that the machine itself needs: choose another, such as /data/..., /scratch, /home/... or /srv/...")
        .field_path(".mountPath")
)]
pub struct DatasetWish {
    /// The provider's namespace.
    pub namespace: Label,
    /// The dataset.
    pub name: ObjectName,
    /// The version; the newest sealed one, where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u32>,
    /// What is to be done with it; `mount` and `read` are part of every wish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub actions: Vec<Action>,
    /// The machines in which it appears.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub attach_to: Vec<Label>,
    /// Where it appears there, read-only.
    pub mount_path: MountPath,
}

/// What may leave the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// Addresses outside that machines may open flows to, each once attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub egress: Vec<EgressEntry>,
    /// A layer-2 VPN to the institution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2vpn: Option<L2vpn>,
}

/// One address range outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct EgressEntry {
    /// Where to.
    pub cidr: Cidr,
    /// TCP ports.
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<u16>,
    /// What for.
    pub why: Line,
}

/// A layer-2 VPN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct L2vpn {
    /// A VXLAN network id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_215))]
    pub vni: Option<u32>,
    /// A VLAN id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<u16>,
    /// The hosts that have the other end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub hosts: Vec<ObjectName>,
}

/// A vector index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Index {
    /// Over which of the project's datasets.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub datasets: Vec<Ref>,
    /// A `Model` of this namespace, or one that is built in.
    pub embedder: Line,
    /// A `Model` of this namespace that tells support from refutation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifier: Option<Line>,
}

/// What the platform says of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.exposed) || (has(self.exposed) && oldSelf.exposed.all(o, self.exposed.exists(n, n.dataset == o.dataset && n.version == o.version)))").message("exposure only grows"))]
pub struct IsolatedProjectStatus {
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// For the columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The members, each effective or not, with reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub members: Vec<MemberStatus>,
    /// The datasets that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub datasets: Vec<DatasetWishStatus>,
    /// All dataset versions that were ever mounted here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub exposed: Vec<Exposure>,
    /// The machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub machines: Vec<MachineStatus>,
    /// The host that each machine, of those that were placed, is on; never changes while the machine is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub hosts: Vec<ObjectName>,
    /// Volumes that left the spec and are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub kept_volumes: Vec<KeptVolume>,
    /// The id of the receipt, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Line>,
    /// The admission policies (`name@uid.generation`) that stood when lines were first seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub seen: Vec<TermsSeen>,
}

/// Short forms for printer columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The host, or how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Line>,
    /// Running and wanted: `1/1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<Line>,
    /// Mounted and wanted: `1/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasets: Option<Line>,
}

/// One member, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Who.
    pub subject: Login,
    /// Whether he meets the clauses on persons of everything that is mounted.
    pub effective: bool,
    /// Digests of the terms he accepted, as far as they count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub terms_seen: Vec<Digest>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub reasons: Vec<Reason>,
}

/// An acceptance of terms that was first seen while the admission policies stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TermsSeen {
    /// Who.
    pub member: Login,
    /// Of which text.
    pub digest: Digest,
    /// When the operator first saw it (RFC 3339).
    pub first_seen: Line,
    /// Whether it counts: the admission policies stood when it came.
    pub counts: bool,
}

/// One wish, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetWishStatus {
    /// The provider's namespace.
    pub namespace: Label,
    /// The dataset.
    pub name: ObjectName,
    /// The version that the verdict is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The verdict.
    pub verdict: Decision,
    /// All reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub reasons: Vec<Reason>,
    /// The machines in which it is mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub mounted_on: Vec<Label>,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Line>,
    /// The verdict's own end (RFC 3339), as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Line>,
}

/// A dataset version that was mounted here, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// `namespace/name`.
    pub dataset: Ref,
    /// The version.
    pub version: u32,
    /// The digest of the policy that it was mounted under.
    pub policy_digest: Digest,
    /// Since when (RFC 3339).
    pub since: Line,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineStatus {
    /// Its name; `name-0`, `name-1`, … where the spec's count is above 1.
    pub name: Label,
    /// The host it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<ObjectName>,
    /// Its address on the project's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Line>,
    /// Its state, libvirt's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Code>,
}

/// A volume that left the spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptVolume {
    /// Its name.
    pub name: Label,
    /// The host that has it.
    pub host: ObjectName,
    /// How large.
    pub size: Bytes,
    /// What became of it, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Prose>,
}
