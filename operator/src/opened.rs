//! Which host may use which keys: what is to be, what the key server has taken, and the difference written.

use std::collections::BTreeSet;

use dejima_crds::bounded::{KeyName, ObjectName};
use dejima_crds::names;
use dejima_plan::effect::{Effect, through};
use kube::ResourceExt as _;

use crate::Context;
use crate::pass::{Error, Pass};

/// Which keys a host may use: of this owner (a project, a dataset) the given ones, of the others what we know of them.
/// Those of `make` are made first, where they are not there.
pub(crate) async fn open(
    context: &Context,
    pass: &mut Pass<'_>,
    host: &ObjectName,
    owner: &str,
    keys: Option<Vec<KeyName>>,
    make: &[KeyName],
) -> Result<(), Error> {
    let plans = pass.watched.plans.state();
    let namespace = names::host_namespace(host.as_str());
    let known = pass.opened.entry(host.to_string()).or_insert_with(|| {
        let here = plans
            .iter()
            .filter(|plan| plan.namespace().as_deref() == Some(namespace.as_str()) && !plan.spec.ends);
        here.filter_map(|plan| match (&plan.spec.project, &plan.spec.intake) {
            (Some(project), _) => {
                let shards = project.mounts.iter().flat_map(|mount| &mount.shards).map(|shard| shard.key.clone());
                Some((project.of.uid.to_string(), shards.chain([project.key.clone()]).collect()))
            }
            (None, Some(intake)) => Some((
                intake.dataset.uid.to_string(),
                intake.keys.iter().map(|key| key.key.clone()).collect(),
            )),
            (None, None) => None,
        })
        .collect()
    });
    match &keys {
        Some(keys) => known.insert(owner.to_owned(), keys.iter().cloned().collect()),
        None => known.remove(owner),
    };
    let all: BTreeSet<KeyName> = known.values().flatten().cloned().collect();
    // Said at every pass, written once: what failed half-way is thus made good by the next pass.
    if pass.allowed.get(host.as_str()) == Some(&all) {
        return Ok(());
    }
    for key in make {
        let kind = key.as_str().split('-').next().unwrap_or_default();
        through(
            context.gate.as_ref(),
            Effect::new(format!("key/{kind}"), "make"),
            context.keys.make(key),
        )
        .await?;
    }
    through(
        context.gate.as_ref(),
        Effect::new(format!("keys/{host}"), "allow"),
        context.keys.allow(host.as_str(), &all),
    )
    .await?;
    pass.allowed.insert(host.to_string(), all);
    Ok(())
}
