//! Networks on one host: a bridge per project, closed by two nftables tables that hold the rules of all projects.
//!
//! ```text
//! segment -> kept on disk -> one nft transaction -> bridge        (remove: the bridge, the rules, what is kept)
//! nft's listing, `ip`, switches == what the kept segments demand?  -> NetworkSeen
//! ```
//! It acts in the network namespace it is given and knows nothing of machines: a port is a name. A reload makes every
//! proof on the host void.

pub mod closed;
mod frames;
mod owned;
mod prove;
pub mod rules;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dejima_crds::bounded::{Digest, Uid};
use dejima_crds::digest;
use dejima_crds::host_plan::Segment;
use dejima_plan::Seen;
use dejima_plan::host::{NetworkSeen, segment_digest};
use dejima_plan::sweep::{Kind, Owned, Thing};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::closed::{Closed, Way};
use self::space::Space;
use crate::driver::{Error, Network, Proof};
use crate::kept::write_whole;

/// Bridges and nftables in one network namespace.
#[derive(Clone, Debug)]
pub struct Bridges {
    host: Arc<Mutex<Host>>,
}

#[derive(Debug)]
struct Host {
    space: Space,
    path: PathBuf,
    kept: Kept,
    // Of this life only: who starts again proves again.
    proved: BTreeMap<String, Digest>,
}

/// The segments whose rules are to be in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    segments: BTreeMap<String, Segment>,
}

impl Bridges {
    /// Keeps its state in a directory and acts in the network namespace at a path, as `/proc/1/ns/net`.
    pub fn new(dir: &Path, namespace: &Path) -> Result<Self, Error> {
        let path = dir.join("network.json");
        let failed = |cause: io::Error| Error::driver("keep", path.display().to_string(), cause);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|cause| Error::driver("read", path.display().to_string(), cause))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(failed(error)),
        };
        let host = Host {
            space: Space::new(namespace),
            path,
            kept,
            proved: BTreeMap::new(),
        };
        Ok(Self {
            host: Arc::new(Mutex::new(host)),
        })
    }

    /// Sends the frames of a proof, whatever the listing of rules says; nothing is remembered of it.
    pub async fn send_frames(&self, project: &Uid, segment: &Segment) -> Result<Proof, Error> {
        let (project, segment) = (project.clone(), segment.clone());
        self.on(move |host| host.frames(&project, &segment)).await
    }

    async fn on<T: Send + 'static>(&self, work: impl FnOnce(&mut Host) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let host = self.host.clone();
        let lost = || Error::Missing("the network's state was lost in a panic".to_owned());
        let done = tokio::task::spawn_blocking(move || work(&mut *host.lock().map_err(|_| lost())?)).await;
        done.map_err(|cause| Error::driver("wait", "the network", cause))?
    }
}

#[async_trait]
impl Network for Bridges {
    async fn observe(&self, project: &Uid) -> Seen<NetworkSeen> {
        let project = project.clone();
        self.on(move |host| Ok(host.observe(&project))).await.unwrap_or(Seen::Unknown)
    }

    async fn seal(&self, project: &Uid, segment: &Segment) -> Result<(), Error> {
        let (project, segment) = (project.clone(), segment.clone());
        self.on(move |host| host.seal(&project, &segment)).await
    }

    async fn prove(&self, project: &Uid, segment: &Segment) -> Result<Proof, Error> {
        let (project, segment) = (project.clone(), segment.clone());
        self.on(move |host| host.prove(&project, &segment)).await
    }

    async fn remove(&self, project: &Uid) -> Result<(), Error> {
        let project = project.clone();
        self.on(move |host| host.remove(&project)).await
    }

    async fn list_owned(&self) -> Owned {
        let found = self.on(Host::owned).await;
        found.map_or_else(|_| Owned::unknown(Kind::Networks), Owned::found)
    }

    async fn sweep(&self, thing: &Thing) -> Result<(), Error> {
        let thing = thing.clone();
        self.on(move |host| host.sweep(&thing)).await
    }
}

/// What is said where two segments clash.
pub(crate) fn no_room(project: &Uid, other: &str) -> Error {
    Error::Missing(format!(
        "room for {project}: project {other} on this host has the same names or the same routed network"
    ))
}

/// What is said where there is nothing to prove.
pub(crate) fn not_sealed() -> Error {
    Error::Missing("there is no network with these rules to prove".to_owned())
}

/// A segment whose every part was read.
pub(crate) fn read(segment: &Segment) -> Result<Closed, Error> {
    Closed::read(segment).map_err(|cause| Error::driver("read", segment.bridge.to_string(), cause))
}

/// How the bridge's own switches and the host's stand.
fn switches(segment: &Closed) -> Vec<(String, &'static str)> {
    let bridge = &segment.bridge;
    let mut all: Vec<(String, &'static str)> = ["iptables", "ip6tables", "arptables"]
        .iter()
        .map(|name| (format!("bridge/bridge-nf-call-{name}"), "0"))
        .collect();
    all.extend([
        (format!("ipv6/conf/{bridge}/disable_ipv6"), "1"),
        // A bridge answers for the gateway's address alone, a tap that comes later for none; there may be no route back.
        ("ipv4/conf/default/arp_ignore".to_owned(), "1"),
        (format!("ipv4/conf/{bridge}/arp_ignore"), "1"),
        (format!("ipv4/conf/{bridge}/rp_filter"), "0"),
    ]);
    if !segment.ways.is_empty() {
        all.push(("ipv4/ip_forward".to_owned(), "1"));
    }
    all
}

fn named<'a>(links: &'a Value, name: &str) -> Option<&'a Value> {
    let mut all = links.as_array()?.iter();
    all.find(|link| link.get("ifname").and_then(Value::as_str) == Some(name))
}

/// What a bridge's ports are called.
fn members(links: &Value, bridge: &str) -> Vec<String> {
    let all = links.as_array().into_iter().flatten();
    all.filter(|link| link.get("master").and_then(Value::as_str) == Some(bridge))
        .filter_map(|link| link.get("ifname").and_then(Value::as_str).map(str::to_owned))
        .collect()
}

impl Host {
    fn closed(&self) -> Result<Vec<(String, Closed)>, Error> {
        let one = |(uid, segment): (&String, &Segment)| Ok((uid.clone(), read(segment)?));
        self.kept.segments.iter().map(one).collect()
    }

    fn keep(&mut self, change: impl FnOnce(&mut Kept)) -> Result<(), Error> {
        let mut kept = self.kept.clone();
        change(&mut kept);
        let failed = |cause| Error::driver("keep", "the networks", cause);
        let bytes = serde_json::to_vec_pretty(&kept).map_err(|cause| failed(io::Error::other(cause)))?;
        write_whole(&self.path, &bytes).map_err(failed)?;
        self.kept = kept;
        Ok(())
    }

    /// The tables as they are, and as they should be.
    fn tables(&self) -> Result<(Vec<Value>, Vec<Value>), Error> {
        let listing = self.space.ask(&["nft", "-j", "list", "ruleset"]);
        let listing = listing.map_err(|cause| Error::driver("list", "rules", cause))?;
        let all = self.closed()?;
        let all: Vec<&Closed> = all.iter().map(|(_, closed)| closed).collect();
        Ok((rules::found(&listing), rules::demanded(&all)))
    }

    /// Rules of everything that is kept, unless they are in force.
    fn reload(&mut self) -> Result<(), Error> {
        let (found, demanded) = self.tables()?;
        if found == demanded {
            return Ok(());
        }
        self.proved.clear();
        let all = self.closed()?;
        let all: Vec<&Closed> = all.iter().map(|(_, closed)| closed).collect();
        let program = ["nft", "-j", "-f", "-"];
        let loaded = self.space.run(&program, &rules::reload(&all).to_string());
        loaded.map(drop).map_err(|cause| Error::driver("load", "rules", cause))
    }

    fn links(&self) -> io::Result<Value> {
        self.space.ask(&["ip", "-j", "-d", "link", "show"])
    }

    /// How the bridge differs from what it should be.
    fn drift(&self, closed: &Closed) -> io::Result<Option<&'static str>> {
        let links = self.links()?;
        let Some(bridge) = named(&links, closed.bridge.as_str()) else {
            return Ok(Some("there is no bridge"));
        };
        let flags = bridge.get("flags").and_then(Value::as_array);
        if !flags.is_some_and(|flags| flags.iter().any(|flag| flag == "UP")) {
            return Ok(Some("the bridge is down"));
        }
        if bridge.get("address").and_then(Value::as_str) != Some(closed.mac().to_string().as_str()) {
            return Ok(Some("the bridge has another MAC address"));
        }
        if bridge.pointer("/linkinfo/info_data/mcast_snooping") != Some(&Value::from(0)) {
            return Ok(Some("the bridge asks for groups"));
        }
        if !self.foreign(closed, &links).is_empty() {
            return Ok(Some("something foreign is plugged in"));
        }
        if self.addresses(closed)? != [closed.gateway_net()] {
            return Ok(Some("the bridge has another address"));
        }
        Ok((!self.space.stand(&switches(closed))?).then_some("a switch of the kernel stands otherwise"))
    }

    /// Ports of the bridge that have no entry.
    #[expect(clippy::unused_self, reason = "beside its counterpart")]
    fn foreign(&self, closed: &Closed, links: &Value) -> Vec<String> {
        let mut known: BTreeSet<String> = closed.plugs().map(|plug| plug.tap.to_string()).collect();
        known.insert(closed.ear().to_string());
        let mut all = members(links, closed.bridge.as_str());
        all.retain(|name| !known.contains(name));
        all
    }

    fn addresses(&self, closed: &Closed) -> io::Result<Vec<(std::net::Ipv4Addr, u8)>> {
        let said = self.space.ask(&["ip", "-j", "-4", "addr", "show", "dev", closed.bridge.as_str()])?;
        let all = said.as_array().into_iter().flatten();
        let all = all.filter_map(|link| link.get("addr_info")?.as_array()).flatten();
        let address = |info: &Value| {
            let local = info.get("local")?.as_str()?.parse().ok()?;
            let len = info.get("prefixlen")?.as_u64()?;
            Some((local, u8::try_from(len).ok()?))
        };
        Ok(all.filter_map(address).collect())
    }

    fn observe(&mut self, project: &Uid) -> Seen<NetworkSeen> {
        let Some(segment) = self.kept.segments.get(project.as_str()).cloned() else {
            // Nothing is kept of it, but a bridge of its name may have outlived what was kept.
            let bridge = dejima_plan::segment::segment(project, &[], vec![]).bridge;
            return match self.links() {
                Err(_) => Seen::Unknown,
                Ok(links) if named(&links, bridge.as_str()).is_some() => Seen::Present(NetworkSeen {
                    rules: digest::of_bytes(b"a bridge without rules"),
                    proved: None,
                }),
                Ok(_) => Seen::Absent,
            };
        };
        let (Ok(closed), Ok((found, demanded))) = (read(&segment), self.tables()) else {
            return Seen::Unknown;
        };
        let Ok(drift) = self.drift(&closed) else { return Seen::Unknown };
        let rules = if found != demanded {
            // INVARIANT: a listing is JSON.
            self.proved.clear();
            digest::of_value(&found).unwrap_or_else(|_| digest::of_bytes(b"rules"))
        } else if let Some(how) = drift {
            self.proved.remove(project.as_str());
            digest::of_bytes(how.as_bytes())
        } else {
            segment_digest(&segment)
        };
        let proved = self.proved.get(project.as_str()).cloned();
        Seen::Present(NetworkSeen { rules, proved })
    }

    fn seal(&mut self, project: &Uid, segment: &Segment) -> Result<(), Error> {
        let closed = read(segment)?;
        let others = self.closed()?;
        let clash = |(uid, other): &&(String, Closed)| uid != project.as_str() && closed.clashes(other);
        if let Some((uid, _)) = others.iter().find(clash) {
            return Err(no_room(project, uid));
        }
        let before = others
            .into_iter()
            .find(|(uid, _)| uid == project.as_str())
            .map(|(_, closed)| closed);
        if self.kept.segments.get(project.as_str()) != Some(segment) {
            self.proved.remove(project.as_str());
            self.keep(|kept| drop(kept.segments.insert(project.to_string(), segment.clone())))?;
        }
        self.reload()?;
        if let Some(before) = before {
            self.end_flows(&before, &closed)?;
        }
        self.bridge(&closed)
            .map_err(|cause| Error::driver("make", closed.bridge.to_string(), cause))
    }

    /// Ends the flows of ways that are open no more. Their packets are dropped already: this takes their state away.
    fn end_flows(&self, before: &Closed, after: &Closed) -> Result<(), Error> {
        let gone = |way: &&Way| !after.ways.contains(way);
        for plug in &before.ports {
            let stays = after.ports.contains(plug);
            for way in before.ways.iter().filter(|way| !stays || gone(way)) {
                let (from, to, port) = (plug.address.to_string(), way.to.to_string(), way.port.to_string());
                let ended = self
                    .space
                    .run(&["conntrack", "-D", "-p", "tcp", "-s", &from, "-d", &to, "--dport", &port], "");
                match ended {
                    Err(cause) if !cause.to_string().contains("0 flow entries") => {
                        return Err(Error::driver("end flows of", from, cause));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn bridge(&self, closed: &Closed) -> io::Result<()> {
        let (bridge, links) = (&closed.bridge, self.links()?);
        let make = if named(&links, bridge.as_str()).is_some() {
            format!("link set dev {bridge} address {}", closed.mac())
        } else {
            format!("link add name {bridge} address {} type bridge", closed.mac())
        };
        let (gateway, len) = closed.gateway_net();
        // The host speaks to itself through lo: the proof listens there too.
        let lo = "link set dev lo up".to_owned();
        let mut lines = vec![lo, make, format!("link set dev {bridge} type bridge mcast_snooping 0 stp_state 0")];
        // Nothing foreign is taken away from the machine; it only loses this bridge. Names of others are never read as options.
        for foreign in self.foreign(closed, &links) {
            self.space.run(&["ip", "link", "set", "dev", &foreign, "nomaster"], "")?;
        }
        self.space.ip(&lines)?;
        lines.clear();
        self.space.switch(&switches(closed))?;
        for (address, len) in self.addresses(closed)? {
            if (address, len) != (gateway, closed.gateway_net().1) {
                lines.push(format!("addr del {address}/{len} dev {bridge}"));
            }
        }
        lines.push(format!("addr replace {gateway}/{len} dev {bridge}"));
        lines.push(format!("link set dev {bridge} up"));
        self.space.ip(&lines)
    }

    fn remove(&mut self, project: &Uid) -> Result<(), Error> {
        let kept = self.kept.segments.get(project.as_str()).map(read).transpose()?;
        let drawn = dejima_plan::segment::segment(project, &[], vec![]).bridge.to_string();
        let bridge = kept.as_ref().map_or(drawn, |closed| closed.bridge.to_string());
        let failed = |cause| Error::driver("take away", bridge.clone(), cause);
        let links = self.links().map_err(failed)?;
        if named(&links, &bridge).is_some() {
            self.space.ip(&[format!("link del dev {bridge}")]).map_err(failed)?;
        }
        let Some(closed) = kept else { return Ok(()) };
        // The rules without it, then the entry: what dies between the two is loaded again, and removed again.
        let entry = self.kept.segments.remove(project.as_str());
        let loaded = self.reload();
        if let Some(entry) = entry {
            self.kept.segments.insert(project.to_string(), entry);
        }
        loaded?;
        let nothing = Closed {
            ports: Vec::new(),
            ways: Vec::new(),
            ..closed.clone()
        };
        self.end_flows(&closed, &nothing)?;
        self.proved.remove(project.as_str());
        self.keep(|kept| drop(kept.segments.remove(project.as_str())))
    }

    fn prove(&mut self, project: &Uid, segment: &Segment) -> Result<Proof, Error> {
        let wanted = segment_digest(segment);
        match self.observe(project) {
            Seen::Present(network) if network.rules == wanted => {}
            Seen::Present(_) | Seen::Absent | Seen::Unknown => {
                return Err(not_sealed());
            }
        }
        self.proved.remove(project.as_str());
        let proof = self.frames(project, segment)?;
        self.proved.insert(project.to_string(), wanted);
        Ok(proof)
    }

    fn frames(&self, project: &Uid, segment: &Segment) -> Result<Proof, Error> {
        let closed = read(segment)?;
        let others = self.closed()?;
        let links = self.links().map_err(|cause| Error::driver("list", "links", cause))?;
        let there = |name: &str| named(&links, name).is_some();
        let mut others = others.iter().filter(|(uid, _)| uid != project.as_str()).map(|(_, other)| other);
        let other = others.find(|other| there(other.bridge.as_str()));
        let proof = prove::prove(&self.space, &closed, other, &there);
        proof.map_err(|cause| Error::driver("prove the isolation of", closed.bridge.to_string(), cause))
    }
}
