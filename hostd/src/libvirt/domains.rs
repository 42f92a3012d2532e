//! Domains as libvirt knows them: found, described, in which state.

use dejima_crds::bounded::{Digest, Label};
use dejima_plan::host::DomainState;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::sys;

use super::xml::{self, Disk, Found};
use crate::driver::Error;

/// An error of libvirt, with what was attempted.
pub(super) fn libvirt(what: &'static str, on: impl Into<String>) -> impl FnOnce(virt::error::Error) -> Error {
    let on = on.into();
    move |cause| Error::driver(what, on, cause)
}

fn is_absent(error: &virt::error::Error) -> bool {
    [ErrorNumber::NoDomain, ErrorNumber::NoSecret]
        .into_iter()
        .any(|number| error.code() == number.into())
}

/// A domain of ours with its description; nothing where there is none.
pub(super) fn lookup(connection: &Connect, uuid: &str) -> Result<Option<(Domain, Found)>, Error> {
    let domain = match connection.lookup_domain_by_uuid_string(uuid) {
        Ok(domain) => domain,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(libvirt("look up", uuid)(error)),
    };
    describe(domain)
}

pub(super) fn describe(domain: Domain) -> Result<Option<(Domain, Found)>, Error> {
    match domain.xml_desc(0) {
        Ok(text) => Ok(xml::read(&text)?.map(|found| (domain, found))),
        // It went while we looked.
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(libvirt("describe", "a domain")(error)),
    }
}

pub(super) fn there(connection: &Connect, uuid: &str, machine: &Label) -> Result<(Domain, Found), Error> {
    lookup(connection, uuid)?.ok_or_else(|| Error::Missing(format!("there is no machine {machine}")))
}

pub(super) fn state(domain: &Domain) -> Result<DomainState, Error> {
    use virt::domain::DomainState as Said;
    let (said, _) = domain.state().map_err(libvirt("ask for the state of", "a domain"))?;
    Ok(match said.known() {
        Some(Said::Shutoff | Said::Crashed) => DomainState::Shutoff,
        Some(Said::Paused) => DomainState::Paused,
        Some(Said::Running | Said::Blocked | Said::Shutdown | Said::PMSuspended | Said::NoState) | None => DomainState::Running,
    })
}

/// How large a disk is in a machine that runs, in bytes: without the header of what is encrypted. Nothing where libvirt cannot tell.
pub(super) fn size(domain: &Domain, disk: &Disk) -> u64 {
    // libvirt clears the answer before it asks, and the binding does not say that it failed.
    domain.block_info(&disk.target, 0).map_or(0, |found| found.capacity)
}

/// How many bytes a machine has read of a disk since it was plugged in.
pub(super) fn bytes_read(domain: &Domain, disk: &Disk) -> u64 {
    let stats = domain.block_stats(&disk.target).map(|stats| u64::try_from(stats.rd_bytes));
    stats.ok().and_then(Result::ok).unwrap_or(0)
}

/// The digest of a definition as the next start takes it: what is plugged into a running machine does not count.
pub(super) fn next_definition(domain: &Domain) -> Result<Digest, Error> {
    let text = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE);
    let text = text.map_err(libvirt("describe", "a domain"))?;
    Ok(dejima_crds::digest::of_bytes(text.as_bytes()))
}

pub(super) fn forget_secret(connection: &Connect, uuid: &str) -> Result<(), Error> {
    let found = connection.lookup_secret_by_uuid_string(uuid);
    match found.and_then(|secret| secret.undefine()) {
        Err(error) if !is_absent(&error) => Err(libvirt("forget a secret", uuid)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
