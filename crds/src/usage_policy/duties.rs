//! What is owed, with what data may be put together, and what becomes of what is made from it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agreement::yes;
use crate::bounded::{Period, Ref};
use crate::text::Text;

/// One obligation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.attribute), has(self.publish), has(self.report), has(self.returnDerived), has(self.deleteWithin), has(self.notifyIncident)].filter(x, x).size() == 1").message("an obligation is exactly one of attribute, publish, report, returnDerived, deleteWithin, notifyIncident"))]
pub struct Obligation {
    /// Say where the data is from, in these words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<Text>,
    /// Publish the results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Give back what was derived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_derived: Option<Publish>,
    /// Delete after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_within: Option<DeleteWithin>,
    /// Tell of incidents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_incident: Option<NotifyIncident>,
}

/// To publish, or to give back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Publish {
    /// Within what time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
}

/// To report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// How often.
    pub every: Period,
}

/// To delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteWithin {
    /// Within what time after the end.
    pub period: Period,
    /// Whether a certificate is owed.
    #[serde(default)]
    pub certify: bool,
}

/// To tell of incidents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotifyIncident {
    /// Within what time.
    pub within: Period,
}

/// With what it may be used together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Combination {
    /// With which datasets it may be linked.
    #[serde(default)]
    pub link_with: LinkWith,
    /// The list, where `linkWith` is `list`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub link_list: Vec<Ref>,
    /// Datasets with which it must not be in one project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub forbid_with: Vec<Ref>,
    /// Nobody may try to find out whose data it is. Does not bear on mounting.
    #[serde(default = "yes")]
    pub no_reidentification: bool,
}

impl Default for Combination {
    fn default() -> Self {
        Self {
            link_with: LinkWith::Any,
            link_list: Vec::new(),
            forbid_with: Vec::new(),
            no_reidentification: true,
        }
    }
}

/// With what data may be linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LinkWith {
    /// With any.
    #[default]
    Any,
    /// With none.
    None,
    /// With those of the list.
    List,
}

/// What becomes of what is made from the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Derivatives {
    /// Of models.
    #[serde(default = "review_first")]
    pub model: Inheritance,
    /// Of adapters.
    #[serde(default = "review_first")]
    pub adapter: Inheritance,
    /// Of indices.
    #[serde(default = "review_first")]
    pub embedding_index: Inheritance,
    /// Of made-up data.
    #[serde(default = "review_first")]
    pub synthetic: Inheritance,
    /// Of sums.
    #[serde(default = "review_first")]
    pub aggregate: Inheritance,
}

impl Default for Derivatives {
    fn default() -> Self {
        Self {
            model: Inheritance::Review,
            adapter: Inheritance::Review,
            embedding_index: Inheritance::Review,
            synthetic: Inheritance::Review,
            aggregate: Inheritance::Review,
        }
    }
}

fn review_first() -> Inheritance {
    Inheritance::Review
}

/// What a derivative takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Inheritance {
    /// All conditions.
    Inherit,
    /// The obligations.
    ObligationsOnly,
    /// Nothing.
    None,
    /// All conditions, and a review before it leaves.
    Review,
}
