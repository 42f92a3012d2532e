//! Images: whether what machines boot lies in the image store with the digests that the image names, as hosts have seen it.

use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, set};
use dejima_plan::image::available;
use kube::{Api, ResourceExt as _};

use crate::pass::Pass;
use crate::{Context, apply};

/// One pass over all images.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    let hosts = pass.watched.hosts.state();
    let hosts: Vec<&dejima_crds::Host> = hosts.iter().map(AsRef::as_ref).collect();
    for image in pass.watched.images.state() {
        if !pass.watched.fresh(image.as_ref()) {
            continue;
        }
        let (status, reason, message) = match available(&image.spec, &hosts) {
            None => (
                Truth::Unknown,
                "NoHost",
                "no host that runs machines has said what it finds in the image store".to_owned(),
            ),
            Some(Ok(())) => (
                Truth::True,
                "InStore",
                "what it boots lies in the image store, as its digests say".to_owned(),
            ),
            Some(Err((reason, message))) => (Truth::False, reason, message),
        };
        let mut wanted = image.as_ref().clone();
        let draft = ConditionDraft {
            kind: ConditionKind::Available,
            status,
            reason: reason.to_owned(),
            message,
            observed_generation: image.metadata.generation.unwrap_or(0),
        };
        if !set(&mut wanted.status.get_or_insert_default().conditions, draft, pass.now) {
            continue;
        }
        match apply::replace_status(context, &Api::all(context.client.clone()), &wanted).await {
            Ok(written) => pass.watched.wrote(&written),
            Err(error) => pass.note(&format!("image {}", image.name_any()), error),
        }
    }
}
