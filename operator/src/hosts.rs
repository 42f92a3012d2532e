//! Hosts: whether each lives, as its lease says.

use dejima_crds::Host;
use dejima_crds::condition::{ConditionDraft, ConditionKind, Truth, set};
use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::pass::Pass;
use crate::{Context, apply};

/// The name of the lease in the host's own namespace.
pub const LEASE: &str = "hostd";

/// Until when a host is taken for alive; nothing where it never gave a sign.
pub fn alive_until(context: &Context, pass: &Pass<'_>, host: &str) -> Option<Timestamp> {
    let namespace = dejima_crds::names::host_namespace(host);
    let leases = pass.watched.leases.state();
    let lease = leases
        .iter()
        .find(|lease| lease.name_any() == LEASE && lease.namespace().as_deref() == Some(namespace.as_str()))?;
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
    renewed
        .checked_add(SignedDuration::from_secs(i64::from(context.site.host_lease_seconds)))
        .ok()
}

/// Writes what changed of each host's condition.
pub async fn pass(context: &Context, pass: &mut Pass<'_>) {
    let api: Api<Host> = Api::all(context.client.clone());
    for host in pass.watched.hosts.state() {
        if !pass.watched.fresh(host.as_ref()) {
            continue;
        }
        let until = alive_until(context, pass, &host.name_any());
        let alive = until.is_some_and(|until| pass.now < until);
        if alive {
            pass.look_again(until);
        }
        let (status, reason, message) = if alive {
            (Truth::True, "Alive", "its hostd gives signs of life")
        } else {
            (
                Truth::False,
                "Silent",
                "its hostd gives no sign of life; what it holds goes on, its mounts as long as their leases",
            )
        };
        let mut conditions = host.status.clone().unwrap_or_default().conditions;
        let observed_generation = host.metadata.generation.unwrap_or(0);
        let draft = ConditionDraft {
            kind: ConditionKind::Ready,
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation,
        };
        if !set(&mut conditions, draft, pass.now) {
            continue;
        }
        match apply::patch(
            context,
            &api,
            host.as_ref(),
            json!({"status": {"conditions": conditions}}),
            true,
            "say-alive",
        )
        .await
        {
            Ok(written) => pass.watched.wrote(&written),
            Err(error) => pass.note(&format!("host {}", host.name_any()), error),
        }
    }
}
