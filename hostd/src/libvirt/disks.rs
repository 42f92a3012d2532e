//! Disks that come to and go from a running machine: LUNs of its virtio-scsi controller, which leave without the guest's consent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dejima_crds::bounded::{Label, Uid};
use dejima_plan::host::DomainState;
use virt::connect::Connect;
use virt::sys;

use super::domains::{forget_secret, libvirt, lookup, state, there};
use super::owned::SECRETS;
use super::xml::{Disk, Lun, secret_id};
use super::{CHANGE, END, Libvirt};
use crate::driver::Error;

impl Libvirt {
    /// Plugs a LUN into a running machine, at the first number that is free.
    pub(super) async fn plug(
        &self,
        project: &Uid,
        machine: &Label,
        file: PathBuf,
        serial: String,
        secret: Option<String>,
        writable: bool,
    ) -> Result<(), Error> {
        let (uuid, machine) = (Self::uuid(project, machine), machine.clone());
        let about = uuid.clone();
        let plug = move |connection: &Connect| {
            let (domain, found) = there(connection, &uuid, &machine)?;
            if found.disks.iter().any(|disk| disk.serial == serial) {
                return Ok(());
            }
            let taken: BTreeSet<u32> = found.disks.iter().filter_map(|disk| disk.unit).collect();
            let unit = (1..16_384).find(|unit| !taken.contains(unit)).unwrap_or(1);
            let lun = Lun {
                file: &file,
                serial: &serial,
                unit,
                secret: secret.as_deref(),
                writable,
            };
            let attached = domain.attach_device_flags(&lun.element().text()?, sys::VIR_DOMAIN_AFFECT_LIVE);
            attached.map_err(libvirt("attach to", machine.to_string()))
        };
        self.calls.call("attach a disk", &about, CHANGE, plug).await
    }

    /// Plugs in what is encrypted. Whatever came of it, its key does not stay.
    pub(super) async fn plug_opened(
        &self,
        project: &Uid,
        machine: &Label,
        file: Result<PathBuf, Error>,
        serial: &Label,
        writable: bool,
    ) -> Result<(), Error> {
        let secret = secret_id(serial)?;
        let plugged = match file {
            Ok(file) => {
                self.plug(project, machine, file, serial.to_string(), Some(secret.clone()), writable)
                    .await
            }
            Err(error) => Err(error),
        };
        let forgotten = self
            .calls
            .call("forget a key", SECRETS, CHANGE, move |connection| {
                forget_secret(connection, &secret)
            })
            .await;
        plugged.and(forgotten)
    }

    /// Takes LUNs away. Whether all of them are gone.
    ///
    /// One at a time: the loop that keeps ends and the one that carries plans out may both come for the same disk.
    pub(super) async fn unplug(
        &self,
        project: &Uid,
        machine: &Label,
        which: impl Fn(&Disk) -> bool + Send + Clone + 'static,
    ) -> Result<bool, Error> {
        let uuid = Self::uuid(project, machine);
        let about = uuid.clone();
        let unplug = move |connection: &Connect| {
            let Some((domain, found)) = lookup(connection, &uuid)? else {
                return Ok(true);
            };
            if state(&domain)? == DomainState::Shutoff {
                return Ok(true);
            }
            for disk in found.disks.iter().filter(|disk| which(disk)) {
                let asked = domain.detach_device_flags(&disk.xml, sys::VIR_DOMAIN_AFFECT_LIVE);
                asked.map_err(libvirt("detach from", found.machine.to_string()))?;
            }
            let left = lookup(connection, &uuid)?.is_some_and(|(_, found)| found.disks.iter().any(&which));
            Ok(!left)
        };
        let _one = self.unplugging.lock().await;
        self.calls.call("detach a disk", &about, END, unplug).await
    }
}
