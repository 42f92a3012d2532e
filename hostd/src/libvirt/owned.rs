//! What of ours is on a host with libvirt, whoever's it is; and how a stray leaves.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dejima_crds::bounded::{Label, Uid};
use dejima_plan::sweep::{Kind, Owned, Thing};
use virt::connect::Connect;

use super::domains::{forget_secret, libvirt};
use super::xml::{self, secret_id};
use super::{CHANGE, LOOK, Libvirt, Started};
use crate::driver::Error;
use crate::fetch::{Cache, PART};

/// What our secrets are used for begins so.
const USAGE: &str = "dejima/";
/// Whom a call about keys concerns.
pub(super) const SECRETS: &str = "secrets";

/// The serials of the disks whose keys libvirt holds for us: of a secret that bears our name and has another id than ours it is
/// not ours to judge.
fn secrets(connection: &Connect) -> Result<Vec<Thing>, Error> {
    let all = connection.list_all_secrets(0).map_err(libvirt("list", "secrets"))?;
    let serial = |secret: &virt::secret::Secret| {
        // One that goes while we look is not there. `Secret::usage_id` of virt 0.5 frees what is libvirt's: the description is ours.
        let (uuid, usage) = xml::usage(&secret.xml_desc(0).ok()?)?;
        let serial = Label::from(usage.strip_prefix(USAGE)?);
        (secret_id(&serial).ok()? == uuid).then_some(Thing::Secret(serial))
    };
    Ok(all.iter().filter_map(serial).collect())
}

/// The names in a directory; none where it is not there.
fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A machine's process that lives, although libvirt may not know it, is a machine.
fn places(run: &Path) -> std::io::Result<Vec<Thing>> {
    let mut all = Vec::new();
    for project in names(run)? {
        for machine in names(&run.join(&project))? {
            let (uid, name) = (Uid::from(project.as_str()), Label::from(machine.as_str()));
            let started = std::fs::read(run.join(&project).join(&machine).join("started.json")).ok();
            let started: Option<Started> = started.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if started.is_some_and(|started| started.process.is_there()) {
                all.push(Thing::Domain(uid.clone(), name.clone()));
            }
            all.push(Thing::Place(uid, name));
        }
    }
    Ok(all)
}

impl Libvirt {
    /// Everything of ours.
    pub(super) async fn owned(&self) -> Owned {
        let mut owned = match self.all().await {
            Ok(all) => {
                let shards = self.cache.shards();
                let attached = all
                    .iter()
                    .flat_map(|look| &look.found.disks)
                    .filter(|disk| disk.file.starts_with(&shards))
                    .filter_map(|disk| Cache::fetched(&disk.file))
                    .map(Thing::Attached);
                let domains = all
                    .iter()
                    .map(|look| Thing::Domain(look.found.project.clone(), look.found.machine.clone()));
                Owned::found(domains.chain(attached))
            }
            Err(_) => Owned::unknown(Kind::Domains),
        };
        // A call that is late may still need the key that was handed over for it.
        let asked = self.calls.call("list the keys", SECRETS, LOOK, secrets).await;
        owned = owned.and(match asked {
            Ok(secrets) if !self.calls.is_any_late() => Owned::found(secrets),
            Ok(_) | Err(_) => Owned::unknown(Kind::Secrets),
        });
        let (run, cache) = (self.settings.run.clone(), self.cache.clone());
        let files = tokio::task::spawn_blocking(move || Ok::<_, std::io::Error>([places(&run)?, cache.list()?].concat())).await;
        owned.and(match files {
            Ok(Ok(files)) => Owned::found(files),
            Ok(Err(_)) | Err(_) => Owned::unknown(Kind::Files),
        })
    }

    /// Takes a stray away.
    pub(super) async fn take_away(&self, thing: &Thing) -> Result<(), Error> {
        match thing {
            Thing::Secret(serial) => {
                let uuid = secret_id(serial)?;
                let forget = move |connection: &Connect| forget_secret(connection, &uuid);
                self.calls.call("forget a key", SECRETS, CHANGE, forget).await
            }
            Thing::Place(project, machine) => self.clear_place(project, machine),
            Thing::Fetched(digest) => remove(self.cache.shard_file(digest)).await,
            Thing::Part(name) => match self.cache.part(name) {
                Some(path) => remove(path).await,
                None => Err(Error::Missing(format!("`{name}` does not end in {PART}"))),
            },
            Thing::Domain(..) | Thing::Volume(..) | Thing::Network(_) | Thing::Bridge { .. } | Thing::Attached(_) | Thing::Unmade(..) => {
                Err(Error::Missing(format!("no machine's {} is ever swept", thing.word())))
            }
        }
    }

    /// Forgets what a machine was told by.
    pub(super) fn clear_place(&self, project: &Uid, machine: &Label) -> Result<(), Error> {
        let place = self.place(project, machine)?;
        match std::fs::remove_dir_all(&place) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(Error::driver("clear", place.display().to_string(), cause));
            }
            Ok(()) | Err(_) => {}
        }
        // The last machine takes the project's place with it; another one still needs it.
        let _ = std::fs::remove_dir(self.settings.run.join(project.as_str()));
        Ok(())
    }
}

/// Removes a file, where it is there.
async fn remove(path: PathBuf) -> Result<(), Error> {
    match tokio::fs::remove_file(&path).await {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(Error::driver("remove", path.display().to_string(), cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}
