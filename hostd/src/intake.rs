//! The order to seal: read and report; once there are keys, seal what is new and report that.

use std::sync::Arc;

use dejima_crds::condition::seconds;
use dejima_crds::host_plan::{HostPlanSpec, HostPlanStatus, IntakePlan, Item, ItemState};
use dejima_plan::effect::{Effect, Gate, through};
use dejima_plan::manifest::{ShardFiles, shards};
use jiff::Timestamp;

use crate::driver::{Drivers, Error};
use crate::scan::Source;
use crate::seal::{Intake, remove, seal};

/// The source of a plan, open, and its shards as they are now.
async fn read(intake: &Intake, plan: &IntakePlan) -> Result<(Arc<Source>, Vec<ShardFiles>, dejima_crds::host_plan::Scanned), Error> {
    let (base, root, path) = (intake.sources.clone(), plan.root.to_string(), plan.source.path.to_string());
    let (limit, version) = (plan.shard_bytes, plan.version);
    let work = move || {
        let source = Source::open(&base, &root, &path)?;
        let (all, scanned) = shards(source.scan()?, limit, version).map_err(|error| Error::Missing(error.to_string()))?;
        Ok((Arc::new(source), all, scanned))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|cause| Error::driver("read", "the source", cause))?
}

/// One look at an order to seal: the status as it is after it.
pub async fn look(
    drivers: &Drivers,
    intake: Option<&Intake>,
    spec: &HostPlanSpec,
    plan: &IntakePlan,
    before: &HostPlanStatus,
    held: bool,
    now: Timestamp,
) -> (HostPlanStatus, Option<Error>) {
    let mut status = HostPlanStatus {
        plan_generation: spec.plan_generation,
        ..before.clone()
    };
    let result = match intake {
        Some(intake) if spec.ends => end(drivers, intake, plan, &mut status, now).await,
        None => Err(Error::Missing("this host has no intake: it was started without one".to_owned())),
        Some(_) if held => Err(Error::Missing("a host that is held by a project seals nothing".to_owned())),
        Some(intake) => carry_out(drivers, intake, plan, &mut status).await,
    };
    let (state, error) = match result {
        Ok(true) => (ItemState::Ready, None),
        Ok(false) => (ItemState::Pending, None),
        Err(error) => (ItemState::Failed, Some(error)),
    };
    let message = error.as_ref().map(|error| dejima_crds::bounded::Prose::cut(&chain(error)));
    let since = before
        .items
        .iter()
        .find(|item| item.item == "seal" && item.state == state)
        .map(|item| item.since.clone());
    status.problem = error.as_ref().map(|error| error.reason().into());
    status.items = vec![Item {
        item: "seal".into(),
        state,
        reason: error.as_ref().map(|error| error.reason().into()),
        message,
        wrapped_key: None,
        since: since.unwrap_or_else(|| seconds(now)),
    }];
    (status, error)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source()).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Takes everything of a dataset out of the image store, what was sealed and never reported as well. Its keys are gone: what a
/// copy of it is worth, wherever it lies, is nothing.
async fn end(drivers: &Drivers, intake: &Intake, plan: &IntakePlan, status: &mut HostPlanStatus, now: Timestamp) -> Result<bool, Error> {
    let gate = drivers.gate.as_ref();
    // Whatever a life that was cut short left is plain.
    through(gate, Effect::new("seal", "clear"), crate::seal::clear(&intake.scratch)).await?;
    if status.closed_at.is_none() {
        status.closed_at = Some(seconds(now));
    }
    let sealed = status.sealed.iter().map(|shard| &shard.stored_digest);
    for stored in plan.known.iter().map(|known| &known.stored_digest).chain(sealed) {
        through(gate, Effect::new("seal/shard", "remove"), remove(intake, stored)).await?;
    }
    for (shard, stored) in intake.noted(&plan.dataset.uid)? {
        through(gate, Effect::new("seal/shard", "remove"), remove(intake, &stored)).await?;
        intake.forget(&plan.dataset.uid, &shard, &stored)?;
    }
    if status.swept_at.is_none() {
        status.swept_at = Some(seconds(now));
    }
    Ok(true)
}

/// Reads, where that was not done yet; seals what has a key and is not sealed. Whether all of it is sealed.
async fn carry_out(drivers: &Drivers, intake: &Intake, plan: &IntakePlan, status: &mut HostPlanStatus) -> Result<bool, Error> {
    let gate = drivers.gate.as_ref();
    let scanned = status.scanned.as_ref().filter(|scanned| scanned.version == plan.version);
    if scanned.is_none() {
        let (_, _, found) = through(gate, Effect::new("seal", "scan"), read(intake, plan)).await?;
        status.scanned = Some(found);
        status.sealed.clear();
        return Ok(false);
    }
    let missing = |status: &HostPlanStatus| plan.keys.iter().any(|key| !status.sealed.iter().any(|shard| shard.id == key.shard));
    if !missing(status) {
        return Ok(!plan.keys.is_empty()
            || status.scanned.as_ref().is_some_and(|scanned| {
                scanned
                    .shards
                    .iter()
                    .all(|shard| plan.known.iter().any(|known| known.id == shard.id))
            }));
    }
    let (source, all, found) = through(gate, Effect::new("seal", "read-again"), read(intake, plan)).await?;
    if status.scanned.as_ref() != Some(&found) {
        return Err(Error::Missing(
            "the source changed since it was read: raise revision when it stands still".to_owned(),
        ));
    }
    for key in &plan.keys {
        if status.sealed.iter().any(|shard| shard.id == key.shard) {
            continue;
        }
        let Some(shard) = all.iter().find(|shard| shard.id == key.shard) else {
            continue;
        };
        let named = |verb| Effect::new("seal/shard", verb);
        let (plain, wrapped) = through(gate, named("make-key"), drivers.keys.data_key(&key.key)).await?;
        let sealed = seal(
            intake,
            &plan.dataset.uid,
            Arc::clone(&source),
            shard.clone(),
            key.key.clone(),
            plain,
            wrapped,
        );
        status.sealed.push(through(gate, named("seal"), sealed).await?);
    }
    Ok(true)
}

/// Once it was reported which encrypted file a shard is: takes others out of the image store that were made of it and never
/// reported, since a life was cut short or its word was lost.
pub async fn tidy(gate: &dyn Gate, intake: &Intake, plan: &IntakePlan, reported: &HostPlanStatus) -> Result<(), Error> {
    let of = &plan.dataset.uid;
    for (shard, stored) in intake.noted(of)? {
        let sealed = reported
            .sealed
            .iter()
            .find(|sealed| sealed.id == shard)
            .map(|sealed| &sealed.stored_digest);
        let known = plan.known.iter().find(|known| known.id == shard).map(|known| &known.stored_digest);
        match sealed.or(known) {
            // It is not known yet which of them it is.
            None => continue,
            Some(standing) if *standing == stored => {}
            Some(_) => {
                let name = Effect::new("seal/shard", "remove");
                through(gate, name, remove(intake, &stored)).await?;
            }
        }
        intake.forget(of, &shard, &stored)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dejima_crds::bounded::{Digest, ShardId, Uid};
    use dejima_plan::effect::Open;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use serde_json::json;

    use super::*;
    use crate::seal::store_path;

    #[tokio::test]
    async fn what_was_put_into_the_store_and_never_reported_is_taken_out_once_another_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        let intake = Intake {
            sources: dir.path().join("sources"),
            scratch: dir.path().join("scratch"),
            store: store.clone(),
            put: dir.path().join("put"),
        };
        let (of, shard) = (Uid::from("d-1"), ShardId::from("00000000000000aa"));
        let stored = |sign: &str| Digest::from(format!("sha256:{}", sign.repeat(64)));
        let files = || async {
            let mut found = Vec::new();
            for sign in ["a", "b", "c"] {
                if store.head(&store_path(&stored(sign))).await.is_ok() {
                    found.push(sign);
                }
            }
            found
        };
        // One life put `a`, and was cut short; the next put `b`. `c` is of another dataset.
        for (dataset, sign) in [(&of, "a"), (&of, "b"), (&Uid::from("d-2"), "c")] {
            intake.put(dataset, &shard, &stored(sign)).unwrap();
            store.put(&store_path(&stored(sign)), "noise".into()).await.unwrap();
        }
        let plan: IntakePlan = serde_json::from_value(json!({
            "dataset": {"namespace": "jichi", "name": "ct", "uid": of}, "version": 1, "source": {"host": "h", "path": "p"},
            "root": "r", "shardBytes": 1, "known": [], "keys": [],
        }))
        .unwrap();
        let mut said = HostPlanStatus::default();
        tidy(&Open, &intake, &plan, &said).await.unwrap();
        assert_eq!(files().await, ["a", "b", "c"], "nobody can tell yet which of them it is");
        let sealed = json!([{"id": shard, "digest": stored("d"), "storedDigest": stored("b"), "key": "k", "wrappedKey": "vault:v1:YQ==", "bytes": 1, "files": 1}]);
        said.sealed = serde_json::from_value(sealed).unwrap();
        tidy(&Open, &intake, &plan, &said).await.unwrap();
        assert_eq!(files().await, ["b", "c"]);
        assert_eq!(
            (intake.noted(&of).unwrap().len(), intake.noted(&"d-2".into()).unwrap().len()),
            (0, 1)
        );
    }
}
