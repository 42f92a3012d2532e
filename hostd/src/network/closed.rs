//! A segment, read: every name, address and number is of a type that has no room for anything else.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use dejima_crds::digest;
use dejima_crds::host_plan::Segment;

/// What a segment says that cannot be put into rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not {1}")]
pub struct Error(String, &'static str);

/// The name of an interface of ours: `dj…`, 4 to 15 of `a-z0-9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name with another third letter: probes have the name of their bridge.
    fn kind(&self, kind: char) -> Self {
        Self(format!("dj{kind}{}", self.0.get(3..).unwrap_or_default()))
    }

    fn of(kind: &str, text: &str) -> Result<Self, Error> {
        let letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if text.starts_with(kind) && (4..=15).contains(&text.len()) && letters(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error(text.to_owned(), "the name of an interface of ours"))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A MAC address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// One that is drawn from a name: the same each time, administered locally.
    pub fn drawn(name: &str) -> Self {
        let digest = digest::of_bytes(name.as_bytes());
        let mut mac = [2_u8; 6];
        for (at, byte) in mac.iter_mut().enumerate().skip(1) {
            let pair = digest.hex().get(at * 2..at * 2 + 2).unwrap_or("00");
            *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
        }
        Self(mac)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&pairs.join(":"))
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no = || Error(text.to_owned(), "the MAC address of a station");
        let bytes: Result<Vec<u8>, _> = text
            .split(':')
            .map(|pair| {
                if pair.len() == 2 {
                    u8::from_str_radix(pair, 16).map_err(|_| no())
                } else {
                    Err(no())
                }
            })
            .collect();
        let mac = <[u8; 6]>::try_from(bytes?).map_err(|_| no())?;
        match mac {
            [first, ..] if first & 1 == 0 => Ok(Self(mac)),
            [..] => Err(no()),
        }
    }
}

/// A network: the bits below its length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    /// Its first address.
    pub base: Ipv4Addr,
    /// How many bits it fixes (0 to 32).
    pub len: u8,
}

impl Net {
    /// Whether an address lies in it.
    pub fn holds(self, address: Ipv4Addr) -> bool {
        Self::cut(address, self.len) == self.base
    }

    fn within(self, other: Self) -> bool {
        other.len <= self.len && other.holds(self.base)
    }

    fn cut(address: Ipv4Addr, len: u8) -> Ipv4Addr {
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        Ipv4Addr::from(u32::from(address) & mask)
    }
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no = || Error(text.to_owned(), "a network");
        let (base, len) = text.split_once('/').ok_or_else(no)?;
        let (base, len) = (base.parse().map_err(|_| no())?, len.parse::<u8>().map_err(|_| no())?);
        if len > 32 {
            return Err(no());
        }
        Ok(Self {
            base: Self::cut(base, len),
            len,
        })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}

/// One port: who may speak there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    /// The tap.
    pub tap: Name,
    /// The only MAC address.
    pub mac: Mac,
    /// The only IPv4 address.
    pub address: Ipv4Addr,
}

/// Where machines may open flows to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The TCP port.
    pub port: u16,
    /// The network.
    pub to: Net,
}

/// A segment whose every part was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The bridge.
    pub bridge: Name,
    /// The project's addresses.
    pub net: Net,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// The machines' ports.
    pub ports: Vec<Plug>,
    /// A port for proofs, with an entry of its own: no machine has it.
    pub probe: Plug,
    /// What may leave, no way inside another.
    pub ways: Vec<Way>,
}

impl Closed {
    /// Reads a segment.
    pub fn read(segment: &Segment) -> Result<Self, Error> {
        let bridge = Name::of("djb", segment.bridge.as_str())?;
        let net: Net = segment.cidr.as_str().parse()?;
        let inside = |text: &str| {
            let address: Option<Ipv4Addr> = text.parse().ok();
            address
                .filter(|address| net.holds(*address))
                .ok_or_else(|| Error(text.to_owned(), "an address of the segment"))
        };
        let gateway = inside(segment.gateway.as_str())?;
        let (mut taken, mut taps) = (BTreeSet::from([gateway]), BTreeSet::new());
        let mut ports = Vec::new();
        for port in &segment.ports {
            let (tap, address) = (Name::of("djt", port.tap.as_str())?, inside(port.address.as_str())?);
            if !taken.insert(address) || !taps.insert(tap.clone()) {
                return Err(Error(format!("{tap} {address}"), "a port that is there once"));
            }
            let mac = port.mac.as_str().parse()?;
            ports.push(Plug { tap, mac, address });
        }
        let first = u32::from(net.base);
        let free = (2..255).map(|at| Ipv4Addr::from(first.saturating_add(at)));
        let address = free.into_iter().find(|address| net.holds(*address) && !taken.contains(address));
        let tap = bridge.kind('p');
        let probe = Plug {
            mac: Mac::drawn(tap.as_str()),
            address: address.ok_or_else(|| Error(net.to_string(), "large enough for a proof"))?,
            tap,
        };
        let mut all = BTreeSet::new();
        for rule in &segment.egress {
            let to: Net = rule.cidr.as_str().parse()?;
            all.extend(rule.ports.iter().map(|port| Way { port: *port, to }));
        }
        // The kernel takes no range inside another of the same set: what a wider way opens is not said twice.
        let narrower = |way: &Way| {
            all.iter()
                .any(|other| other != way && other.port == way.port && way.to.within(other.to))
        };
        let ways = all.iter().filter(|way| !narrower(way)).copied().collect();
        Ok(Self {
            bridge,
            net,
            gateway,
            ports,
            probe,
            ways,
        })
    }

    /// Whether this one and another project's cannot stand on one host: a name is used twice, or one network would be routed to two bridges.
    pub fn clashes(&self, other: &Self) -> bool {
        let same_tap = |port: &Plug| self.ports.iter().any(|own| own.tap == port.tap);
        let names = other.bridge == self.bridge || other.ports.iter().any(same_tap);
        let routes = other.net == self.net && !other.ways.is_empty() && !self.ways.is_empty();
        names || routes
    }

    /// The bridge's own MAC address: it does not change with the ports.
    pub fn mac(&self) -> Mac {
        Mac::drawn(self.bridge.as_str())
    }

    /// The port that listens during a proof; what it says is dropped.
    pub fn ear(&self) -> Name {
        self.bridge.kind('s')
    }

    /// The link that stands for the outside during a proof.
    pub fn outside(&self) -> Name {
        self.bridge.kind('o')
    }

    /// The gateway with its length: a route to the project's addresses is there only where something may leave, so that
    /// two projects may have drawn the same ones.
    pub fn gateway_net(&self) -> (Ipv4Addr, u8) {
        (self.gateway, if self.ways.is_empty() { 32 } else { self.net.len })
    }

    /// All ports with an entry: the machines' and the probe.
    pub fn plugs(&self) -> impl Iterator<Item = &Plug> {
        self.ports.iter().chain(std::iter::once(&self.probe))
    }
}
