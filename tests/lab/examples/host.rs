//! Hosts to play with: `cargo run -p dejima-lab --example host -- PLATFORM NAME...`. They stay until this process is ended.

use std::io::Write as _;

use dejima_lab::{Error, Guest, Host, ToStderr, dicom, guest, packages};

fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let platform = words.next().unwrap_or_else(|| "play".into());
    let names: Vec<String> = words.collect();
    packages::install(&ToStderr)?;
    let files = Guest::get(&ToStderr)?;
    let images = dicom::images(&ToStderr)?;
    let mut lines = vec![format!(
        "export GUEST_KERNEL={} GUEST_INITRD={} GUEST_CMDLINE=\"{}\"\nexport DICOM={}\n",
        files.kernel.display(),
        files.initrd.display(),
        guest::COMMAND_LINE,
        images.display()
    )];
    let mut hosts = Vec::new();
    for name in &names {
        let host = Host::start(&platform, name)?;
        let upper = name.to_uppercase();
        lines.push(format!(
            "export {upper}_URI='{}' {upper}_PID={} {upper}_NETNS={} {upper}_IMAGES={}\n",
            host.uri(),
            host.pid(),
            host.namespace("net").display(),
            host.images().display()
        ));
        hosts.push(host);
    }
    // Nobody reads these lines where the output is closed.
    let _ = std::io::stdout().write_all(lines.concat().as_bytes());
    loop {
        std::thread::park();
    }
}
