//! Canaries: what each admission policy must refuse, and would for nothing but the mark on it. Asked as dry runs, in the
//! platform's own namespace; until every policy has refused its own, nothing is judged.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use dejima_crds::{AccessGrant, Attestation, HostPlan, IsolatedProject};

use crate::pass::Error;
use crate::{Context, apply};

/// The annotation that names the policy which must refuse what bears it.
const MARK: &str = "dejima.dev/canary";

/// Asks whether this policy stands.
pub(crate) async fn refused(context: &Context, policy: &str) -> Result<(), Error> {
    let answer = match policy {
        "dejima-terms" => create::<IsolatedProject>(context, policy, project()).await,
        "dejima-attestations" => create::<Attestation>(context, policy, attestation()).await,
        "dejima-host-plans" => create::<HostPlan>(context, policy, plan()).await,
        // A namespace is never made here, not even as a dry run: the right to do so would be a wide one.
        "dejima-tenant-labels" => annotate(context, policy).await,
        // All others look at grants: for what they are for, or for this question.
        _ => create::<AccessGrant>(context, policy, grant()).await,
    };
    match answer {
        Err(kube::Error::Api(status)) if status.message.contains(&format!("'{policy}'")) => Ok(()),
        Err(error) => Err(not_yet(policy, error.to_string())),
        Ok(()) => Err(not_yet(policy, "it was not refused".to_owned())),
    }
}

fn not_yet(policy: &str, text: String) -> Error {
    Error::Api {
        what: "have refused the canary of",
        name: policy.to_owned(),
        cause: Box::new(kube::Error::Service(text.into())),
    }
}

async fn create<K>(context: &Context, policy: &str, spec: Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "spec": spec,
        "metadata": {"name": format!("canary-{policy}"), "namespace": apply::SYSTEM, "annotations": {MARK: policy}},
    });
    let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Api::<K>::namespaced(context.client.clone(), apply::SYSTEM)
        .create(&parameters, &object)
        .await
        .map(drop)
}

async fn annotate(context: &Context, policy: &str) -> Result<(), kube::Error> {
    let parameters = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let mark = json!({"metadata": {"annotations": {MARK: policy}}});
    Api::<Namespace>::all(context.client.clone())
        .patch_status(apply::SYSTEM, &parameters, &Patch::Merge(&mark))
        .await
        .map(drop)
}

const ROR: &str = "https://ror.org/010hz0g26";

fn grant() -> Value {
    json!({
        "project": {"namespace": "none", "name": "none", "uid": "none"}, "dataset": "none",
        "policy": {"name": "none", "digest": format!("sha256:{}", "0".repeat(64))},
        "request": {"purpose": [], "institution": ROR, "orgKind": "public", "country": "JP", "members": [], "actions": []},
        "window": {"from": "2026-01", "until": "2026-02"},
    })
}

fn project() -> Value {
    json!({
        "title": {"en": "none"}, "purpose": [{"duo": "DUO:0000042"}], "institution": ROR, "orgKind": "public", "country": "JP",
        "members": [{"subject": "nobody", "role": "lead"}], "period": {"from": "2026-01", "until": "2026-02"},
        "machines": [{"name": "one", "cpu": 1, "memory": "1Gi", "image": "none"}],
    })
}

fn attestation() -> Value {
    json!({"of": {"kind": "Dataset", "name": "none", "uid": "none"}, "claim": "approval", "value": {}, "by": "nobody"})
}

fn plan() -> Value {
    json!({"planGeneration": 1, "project": {
        "of": {"namespace": "none", "name": "none", "uid": "none"}, "dedicated": true, "key": "none",
        "segment": {"bridge": "none", "cidr": "10.64.0.0/24", "gateway": "10.64.0.1", "ports": []},
        "volumes": [], "mounts": [], "domains": [],
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canary_has_the_form_of_its_kind() {
        serde_json::from_value::<dejima_crds::AccessGrantSpec>(grant()).unwrap();
        serde_json::from_value::<dejima_crds::IsolatedProjectSpec>(project()).unwrap();
        serde_json::from_value::<dejima_crds::AttestationSpec>(attestation()).unwrap();
        serde_json::from_value::<dejima_crds::HostPlanSpec>(plan()).unwrap();
    }
}
