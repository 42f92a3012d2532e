//! Models: the registry is not built yet, and each model says so.

use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, set};
use kube::{Api, ResourceExt as _};

use crate::pass::Pass;
use crate::{Context, apply, events};

/// One pass over all models.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    for model in pass.watched.models.state() {
        if !pass.watched.fresh(model.as_ref()) || model.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let mut wanted = model.as_ref().clone();
        let before = wanted.status.clone().unwrap_or_default().conditions;
        let draft = ConditionDraft {
            kind: ConditionKind::Registered,
            status: Truth::False,
            reason: "NotYetBuilt".to_owned(),
            message: "kind Model: the registry is not built yet: its files are not compared with their digests, its lineage is not recorded, and \
                      nothing follows from it"
                .to_owned(),
            observed_generation: model.metadata.generation.unwrap_or(0),
        };
        if !set(&mut wanted.status.get_or_insert_default().conditions, draft, pass.now) {
            continue;
        }
        let api = Api::namespaced(context.client.clone(), &model.namespace().unwrap_or_default());
        match apply::replace_status(context, &api, &wanted).await {
            Ok(written) => {
                pass.watched.wrote(&written);
                let after = written.status.clone().unwrap_or_default().conditions;
                events::announce(context, &written, &before, &after).await;
            }
            Err(error) => pass.note(&format!("model {}", model.name_any()), error),
        }
    }
}
