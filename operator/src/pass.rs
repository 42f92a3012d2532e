//! The loop: a pass whenever something changed, or the next end of something comes; after failures, later and later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dejima_crds::bounded::{Digest, KeyName, ObjectName};
use dejima_plan::project::Wait;
use jiff::Timestamp;
use kube::Resource;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::seen::Memory;
use crate::watched::Watched;
use crate::{Context, admission, apply, datasets, grants, hosts, images, models, policies, projects, receipts, seen};

/// What can go wrong in a pass: said once, and the rest of the pass goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("cannot {what} {name}")]
    Api {
        /// What was attempted.
        what: &'static str,
        /// On what.
        name: String,
        /// What happened.
        #[source]
        cause: Box<kube::Error>,
    },
    /// Something would have been made for an object that is not any more as we have it.
    #[error("our copy of {0} is old")]
    Old(String),
    /// The key server.
    #[error(transparent)]
    Keys(#[from] crate::keys::Error),
    /// The ledger.
    #[error(transparent)]
    Record(#[from] crate::records::Error),
    /// A receipt that cannot be written down.
    #[error(transparent)]
    Receipt(#[from] dejima_crds::digest::NotJson),
    /// A test let it fail.
    #[error(transparent)]
    Injected(#[from] dejima_plan::effect::Injected),
}

impl Error {
    /// Whether somebody else was there first: our copy was old, and the next pass sees it.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Api { cause, .. } => matches!(cause.as_ref(), kube::Error::Api(status) if status.code == 409),
            Self::Old(_) => true,
            Self::Keys(_) | Self::Record(_) | Self::Receipt(_) | Self::Injected(_) => false,
        }
    }

    /// Who is waited for, in words for people; nothing where our own copy was old, or nobody answers to whom it could be said.
    pub fn wait(&self) -> Option<Wait> {
        let (reason, who) = match self {
            Self::Keys(error) => ("KeyServerSilent", error.who()?),
            Self::Record(crate::records::Error::Refused { .. }) => ("LedgerSilent", "the ledger, which took nothing"),
            Self::Api { cause, .. } if matches!(cause.as_ref(), kube::Error::Api(_)) && !self.is_conflict() => {
                ("Refused", "the API server, which refused")
            }
            Self::Api { .. } | Self::Old(_) | Self::Record(_) | Self::Receipt(_) | Self::Injected(_) => return None,
        };
        Some(Wait {
            reason,
            message: format!("waiting for {who}: {}", chain(self)),
            is_keys: matches!(self, Self::Keys(_)),
        })
    }
}

/// What one pass knows beside the stores.
#[derive(Debug)]
pub struct Pass<'a> {
    /// The stores.
    pub watched: &'a Watched,
    /// Now.
    pub now: Timestamp,
    /// Which admission policies are missing.
    pub admission: Vec<String>,
    /// What is remembered of admission.
    pub memory: &'a mut Memory,
    /// Objects (UID, resource version) whose new lines came while the policies stood, as the server has confirmed.
    pub confirmed: BTreeSet<(String, String)>,
    /// Failures so far.
    pub failures: Vec<Error>,
    /// When to look again.
    pub again: Option<Timestamp>,
    /// Which keys each host is to have, by project.
    pub opened: &'a mut BTreeMap<String, BTreeMap<String, BTreeSet<KeyName>>>,
    /// Which keys each host has, as the key server has taken it from us.
    pub allowed: &'a mut BTreeMap<String, BTreeSet<KeyName>>,
    /// The receipts that were issued, by id, as the ledger has taken them from us.
    pub issued: &'a mut BTreeMap<String, Digest>,
}

impl Pass<'_> {
    /// Keeps a failure; a conflict is no failure, only a reason to look again soon.
    pub fn note(&mut self, what: &str, error: Error) {
        if error.is_conflict() {
            tracing::debug!(what, error = %chain(&error), "somebody else was first");
        } else {
            tracing::warn!(what, error = %chain(&error), "will be tried again");
        }
        self.failures.push(error);
    }

    /// Whether new lines of an object count: known where the server has confirmed it of the object as it is.
    pub fn counts<K: Resource>(&self, object: &K) -> Option<bool> {
        seen::version(object)
            .is_some_and(|version| self.confirmed.contains(&version))
            .then_some(true)
    }

    /// Whether a host was to have exactly these keys of this owner when we last looked.
    pub fn has_opened(&self, host: &ObjectName, owner: &str, keys: &[KeyName]) -> bool {
        let known = self.opened.get(host.as_str()).and_then(|of| of.get(owner));
        known.is_some_and(|known| *known == keys.iter().cloned().collect())
    }

    /// Looks again at this time, if nothing else comes before.
    pub fn look_again(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.again = Some(self.again.map_or(at, |known| known.min(at)));
        }
    }
}

/// A request to the API server that failed: what was attempted, on what.
pub(crate) fn failed(what: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Error {
    let name = name.to_owned();
    move |cause| Error::Api {
        what,
        name,
        cause: Box::new(cause),
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What is remembered of admission: nothing is judged before it was read.
async fn remembered(context: &Context, stop: &mut watch::Receiver<bool>) -> Memory {
    let mut failures = 0;
    while !*stop.borrow() {
        match apply::read_memory(context).await {
            Ok(memory) => return memory,
            Err(error) => tracing::warn!(error = %chain(&error), "what is remembered of admission cannot be read yet"),
        }
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(context.site.pause(failures)) => {}
            _ = stop.changed() => {}
        }
    }
    Memory::default()
}

/// Runs until told to stop.
pub async fn run(context: Context, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let watched = Watched::start(&context.client, &mut tasks);
    if !watched.ready().await {
        tracing::error!("not everything could be read within a minute; going on with what is there");
    }
    tracing::info!("the operator is at work");
    let wanted = admission::Wanted::from_chart();
    let mut memory = remembered(&context, &mut stop).await;
    let (mut opened, mut allowed, mut issued) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut published = false;
    let mut failures = 0;
    while !*stop.borrow() {
        let now = Timestamp::now();
        let found = wanted.compare(&watched);
        let mut pass = Pass {
            watched: &watched,
            now,
            admission: found.missing.clone(),
            memory: &mut memory,
            confirmed: BTreeSet::new(),
            failures: Vec::new(),
            again: None,
            opened: &mut opened,
            allowed: &mut allowed,
            issued: &mut issued,
        };
        if !published {
            match receipts::publish(&context).await {
                Ok(()) => published = true,
                // Nothing waits for it: whoever can read the key server has the keys from there.
                Err(error) => tracing::warn!(error = %chain(&error), "the public keys of receipts are not published"),
            }
        }
        hosts::pass(&context, &mut pass).await;
        if pass.admission.is_empty() {
            let settled = if pass.memory.stamp.as_ref() == Some(&found.stamp) {
                seen::confirm(&context, &mut pass, &wanted).await
            } else {
                // What came while a policy was another one, or none, counts for nothing until it is written again.
                let closed = seen::close_gap(&context, &mut pass, &wanted, &found.stamp).await;
                if closed.is_err() && pass.admission.is_empty() {
                    pass.admission.push("what came in a gap is not marked yet".to_owned());
                }
                closed
            };
            if let Err(error) = settled {
                pass.note("what people wrote", error);
            }
        }
        images::pass(&context, &mut pass).await;
        models::pass(&context, &mut pass).await;
        policies::pass(&context, &mut pass).await;
        datasets::pass(&context, &mut pass).await;
        grants::pass(&context, &mut pass).await;
        projects::pass(&context, &mut pass).await;
        let serious = pass.failures.iter().any(|error| !error.is_conflict());
        failures = if serious { failures + 1 } else { 0 };
        let pause = if serious {
            context.site.pause(failures)
        } else if pass.failures.is_empty() {
            let until = pass.again.and_then(|at| Duration::try_from(now.duration_until(at)).ok());
            until.unwrap_or(Duration::MAX).min(Duration::from_secs(context.site.resync_seconds))
        } else {
            Duration::from_millis(50)
        };
        let hurried = async {
            // After a failure a change that our own half-done work made must not hurry us; but somebody else's may take access
            // away, and waits for no back-off that has nothing to do with it.
            if serious {
                tokio::time::sleep(Duration::from_millis(context.site.retry_ms)).await;
            }
            watched.changed.notified().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hurried => {}
            _ = stop.changed() => {}
        }
    }
    tasks.shutdown().await;
    tracing::info!("the operator has stopped");
    Ok(())
}
