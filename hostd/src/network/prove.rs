//! The proof of isolation: what is forbidden is sent from each port, and nobody gets it.
//!
//! ```text
//! port (a veth under the tap's name) --> bridge --> ear on the same bridge
//!                                          |------> the host's own addresses, other projects, outside
//! ```
//! Each run ends with permitted frames on the same paths: when they have arrived, what was sent before them has arrived
//! or never will. All frames are sent from one processor, so that none overtakes another. The far ends lie in a network
//! namespace of the thread that proves; they go with it, however it ends. A tap that a machine has is not touched: its
//! entries are read back, and the probe port speaks on the same bridge.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket};
use nix::unistd::{Pid, getpid, gettid};
use serde_json::Value;

use super::closed::{Closed, Mac, Plug};
use super::frames::{Mark, arp, bears, ethernet, ipv6, is_answer, tagged, tcp, udp};
use super::space::{Space, run};
use crate::driver::Proof;

/// How long a permitted frame may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What stands for the outside: addresses that RFC 2544 keeps for such tests.
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 0);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 1);
/// How many addresses of the host are tried.
const ADDRESSES: usize = 16;

/// What keeps a frame from another project's ports: no rule, but that the bridges are not joined.
const OWN_BRIDGE: &str = "own bridge";
/// A group that a bridge passes to the host itself, as if the frame had come in by no bridge.
const GROUP: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
const IP: u16 = 0x0800;
const ARP: u16 = 0x0806;

/// Sends what is forbidden and what is permitted. `there` tells which links exist.
pub(super) fn prove(space: &Space, closed: &Closed, other: Option<&Closed>, there: &(dyn Fn(&str) -> bool + Sync)) -> Result<Proof, Error> {
    let on_thread = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        stay_on_one_processor()?;
        let laid = Laid::new(space, closed, other, there)?;
        laid.prove()
    };
    let joined = std::thread::scope(|scope| scope.spawn(on_thread).join());
    joined.unwrap_or_else(|_| Err(Error::other("the thread that proves panicked")))
}

fn stay_on_one_processor() -> Result<(), Error> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut one = CpuSet::new();
    for at in 0..CpuSet::count() {
        if allowed.is_set(at)? {
            one.set(at)?;
            break;
        }
    }
    Ok(sched_setaffinity(this, &one)?)
}

fn mark() -> Mark {
    uuid::Uuid::new_v4().into_bytes()
}

/// A packet socket on one far end.
struct Wire(OwnedFd);

impl Wire {
    fn open(name: &str) -> Result<Self, Error> {
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        let found = getifaddrs()?.find_map(|link| (link.interface_name == name).then(|| link.address?.as_link_addr().copied())?);
        let link = found.ok_or_else(|| Error::other(format!("there is no {name}")))?;
        bind(fd.as_raw_fd(), &link)?;
        Ok(Self(fd))
    }

    fn send(&self, frame: &[u8]) -> Result<(), Error> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    fn next(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut buffer = vec![0; 2048];
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes what arrives until one is the last; says again what is permitted where it is not heard. Everything that came before it.
fn until(
    what: &str,
    mut next: impl FnMut() -> Result<Option<Vec<u8>>, Error>,
    mut say: impl FnMut() -> Result<(), Error>,
    last: impl Fn(&[u8]) -> bool,
) -> Result<Vec<Vec<u8>>, Error> {
    let (begin, mut said, mut got) = (Instant::now(), None::<Instant>, Vec::new());
    loop {
        if said.is_none_or(|said| said.elapsed() > Duration::from_millis(50)) {
            say()?;
            said = Some(Instant::now());
        }
        while let Some(frame) = next()? {
            if last(&frame) {
                return Ok(got);
            }
            got.push(frame);
        }
        if begin.elapsed() > PATIENCE {
            return Err(Error::other(format!("what is permitted did not arrive: {what}; nothing is proved")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Something forbidden.
struct Forbidden {
    rule: &'static str,
    mark: Mark,
    frame: Vec<u8>,
}

/// What was laid for a proof; taken up again when it is dropped.
struct Laid<'a> {
    space: &'a Space,
    closed: &'a Closed,
    other: Option<&'a Closed>,
    senders: Vec<&'a Plug>,
    hosts: Vec<Ipv4Addr>,
    up: Vec<String>,
}

impl Drop for Laid<'_> {
    fn drop(&mut self) {
        for line in self.up.iter().rev() {
            // What cannot be taken up goes with the namespace of its far end.
            let _gone = self.space.ip(std::slice::from_ref(line));
        }
    }
}

fn ear_mac(closed: &Closed) -> Mac {
    Mac::drawn(closed.ear().as_str())
}

impl<'a> Laid<'a> {
    fn new(space: &'a Space, closed: &'a Closed, other: Option<&'a Closed>, there: &dyn Fn(&str) -> bool) -> Result<Self, Error> {
        let far = format!("/proc/{}/task/{}/ns/net", getpid(), gettid());
        let mut laid = Self {
            space,
            closed,
            other,
            senders: closed.ports.iter().filter(|plug| !there(plug.tap.as_str())).collect(),
            hosts: host_addresses(space)?,
            up: Vec::new(),
        };
        laid.senders.push(&closed.probe);
        // Far ends first: links that come up with nobody there take longer.
        let mut near = Vec::new();
        let mut plug = |name: &str, peer: &str, mac: Mac, bridge: Option<&str>| -> Result<(), Error> {
            if there(name) {
                space.ip(&[format!("link del dev {name}")])?;
            }
            space.ip(&[format!("link add name {name} type veth peer name {peer} address {mac} netns {far}")])?;
            laid.up.push(format!("link del dev {name}"));
            run(&["ip", "link", "set", "dev", peer, "up"], "")?;
            if let Some(bridge) = bridge {
                near.push(format!("link set dev {name} master {bridge}"));
            }
            near.push(format!("link set dev {name} up"));
            Ok(())
        };
        for (at, sender) in laid.senders.iter().enumerate() {
            plug(sender.tap.as_str(), &format!("port{at}"), sender.mac, Some(closed.bridge.as_str()))?;
        }
        plug(closed.ear().as_str(), "ear", ear_mac(closed), Some(closed.bridge.as_str()))?;
        plug(closed.outside().as_str(), "outside", Mac::drawn("outside"), None)?;
        if let Some(other) = other {
            let bridge = Some(other.bridge.as_str());
            plug(other.probe.tap.as_str(), "other", other.probe.mac, bridge)?;
            plug(other.ear().as_str(), "otherear", ear_mac(other), bridge)?;
        }
        let outside = closed.outside();
        near.push(format!("addr add {NEAR}/31 dev {outside}"));
        near.push(format!(
            "neigh replace {FAR} lladdr {} dev {outside} nud permanent",
            Mac::drawn("outside")
        ));
        space.ip(&near)?;
        for listens in std::iter::once(closed).chain(other) {
            // Frames to an ear go to the ear alone: machines on the bridge see nothing of the proof.
            let (mac, ear) = (ear_mac(listens).to_string(), listens.ear().to_string());
            space.run(&["bridge", "fdb", "replace", &mac, "dev", &ear, "master", "static"], "")?;
        }
        if let Some(other) = other {
            let (address, bridge) = (other.probe.address, &other.bridge);
            space.ip(&[format!(
                "neigh replace {address} lladdr {} dev {bridge} nud permanent",
                ear_mac(other)
            )])?;
            laid.up.push(format!("neigh del {address} dev {bridge}"));
        }
        Ok(laid)
    }

    fn forbidden(&self, from: &Plug, listens: u16) -> Vec<Forbidden> {
        let (closed, mut all) = (self.closed, Vec::new());
        let (ear, bridge, stranger) = (ear_mac(closed), closed.mac(), Mac::drawn("stranger"));
        let mut add = |rule: &'static str, make: &dyn Fn(&Mark) -> Vec<u8>| {
            let mark = mark();
            let frame = make(&mark);
            all.push(Forbidden { rule, mark, frame });
        };
        let target = if from.address == closed.probe.address {
            closed.gateway
        } else {
            closed.probe.address
        };
        let packet = |to: Ipv4Addr, mark: &Mark| udp(from.address, to, listens, mark);
        add("mac", &|mark| ethernet(ear, stranger, IP, &packet(target, mark)));
        add("address", &|mark| {
            ethernet(ear, from.mac, IP, &udp(closed.gateway, target, 9, mark))
        });
        add("arp-mac", &|mark| {
            ethernet(ear, from.mac, ARP, &arp(stranger, from.address, target, mark))
        });
        add("arp-address", &|mark| {
            ethernet(ear, from.mac, ARP, &arp(from.mac, closed.gateway, target, mark))
        });
        add("ethertype", &|mark| ethernet(ear, from.mac, 0x86dd, &ipv6(mark)));
        add("ethertype", &|mark| ethernet(ear, from.mac, 0x8100, &tagged(&packet(target, mark))));
        add("ethertype", &|mark| ethernet(ear, from.mac, 0x88a8, &tagged(&packet(target, mark))));
        add("ethertype", &|mark| ethernet(ear, from.mac, 0x88b5, mark));
        for address in self.hosts.iter().chain([&Ipv4Addr::BROADCAST]) {
            add("host", &|mark| ethernet(bridge, from.mac, IP, &packet(*address, mark)));
        }
        add("host", &|mark| ethernet(GROUP, from.mac, IP, &packet(closed.gateway, mark)));
        add("forward", &|mark| ethernet(bridge, from.mac, IP, &packet(FAR, mark)));
        let open = |port: u16| closed.ways.iter().any(|way| way.port == port && way.to.holds(FAR));
        if let Some(port) = [443, 80, 22].into_iter().chain(1..u16::MAX).find(|port| !open(*port)) {
            add("forward", &|mark| {
                ethernet(bridge, from.mac, IP, &tcp(from.address, FAR, port, mark))
            });
        }
        if let Some(other) = self.other {
            add("forward", &|mark| {
                ethernet(bridge, from.mac, IP, &packet(other.probe.address, mark))
            });
            add(OWN_BRIDGE, &|mark| {
                ethernet(ear_mac(other), from.mac, IP, &packet(other.probe.address, mark))
            });
        }
        all
    }

    fn prove(&self) -> Result<Proof, Error> {
        let closed = self.closed;
        let (ear, outside) = (Wire::open("ear")?, Wire::open("outside")?);
        let other = self
            .other
            .map(|other| Ok::<_, Error>((other, Wire::open("other")?, Wire::open("otherear")?)));
        let other = other.transpose()?;
        let host = self.space.within(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        host.set_nonblocking(true)?;
        let listens = host.local_addr()?.port();
        let heard = || {
            let mut buffer = vec![0; 2048];
            match host.recv(&mut buffer) {
                Ok(len) => Ok(Some(buffer.get(..len).unwrap_or_default().to_vec())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            }
        };
        let mut proof = Proof { refused: 0, passed: 0 };
        for (at, from) in self.senders.iter().enumerate() {
            let wire = Wire::open(&format!("port{at}"))?;
            let question = ethernet(closed.mac(), from.mac, ARP, &arp(from.mac, from.address, closed.gateway, &mark()));
            let answer = |frame: &[u8]| is_answer(frame, closed.gateway, from.address);
            let to_ear = |mark: &Mark| ethernet(ear_mac(closed), from.mac, IP, &udp(from.address, closed.gateway, 9, mark));
            // The paths are open before anything is proved on them: a link that just came up may swallow frames.
            let first = mark();
            until(
                "port to port",
                || ear.next(),
                || wire.send(&to_ear(&first)),
                |frame| bears(frame, &first),
            )?;
            until("port to gateway", || wire.next(), || wire.send(&question), answer)?;
            let forbidden = self.forbidden(from, listens);
            for one in &forbidden {
                wire.send(&one.frame)?;
            }
            // Who has an address of the host that is not the gateway's? Nobody says so, on the bridge or beside it.
            for to in [closed.mac(), GROUP] {
                wire.send(&ethernet(to, from.mac, ARP, &arp(from.mac, from.address, NEAR, &mark())))?;
            }
            let last = mark();
            let mut got = until(
                "port to port",
                || ear.next(),
                || wire.send(&to_ear(&last)),
                |frame| bears(frame, &last),
            )?;
            // An answer to the first round may still stand in the queue: only what comes after it counts.
            // What comes back to the sender has not arrived: the host may say that there is no route. It may not say who it is.
            let mut back = Vec::new();
            while let Some(frame) = wire.next()? {
                back.push(frame);
            }
            back.extend(until("port to gateway", || wire.next(), || wire.send(&question), answer)?);
            let last = mark();
            let say = |to: Ipv4Addr| host.send_to(&last, (to, listens)).map(drop);
            got.extend(until("host to itself", heard, || say(closed.gateway), |frame| bears(frame, &last))?);
            got.extend(until(
                "host to outside",
                || outside.next(),
                || say(FAR),
                |frame| bears(frame, &last),
            )?);
            proof.passed += 4;
            let mut abroad = Vec::new();
            if let Some((other, speaks, listens)) = &other {
                let frame = ethernet(
                    ear_mac(other),
                    other.probe.mac,
                    IP,
                    &udp(other.probe.address, other.gateway, 9, &last),
                );
                let permitted = |got: &[u8]| bears(got, &last);
                abroad = until(
                    "port to port of another project",
                    || listens.next(),
                    || speaks.send(&frame),
                    permitted,
                )?;
                proof.passed += 1;
            }
            // Within its own bridge a frame may go to any port: what is meant for another one must not get there.
            let arrived = |one: &&Forbidden| {
                let own = got.iter().filter(|_| one.rule != OWN_BRIDGE);
                own.chain(&abroad).any(|frame| bears(frame, &one.mark))
            };
            let mut rules: Vec<&str> = forbidden.iter().filter(arrived).map(|one| one.rule).collect();
            rules.dedup();
            if back.iter().any(|frame| is_answer(frame, NEAR, from.address)) {
                rules.push("arp_ignore");
            }
            if !rules.is_empty() {
                let (rules, tap) = (rules.join(", "), &from.tap);
                return Err(Error::other(format!("what the rules refuse arrived, sent at {tap}: {rules}")));
            }
            proof.refused += u32::try_from(forbidden.len() + 2).unwrap_or(u32::MAX);
        }
        Ok(proof)
    }
}

/// The host's own addresses in the namespace.
fn host_addresses(space: &Space) -> Result<Vec<Ipv4Addr>, Error> {
    let said = space.ask(&["ip", "-j", "-4", "addr", "show"])?;
    let all = said.as_array().into_iter().flatten();
    let all = all.filter_map(|link| link.get("addr_info").and_then(Value::as_array)).flatten();
    let mut all: Vec<Ipv4Addr> = all.filter_map(|info| info.get("local")?.as_str()?.parse().ok()).collect();
    all.sort();
    all.dedup();
    all.truncate(ADDRESSES);
    Ok(all)
}
