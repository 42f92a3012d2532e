//! libvirt's XML: what we define is built from typed elements, so that no text of a user becomes markup; what we find is read.

use std::path::{Path, PathBuf};

use dejima_crds::bounded::{Digest, Label, Uid};
use dejima_crds::host_plan::{DomainPlan, ProjectPlan};
use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

use crate::driver::Error;

/// The name space of our stamp in a domain's metadata.
const STAMP: &str = "https://dejima.dev/machine/1";
/// What a kernel is told where its image says nothing.
const COMMAND_LINE: &str = "console=ttyS0";

/// An element with its attributes and either children or text.
#[derive(Clone, Debug)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Element>,
    text: Option<String>,
}

fn element(name: &'static str) -> Element {
    Element {
        name,
        attributes: Vec::new(),
        children: Vec::new(),
        text: None,
    }
}

impl Element {
    fn with(mut self, attribute: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((attribute, value.into()));
        self
    }

    fn holding(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    fn saying(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let mut start = BytesStart::new(self.name);
        for (name, value) in &self.attributes {
            start.push_attribute((name.as_bytes(), escaped(value)?.as_bytes()));
        }
        if self.children.is_empty() && self.text.is_none() {
            return writer.write_event(Event::Empty(start));
        }
        writer.write_event(Event::Start(start))?;
        if let Some(text) = &self.text {
            writer.write_event(Event::Text(BytesText::from_escaped(escaped(text)?)))?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name)))
    }

    /// The document.
    pub(super) fn text(&self) -> Result<String, Error> {
        let mut writer = Writer::new(Vec::new());
        self.write(&mut writer)
            .map_err(|cause| Error::driver("write the definition of", self.name, cause))?;
        String::from_utf8(writer.into_inner()).map_err(|cause| Error::driver("write the definition of", self.name, cause))
    }
}

/// A text as it stands in a document, so that exactly it is read again: a reader makes spaces of tabs and line breaks in attributes.
/// What XML 1.0 has no way to say (section 2.2) is an error.
fn escaped(text: &str) -> std::io::Result<String> {
    let mut all = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            '\'' => all.push_str("&apos;"),
            '\t' => all.push_str("&#9;"),
            '\n' => all.push_str("&#10;"),
            '\r' => all.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                return Err(std::io::Error::other(format!(
                    "`{}` has no place in a definition",
                    text.escape_debug()
                )));
            }
            sign => all.push(sign),
        }
    }
    Ok(all)
}

/// A machine that is to be defined.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    /// The plan of its project.
    pub(super) plan: &'a ProjectPlan,
    /// Its own part of it.
    pub(super) domain: &'a DomainPlan,
    /// Its name, libvirt's.
    pub(super) name: &'a str,
    /// The digest of what it is defined from.
    pub(super) definition: &'a Digest,
    /// Whether the processor helps.
    pub(super) kvm: bool,
    /// The kernel and the initrd on this host.
    pub(super) boot: (&'a Path, &'a Path),
    /// The seed, in memory.
    pub(super) seed: &'a Path,
    /// The files of its volumes, with their serials.
    pub(super) volumes: &'a [(Label, PathBuf)],
}

/// A file as a LUN of the one virtio-scsi controller: such a disk can be taken away without the guest's consent.
#[derive(Debug)]
pub(super) struct Lun<'a> {
    /// The file.
    pub(super) file: &'a Path,
    /// Its serial in the guest.
    pub(super) serial: &'a str,
    /// Its number on the controller.
    pub(super) unit: u32,
    /// The secret that opens it.
    pub(super) secret: Option<&'a str>,
    /// Whether the guest may write it.
    pub(super) writable: bool,
}

/// The n-th name of a disk: sda, …, sdz, sdaa, … libvirt only wants them to differ.
fn target(unit: u32) -> String {
    let mut rest = unit;
    let mut letters = Vec::new();
    loop {
        letters.push(char::from(b'a' + u8::try_from(rest % 26).unwrap_or(0)));
        if rest < 26 {
            break;
        }
        rest = rest / 26 - 1;
    }
    letters.push('d');
    letters.push('s');
    letters.iter().rev().collect()
}

impl Lun<'_> {
    /// The disk element.
    pub(super) fn element(&self) -> Element {
        let mut source = element("source").with("file", self.file.display().to_string());
        if let Some(secret) = self.secret {
            let key = element("secret").with("type", "passphrase").with("uuid", secret);
            source = source.holding([element("encryption").with("format", "luks").with("engine", "qemu").holding([key])]);
        }
        let driver = element("driver").with("name", "qemu").with("type", "raw");
        let driver = if self.writable { driver.with("discard", "unmap") } else { driver };
        let mut disk = element("disk").with("type", "file").with("device", "disk").holding([
            driver,
            source,
            element("target").with("dev", target(self.unit)).with("bus", "scsi"),
            element("serial").saying(self.serial),
            element("address")
                .with("type", "drive")
                .with("controller", "0")
                .with("bus", "0")
                .with("target", "0")
                .with("unit", self.unit.to_string()),
        ]);
        if !self.writable {
            disk = disk.holding([element("readonly"), element("shareable")]);
        }
        disk
    }
}

/// The secret of a disk: in libvirt's memory alone, and nobody reads it back.
pub(super) fn secret(uuid: &str, serial: &str) -> Element {
    element("secret").with("ephemeral", "yes").with("private", "yes").holding([
        element("uuid").saying(uuid),
        element("usage")
            .with("type", "volume")
            .holding([element("volume").saying(format!("dejima/{serial}"))]),
    ])
}

/// The definition of a machine.
pub(super) fn domain(machine: &Machine<'_>) -> Result<Element, Error> {
    let (plan, wanted) = (machine.plan, machine.domain);
    let port = plan
        .segment
        .ports
        .iter()
        .find(|port| port.machine == wanted.machine)
        .ok_or_else(|| Error::Missing(format!("machine {} has no port in the plan", wanted.machine)))?;
    let kernel = wanted.image.kernel.as_ref();
    let line = kernel.and_then(|kernel| kernel.command_line.as_ref());
    let stamp = element("dejima:machine")
        .with("xmlns:dejima", STAMP)
        .with("project", plan.of.uid.as_str())
        .with("machine", wanted.machine.as_str())
        .with("definition", machine.definition.as_str());
    let seed = Lun {
        file: machine.seed,
        serial: "dejimaseed",
        unit: 0,
        secret: None,
        writable: false,
    };
    let secrets: Vec<String> = machine
        .volumes
        .iter()
        .map(|(serial, _)| secret_id(serial))
        .collect::<Result<_, _>>()?;
    let volumes = machine
        .volumes
        .iter()
        .zip(&secrets)
        .zip(1..)
        .map(|(((serial, file), secret), unit)| {
            Lun {
                file,
                serial: serial.as_str(),
                unit,
                secret: Some(secret),
                writable: true,
            }
            .element()
        });
    let interface = element("interface").with("type", "bridge").holding([
        element("mac").with("address", port.mac.as_str()),
        element("source").with("bridge", plan.segment.bridge.as_str()),
        element("target").with("dev", port.tap.as_str()),
        element("model").with("type", "virtio"),
    ]);
    let random = element("rng")
        .with("model", "virtio")
        .holding([element("backend").with("model", "random").saying("/dev/urandom")]);
    let devices = element("devices")
        .holding([
            element("emulator").saying("/usr/bin/qemu-system-x86_64"),
            element("controller").with("type", "usb").with("model", "none"),
            element("controller")
                .with("type", "scsi")
                .with("index", "0")
                .with("model", "virtio-scsi"),
        ])
        // Room for what is plugged in later.
        .holding((1..=6).map(|index| {
            element("controller")
                .with("type", "pci")
                .with("index", index.to_string())
                .with("model", "pcie-root-port")
        }))
        .holding([seed.element()])
        .holding(volumes)
        .holding([
            interface,
            element("serial").with("type", "pty"),
            element("memballoon").with("model", "none"),
            random,
        ]);
    let cpu = if machine.kvm { "host-passthrough" } else { "maximum" };
    let memory = element("memory").with("unit", "MiB").with("dumpCore", "off");
    Ok(element("domain").with("type", if machine.kvm { "kvm" } else { "qemu" }).holding([
        element("name").saying(machine.name),
        element("uuid").saying(wanted.uid.as_str()),
        element("metadata").holding([stamp]),
        memory.saying(wanted.memory_mib.to_string()),
        element("vcpu").saying(wanted.cpus.to_string()),
        element("os").holding([
            element("type").with("arch", "x86_64").with("machine", "q35").saying("hvm"),
            element("kernel").saying(machine.boot.0.display().to_string()),
            element("initrd").saying(machine.boot.1.display().to_string()),
            element("cmdline").saying(line.map_or(COMMAND_LINE, |line| line.as_str())),
        ]),
        element("features").holding([element("acpi")]),
        element("cpu").with("mode", cpu),
        element("on_poweroff").saying("destroy"),
        element("on_reboot").saying("restart"),
        element("on_crash").saying("destroy"),
        devices,
    ]))
}

/// The UUID of a disk's secret: its serial is 32 hex digits.
pub(super) fn secret_id(serial: &Label) -> Result<String, Error> {
    let id = uuid::Uuid::try_parse(serial.as_str()).map_err(|cause| Error::driver("name the secret of", serial.to_string(), cause))?;
    Ok(id.to_string())
}

/// The UUID of a secret and the volume that it is for; nothing where it is for something else.
pub(super) fn usage(xml: &str) -> Option<(String, String)> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let text = |name: &str| document.descendants().find(|node| node.has_tag_name(name))?.text();
    Some((text("uuid")?.to_owned(), text("volume")?.to_owned()))
}

/// A domain of ours, as libvirt describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The project.
    pub(super) project: Uid,
    /// The machine.
    pub(super) machine: Label,
    /// What it was defined from.
    pub(super) definition: Digest,
    /// Its disks.
    pub(super) disks: Vec<Disk>,
}

/// A disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Its serial.
    pub(super) serial: String,
    /// Its file.
    pub(super) file: PathBuf,
    /// Its number on the controller.
    pub(super) unit: Option<u32>,
    /// libvirt's name for it in this domain.
    pub(super) target: String,
    /// The element as it stands: what a detach is asked with.
    pub(super) xml: String,
}

/// Reads a description; nothing where the domain does not bear our stamp.
pub(super) fn read(xml: &str) -> Result<Option<Found>, Error> {
    let document = roxmltree::Document::parse(xml).map_err(|cause| Error::driver("read", "a domain", cause))?;
    let Some(stamp) = document.descendants().find(|node| node.has_tag_name((STAMP, "machine"))) else {
        return Ok(None);
    };
    let said = |name: &str| stamp.attribute(name).unwrap_or_default().to_owned();
    let disk = |node: roxmltree::Node<'_, '_>| {
        let child = |name: &str| node.children().find(|child| child.has_tag_name(name));
        Disk {
            serial: child("serial").and_then(|serial| serial.text()).unwrap_or_default().to_owned(),
            file: child("source")
                .and_then(|source| source.attribute("file"))
                .map(PathBuf::from)
                .unwrap_or_default(),
            unit: child("address").and_then(|address| address.attribute("unit")?.parse().ok()),
            target: child("target")
                .and_then(|target| target.attribute("dev"))
                .unwrap_or_default()
                .to_owned(),
            xml: xml.get(node.range()).unwrap_or_default().to_owned(),
        }
    };
    Ok(Some(Found {
        project: said("project").into(),
        machine: said("machine").into(),
        definition: said("definition").into(),
        disks: document.descendants().filter(|node| node.has_tag_name("disk")).map(disk).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_disks_differ() {
        assert_eq!([0, 25, 26, 701, 702].map(target), ["sda", "sdz", "sdaa", "sdzz", "sdaaa"]);
        let all: std::collections::BTreeSet<String> = (0..2000).map(target).collect();
        assert_eq!(all.len(), 2000);
    }

    /// A machine in whose every text stands this.
    fn with(text: &str) -> Result<String, Error> {
        let plan: ProjectPlan = serde_json::from_value(json!({
            "of": {"namespace": text, "name": text, "uid": text}, "dedicated": false, "key": text, "volumes": [], "mounts": [],
            "segment": {"bridge": text, "cidr": text, "gateway": text, "ports": [{"machine": text, "tap": text, "mac": text, "address": text}]},
            "domains": [{"machine": text, "uid": text, "power": "running", "cpus": 1, "memoryMiB": 192, "userData": text, "image":
                {"name": text, "format": "kernel-initrd", "guest": "probe", "kernel":
                    {"path": text, "digest": text, "initrd": text, "initrdDigest": text, "commandLine": text}}}],
        }))
        .unwrap();
        let path = Path::new(text);
        let domain = domain(&Machine {
            plan: &plan,
            domain: &plan.domains[0],
            name: text,
            definition: &text.into(),
            kvm: false,
            boot: (path, path),
            seed: path,
            volumes: &[("7e57ab1e000040008000000000000007".into(), path.to_owned())],
        });
        domain?.text()
    }

    /// The names of all elements and attributes, in their order, and all texts and values.
    fn taken_apart(document: &roxmltree::Document<'_>) -> (Vec<String>, Vec<String>) {
        let (mut names, mut texts) = (Vec::new(), Vec::new());
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            names.push(node.tag_name().name().to_owned());
            texts.extend(node.text().map(str::to_owned));
            for attribute in node.attributes() {
                names.push(format!("@{}", attribute.name()));
                texts.push(attribute.value().to_owned());
            }
        }
        (names, texts)
    }

    /// Whether XML 1.0 has a way to say it (section 2.2).
    fn can_be_said(text: &str) -> bool {
        let sign = |sign| matches!(sign, '\t' | '\n' | '\r') || (sign >= ' ' && !matches!(sign, '\u{fffe}' | '\u{ffff}'));
        text.chars().all(sign)
    }

    proptest! {
        #[test]
        fn what_a_user_wrote_is_text_and_no_markup(
            text in "(\\PC|[\0\u{1}\u{1f}\u{7f}\u{85}\u{2028}\u{fffe}'\"<>&\n\r\t]|]]>|/>|-->|<!--|<!ENTITY|&amp;|<source file='/etc/shadow'/>){1,60}"
        ) {
            let plain = with("plain").unwrap();
            let plain = roxmltree::Document::parse(&plain).unwrap();
            let (names, texts) = taken_apart(&plain);
            let written = with(&text);
            prop_assert_eq!(written.is_ok(), can_be_said(&text), "what cannot be said is an error, all else is no error");
            if let Ok(written) = written {
                let document = roxmltree::Document::parse(&written).unwrap();
                let texts: Vec<String> = texts.into_iter().map(|said| if said == "plain" { text.clone() } else { said }).collect();
                prop_assert_eq!(taken_apart(&document), (names, texts));
            }
        }

        #[test]
        fn a_disk_is_one_disk_whatever_its_file_and_serial_are(file in "\\PC{1,40}|[^\0]{1,20}", serial in "\\PC{0,40}|[^\0]{0,20}") {
            let lun = Lun { file: Path::new(&file), serial: &serial, unit: 3, secret: Some(&serial), writable: false };
            let text = lun.element().text();
            prop_assert_eq!(text.is_ok(), can_be_said(&file) && can_be_said(&serial), "what cannot be said is an error, all else is no error");
            if let Ok(text) = text {
                let domain = format!("<domain><metadata><d:machine xmlns:d='{STAMP}' project='p' machine='m' definition='d'/></metadata>{text}</domain>");
                let found = read(&domain).unwrap().unwrap();
                prop_assert_eq!(found.disks.len(), 1);
                prop_assert_eq!((&found.disks[0].serial, found.disks[0].file.as_path()), (&serial, Path::new(&file)));
            }
        }
    }

    #[test]
    fn a_secret_is_for_the_disk_whose_serial_it_names() {
        let ours = secret("7e57ab1e-0000-4000-8000-000000000007", "aa").text().unwrap();
        let found = usage(&ours).unwrap();
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            ("7e57ab1e-0000-4000-8000-000000000007", "dejima/aa")
        );
        assert_eq!(
            usage("<secret><uuid>u</uuid><usage type='ceph'><name>n</name></usage></secret>"),
            None
        );
    }

    #[test]
    fn a_domain_without_our_stamp_is_not_ours() {
        assert_eq!(read("<domain><name>x</name></domain>").unwrap(), None);
        assert!(read("no xml").is_err());
        let ours = format!(
            "<domain><metadata><d:machine xmlns:d='{STAMP}' project='p' machine='m' definition='sha256:0'/></metadata>\
             <devices><disk><source file='/f'/><serial>s</serial><address unit='4'/></disk></devices></domain>"
        );
        let found = read(&ours).unwrap().unwrap();
        assert_eq!((found.project.as_str(), found.disks.len()), ("p", 1));
        let disk = found.disks.first().unwrap();
        assert_eq!((disk.serial.as_str(), disk.unit), ("s", Some(4)));
        assert!(disk.xml.starts_with("<disk>") && disk.xml.ends_with("</disk>"));
    }
}
