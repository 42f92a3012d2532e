//! Whether the admission policies that the verdicts rest on stand: as the chart has them, bound, and seen to refuse.
//!
//! What was written while one of them was missing counts for nothing until it is written again: whenever a policy is
//! another one than before (its uid or generation), everything that is there and was not seen yet came in a gap.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::Value;

use crate::Context;
use crate::pass::{Error, failed};
use crate::watched::Watched;

const CHART: [&str; 3] = [
    include_str!("../../charts/dejima/templates/admission-lines.yaml"),
    include_str!("../../charts/dejima/templates/admission-attestations.yaml"),
    include_str!("../../charts/dejima/templates/admission-platform.yaml"),
];

/// What the chart says must stand.
#[derive(Clone, Debug)]
pub struct Wanted {
    policies: BTreeMap<String, Value>,
    bindings: BTreeMap<String, Value>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What is missing or differs; empty where all stand.
    pub missing: Vec<String>,
    /// `name@uid.generation` of each policy: whenever this differs from before, there was a gap.
    pub stamp: String,
}

impl Wanted {
    /// Read once, from the chart that this program was built with.
    pub fn from_chart() -> Self {
        let (mut policies, mut bindings) = (BTreeMap::new(), BTreeMap::new());
        for text in CHART {
            for document in serde_yaml::Deserializer::from_str(text) {
                let Ok(value) = Value::deserialize(document) else { continue };
                let name = value
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                let spec = value.get("spec").cloned().unwrap_or_default();
                match value.get("kind").and_then(Value::as_str) {
                    Some("ValidatingAdmissionPolicy") => policies.insert(name, spec),
                    Some("ValidatingAdmissionPolicyBinding") => bindings.insert(name, spec),
                    Some(_) | None => None,
                };
            }
        }
        Self { policies, bindings }
    }

    /// The names of the policies.
    pub fn names(&self) -> Vec<String> {
        self.policies.keys().cloned().collect()
    }

    /// Compares with what is there.
    pub fn compare(&self, watched: &Watched) -> Found {
        self.found(&watched.admission.state(), &watched.bindings.state())
    }

    /// The stamp of what the server has now; nothing where something is missing.
    pub(crate) async fn ask(&self, context: &Context) -> Result<Option<String>, Error> {
        let (client, all) = (&context.client, ListParams::default());
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone()).list(&all).await;
        let policies = policies.map_err(failed("list", "admission policies"))?;
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()).list(&all).await;
        let bindings = bindings.map_err(failed("list", "bindings of admission policies"))?;
        let policies: Vec<_> = policies.into_iter().map(Box::new).collect();
        let bindings: Vec<_> = bindings.into_iter().map(Box::new).collect();
        let Found { missing, stamp } = self.found(&policies, &bindings);
        Ok(missing.is_empty().then_some(stamp))
    }

    fn found(
        &self,
        policies: &[impl AsRef<ValidatingAdmissionPolicy>],
        bindings: &[impl AsRef<ValidatingAdmissionPolicyBinding>],
    ) -> Found {
        let mut missing = Vec::new();
        let mut stamp = Vec::new();
        for (name, spec) in &self.policies {
            let found = policies.iter().map(AsRef::as_ref).find(|policy| policy.name_any() == *name);
            let same = found
                .and_then(|policy| serde_json::to_value(&policy.spec).ok())
                .is_some_and(|there| within(spec, &there));
            let gone = found.is_some_and(|policy| policy.metadata.deletion_timestamp.is_some());
            if !same || gone {
                missing.push(name.clone());
            }
            if let Some(policy) = found {
                stamp.push(format!(
                    "{name}@{}.{}",
                    policy.uid().unwrap_or_default(),
                    policy.metadata.generation.unwrap_or(0)
                ));
            }
        }
        for (name, spec) in &self.bindings {
            let found = bindings.iter().map(AsRef::as_ref).find(|binding| binding.name_any() == *name);
            let there = found.and_then(|binding| serde_json::to_value(&binding.spec).ok());
            // A binding that matches less than ours (by resources, by parameters) binds less.
            let narrowed = there
                .as_ref()
                .is_some_and(|there| there.get("matchResources").is_some() || there.get("paramRef").is_some());
            if narrowed || !there.is_some_and(|there| within(spec, &there)) {
                missing.push(format!("{name} (binding)"));
            }
            if let Some(binding) = found {
                stamp.push(format!(
                    "{name}#{}.{}",
                    binding.uid().unwrap_or_default(),
                    binding.metadata.generation.unwrap_or(0)
                ));
            }
        }
        Found {
            missing,
            stamp: stamp.join(","),
        }
    }
}

/// Whether everything that is wanted is there as it is wanted. Lists must be equal in length and order; an object may
/// have more than was asked for only where the server fills in a default that excludes nothing.
fn within(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            wanted
                .iter()
                .all(|(key, value)| there.get(key).is_some_and(|there| within(value, there)))
                && there
                    .iter()
                    .filter(|(key, _)| !wanted.contains_key(*key))
                    .all(|(key, value)| harmless(key, value))
        }
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| within(wanted, there))
        }
        (wanted, there) => wanted == there,
    }
}

fn harmless(key: &str, value: &Value) -> bool {
    match key {
        "matchPolicy" => value == "Equivalent",
        "scope" => value == "*",
        "namespaceSelector" | "objectSelector" => value.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn there(wanted: &Wanted) -> (Vec<Arc<ValidatingAdmissionPolicy>>, Vec<Arc<ValidatingAdmissionPolicyBinding>>) {
        let object = |name: &String, spec: &Value| json!({"metadata": {"name": name, "uid": "u", "generation": 1}, "spec": spec});
        let policies = wanted
            .policies
            .iter()
            .map(|(name, spec)| Arc::new(serde_json::from_value(object(name, spec)).unwrap()))
            .collect();
        let bindings = wanted
            .bindings
            .iter()
            .map(|(name, spec)| Arc::new(serde_json::from_value(object(name, spec)).unwrap()))
            .collect();
        (policies, bindings)
    }

    #[test]
    fn a_policy_that_is_missing_changed_or_narrowed_is_named() {
        let wanted = Wanted::from_chart();
        assert_eq!(wanted.policies.len(), wanted.bindings.len());
        assert!(wanted.policies.len() >= 8);
        let (policies, bindings) = there(&wanted);
        assert_eq!(wanted.found(&policies, &bindings).missing, Vec::<String>::new(), "the control");
        assert_eq!(wanted.found(&policies[1..], &bindings).missing, [policies[0].name_any()]);
        let mut changed = (*policies[0]).clone();
        changed.spec.as_mut().unwrap().validations.as_mut().unwrap().pop();
        let with = [vec![Arc::new(changed)], policies[1..].to_vec()].concat();
        assert_eq!(wanted.found(&with, &bindings).missing, [policies[0].name_any()]);
        let mut conditional = (*policies[0]).clone();
        conditional.spec.as_mut().unwrap().match_conditions = Some(vec![
            serde_json::from_value(json!({"name": "never", "expression": "false"})).unwrap(),
        ]);
        let with = [vec![Arc::new(conditional)], policies[1..].to_vec()].concat();
        assert_eq!(wanted.found(&with, &bindings).missing, [policies[0].name_any()]);
        let mut audited = (*bindings[0]).clone();
        audited.spec.validation_actions = vec!["Audit".to_owned()];
        let with = [vec![Arc::new(audited)], bindings[1..].to_vec()].concat();
        assert_eq!(
            wanted.found(&policies, &with).missing,
            [format!("{} (binding)", bindings[0].name_any())]
        );
    }

    #[test]
    fn a_policy_that_was_made_again_has_another_stamp() {
        let wanted = Wanted::from_chart();
        let (policies, bindings) = there(&wanted);
        let mut again = (*policies[0]).clone();
        again.metadata.uid = Some("v".to_owned());
        let with = [vec![Arc::new(again)], policies[1..].to_vec()].concat();
        let (before, after) = (wanted.found(&policies, &bindings), wanted.found(&with, &bindings));
        assert!(after.missing.is_empty());
        assert_ne!(before.stamp, after.stamp);
    }
}
