//! The console of a machine: the terminal (pty) that QEMU has made for its first serial port. It lives in the kernel's memory alone.

use std::os::fd::OwnedFd;

use async_trait::async_trait;
use dejima_crds::bounded::{Label, Uid};
use dejima_plan::host::DomainState;
use virt::connect::Connect;

use super::domains::{libvirt, state, there};
use super::{LOOK, Libvirt};
use crate::door::Consoles;
use crate::driver::Error;

/// The terminal of the first serial port, as libvirt says it of a domain that runs.
fn terminal(xml: &str) -> Option<String> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let mut ports = document.descendants().filter(|node| node.has_tag_name("serial"));
    let port = ports.find(|port| port.attribute("type") == Some("pty"))?;
    let source = port.children().find(|child| child.has_tag_name("source"))?;
    source.attribute("path").map(str::to_owned)
}

#[async_trait]
impl Consoles for Libvirt {
    async fn open(&self, project: &Uid, machine: &Label) -> Result<OwnedFd, Error> {
        let (uuid, named) = (Self::uuid(project, machine), machine.clone());
        let about = uuid.clone();
        let look = move |connection: &Connect| {
            let (domain, _) = there(connection, &uuid, &named)?;
            if state(&domain)? == DomainState::Shutoff {
                return Err(Error::Missing(format!("machine {named} is off")));
            }
            let xml = domain.xml_desc(0).map_err(libvirt("describe", named.to_string()))?;
            terminal(&xml).ok_or_else(|| Error::Missing(format!("machine {named} has no console")))
        };
        let path = self.calls.call("look for a console", &about, LOOK, look).await?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty());
        opened.map_err(|cause| Error::driver("open the console of", machine.to_string(), std::io::Error::from(cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_serial_port_that_is_a_terminal_is_the_console() {
        let xml = "<domain><devices><serial type='file'><source path='/x'/></serial>\
                   <serial type='pty'><source path='/dev/pts/3'/><target port='0'/></serial></devices></domain>";
        assert_eq!(terminal(xml).as_deref(), Some("/dev/pts/3"));
        assert_eq!(terminal("<domain><serial type='pty'/></domain>"), None);
        assert_eq!(terminal("no xml"), None);
    }
}
