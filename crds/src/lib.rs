//! The nouns of Dejima: API group `dejima.dev/v1alpha1`.
//!
//! Types, schemas and CEL rules; nothing here talks to anybody, waits for anything, or knows the time.
//!
//! ```text
//! people write:    IsolatedProject  Dataset  UsagePolicy  AccessGrant  Attestation  Model  MachineImage
//! the platform's:  Host  HostPlan            wire forms: of the record (`act`), of receipts (`receipt`), of the door (`door`)
//! ```
//! Every list and string is bounded, so that the cost of a CEL rule is known and no object can grow without end.

#![expect(
    unreachable_pub,
    reason = "the schema derive repeats each type inside a function, where `pub` reaches nobody"
)]

pub mod act;
pub mod attestation;
pub mod bounded;
pub mod condition;
pub mod country;
pub mod dataset;
pub mod digest;
pub mod door;
pub mod duo;
pub mod grant;
pub mod host;
pub mod host_plan;
pub mod image;
pub mod model;
pub mod names;
pub mod project;
pub mod reason;
pub mod receipt;
pub mod text;
pub mod usage_policy;
pub mod when;

pub use attestation::{Attestation, AttestationSpec, AttestationStatus};
pub use dataset::{Dataset, DatasetSpec, DatasetStatus};
pub use grant::{AccessGrant, AccessGrantSpec, AccessGrantStatus};
pub use host::{Host, HostSpec, HostStatus};
pub use host_plan::{HostPlan, HostPlanSpec, HostPlanStatus};
pub use image::{MachineImage, MachineImageSpec, MachineImageStatus};
pub use model::{Model, ModelSpec, ModelStatus};
pub use project::{IsolatedProject, IsolatedProjectSpec, IsolatedProjectStatus};
pub use usage_policy::{UsagePolicy, UsagePolicySpec, UsagePolicyStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt as _, Resource as _};

/// The API group of everything in this crate.
pub const GROUP: &str = "dejima.dev";

/// All definitions, in the order in which people meet them.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        IsolatedProject::crd(),
        Dataset::crd(),
        UsagePolicy::crd(),
        AccessGrant::crd(),
        Attestation::crd(),
        Model::crd(),
        MachineImage::crd(),
        Host::crd(),
        HostPlan::crd(),
    ];
    for definition in &mut all {
        let is_ours = definition.spec.names.kind == HostPlan::kind(&());
        for version in &mut definition.spec.versions {
            let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
                continue;
            };
            bound_numbers(schema);
            for (_, part) in schema
                .properties
                .iter_mut()
                .flatten()
                .filter(|(name, _)| is_ours || *name == "status")
            {
                be_silent(part);
            }
        }
    }
    all
}

/// Takes the words from strings that the platform writes: nobody reads them, and the rules that bear them have a price.
fn be_silent(schema: &mut JSONSchemaProps) {
    if schema.type_.as_deref() == Some("string") {
        schema.x_kubernetes_validations = None;
    }
    parts(schema).for_each(be_silent);
}

/// The schemas inside a schema.
fn parts(schema: &mut JSONSchemaProps) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let items = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&mut **items),
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
    };
    let values = match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => Some(&mut **values),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
    };
    let fields = schema.properties.iter_mut().flat_map(|all| all.values_mut());
    items.into_iter().chain(values).chain(fields)
}

/// Gives each whole number that has no bound of its own the bound of its type. A number that the API server takes and its type
/// has no room for could not be read: neither could any other object of that kind, since they are listed together.
fn bound_numbers(schema: &mut JSONSchemaProps) {
    if schema.type_.as_deref() == Some("integer") && schema.maximum.is_none() {
        // JSON knows whole numbers exactly up to 2^53 - 1.
        let most = match schema.format.as_deref() {
            Some("uint8") => f64::from(u8::MAX),
            Some("uint16") => f64::from(u16::MAX),
            Some("int32") => f64::from(i32::MAX),
            Some("uint32") => f64::from(u32::MAX),
            Some(_) | None => 9_007_199_254_740_991.0,
        };
        schema.maximum = Some(most);
        schema.minimum.get_or_insert(0.0);
    }
    parts(schema).for_each(bound_numbers);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a schema, and says of each part of it that has no bound where it is.
    fn unbounded(schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
        let lacks = match schema.type_.as_deref() {
            Some("integer") => {
                let room = match schema.format.as_deref() {
                    Some("uint8") => f64::from(u8::MAX),
                    Some("uint16") => f64::from(u16::MAX),
                    Some("int32") => f64::from(i32::MAX),
                    Some("uint32") => f64::from(u32::MAX),
                    Some("int64" | "uint64") => 9_007_199_254_740_991.0,
                    Some(_) | None => 0.0,
                };
                !(schema.minimum.is_some_and(|least| least >= 0.0) && schema.maximum.is_some_and(|most| most <= room))
            }
            Some("string") => schema.max_length.is_none() && schema.enum_.is_none(),
            Some("array") => schema.max_items.is_none(),
            Some("object") => schema.additional_properties.is_some() && schema.max_properties.is_none(),
            Some("boolean") => false,
            // A float, or a part without a form.
            Some(_) | None => true,
        };
        if lacks || schema.x_kubernetes_preserve_unknown_fields.is_some() {
            found.push(path.to_owned());
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            unbounded(items, &format!("{path}[]"), found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            unbounded(values, &format!("{path}{{}}"), found);
        }
        for (name, field) in schema.properties.iter().flatten() {
            unbounded(field, &format!("{path}.{name}"), found);
        }
    }

    #[test]
    fn whatever_the_api_server_takes_has_room_in_its_type_and_an_end() {
        let mut found = Vec::new();
        for definition in all() {
            for version in &definition.spec.versions {
                let schema = version
                    .schema
                    .as_ref()
                    .and_then(|schema| schema.open_api_v3_schema.as_ref())
                    .unwrap();
                unbounded(schema, &definition.spec.names.kind, &mut found);
            }
        }
        assert!(found.is_empty(), "{found:#?}");
        let version = json_path(&all()[0], &["spec", "datasets", "version"]);
        assert_eq!(
            (version.minimum, version.maximum),
            (Some(1.0), Some(f64::from(u32::MAX))),
            "the control"
        );
    }

    fn json_path(definition: &CustomResourceDefinition, path: &[&str]) -> JSONSchemaProps {
        let schema = definition.spec.versions[0]
            .schema
            .clone()
            .and_then(|schema| schema.open_api_v3_schema);
        path.iter().fold(schema.unwrap(), |schema, name| {
            let field = schema.properties.unwrap()[*name].clone();
            match field.items {
                Some(JSONSchemaPropsOrArray::Schema(items)) => *items,
                Some(JSONSchemaPropsOrArray::Schemas(_)) | None => field,
            }
        })
    }
}
