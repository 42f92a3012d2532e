//! Datasets: how far each has come.

use dejima_crds::Dataset;
use dejima_crds::condition::{ConditionDraft, set};
use dejima_crds::dataset::Latest;
use dejima_policy::{facts, standing};
use kube::{Api, ResourceExt as _};

use crate::pass::Pass;
use crate::{Context, apply};

/// The attestations of a namespace.
pub fn attestations(pass: &Pass<'_>, namespace: Option<&str>) -> Vec<dejima_crds::Attestation> {
    let all = pass.watched.attestations.state();
    all.iter()
        .filter(|attestation| attestation.namespace().as_deref() == namespace)
        .map(|attestation| attestation.as_ref().clone())
        .collect()
}

/// Writes what changed of each dataset's status.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    let zone = context.site.time_zone();
    for dataset in pass.watched.datasets.state() {
        let namespace = dataset.namespace();
        if !pass.watched.fresh(dataset.as_ref()) || !pass.admission.is_empty() {
            continue;
        }
        let facts = facts::dataset(&dataset, &attestations(pass, namespace.as_deref()));
        let mut wanted = dataset.as_ref().clone();
        let status = wanted.status.get_or_insert_default();
        let observed_generation = dataset.metadata.generation.unwrap_or(0);
        for said in standing(&facts, pass.now, &zone) {
            let draft = ConditionDraft {
                kind: said.kind,
                status: said.status,
                reason: said.reason.to_owned(),
                message: said.message,
                observed_generation,
            };
            set(&mut status.conditions, draft, pass.now);
        }
        let newest = dejima_policy::dataset::newest(&facts);
        status.measured_bytes = newest.map(|version| version.bytes);
        status.latest = newest.map(|version| Latest {
            version: version.version,
            files: version.files,
            bytes: version.bytes,
            short_digest: version.digest.short(12).into(),
        });
        if wanted.status == dataset.status {
            continue;
        }
        let api: Api<Dataset> = Api::namespaced(context.client.clone(), namespace.as_deref().unwrap_or_default());
        match apply::replace_status(context, &api, &wanted).await {
            Ok(written) => pass.watched.wrote(&written),
            Err(error) => pass.note(&format!("dataset {}", dataset.name_any()), error),
        }
    }
}
