//! Ethernet frames, byte by byte. Pure. Each bears a mark by which it is known again wherever it arrives.

use std::net::Ipv4Addr;

use super::closed::Mac;

/// What a frame is known by.
pub(super) type Mark = [u8; 16];

/// An Ethernet frame around a payload.
pub(super) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0[..], &kind.to_be_bytes()[..], payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The payload of an ARP question; the mark stands in the padding.
pub(super) fn arp(from: Mac, sender: Ipv4Addr, target: Ipv4Addr, mark: &Mark) -> Vec<u8> {
    let head: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    [
        &head[..],
        &from.0[..],
        &sender.octets()[..],
        &[0; 6][..],
        &target.octets()[..],
        &mark[..],
    ]
    .concat()
}

/// The payload of an ARP question is answered by this: who has the target says so to the sender.
pub(super) fn is_answer(frame: &[u8], sender: Ipv4Addr, target: Ipv4Addr) -> bool {
    frame.get(12..14) == Some(&[8, 6])
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&sender.octets())
        && frame.get(38..42) == Some(&target.octets())
}

/// An IPv4 packet with a UDP datagram that holds the mark.
pub(super) fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, mark: &Mark) -> Vec<u8> {
    // A checksum of zero: none was made.
    let datagram = [&port.to_be_bytes()[..], &port.to_be_bytes()[..], &[0, 24, 0, 0], &mark[..]].concat();
    ipv4(17, from, to, &datagram)
}

/// An IPv4 packet with the first segment of a TCP flow; the mark follows it.
pub(super) fn tcp(from: Ipv4Addr, to: Ipv4Addr, port: u16, mark: &Mark) -> Vec<u8> {
    let head: [u8; 16] = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    let mut segment = [&40_000_u16.to_be_bytes()[..], &port.to_be_bytes()[..], &head[..], &mark[..]].concat();
    let pseudo = [&from.octets()[..], &to.octets()[..], &[0, 6, 0, 36], &segment[..]].concat();
    let sum = checksum(&pseudo);
    segment.splice(16..18, sum);
    ipv4(6, from, to, &segment)
}

/// The payload of an IPv6 frame to all nodes, with UDP.
pub(super) fn ipv6(mark: &Mark) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 24, 17, 64];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0, 9, 0, 9, 0, 24, 0, 0]);
    packet.extend(mark);
    packet
}

/// A VLAN tag before a payload of IPv4.
pub(super) fn tagged(packet: &[u8]) -> Vec<u8> {
    [&[0, 7, 8, 0][..], packet].concat()
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut head = vec![0x45, 0];
    head.extend(len);
    head.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    head.extend(from.octets());
    head.extend(to.octets());
    let sum = checksum(&head);
    head.splice(10..12, sum);
    [head, payload.to_vec()].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| pair.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (2 - pair.len()));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).unwrap_or(u16::MAX);
    (!sum).to_be_bytes()
}

/// Whether a frame bears a mark.
pub(super) fn bears(frame: &[u8], mark: &Mark) -> bool {
    frame.windows(mark.len()).any(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_sums_up_to_nothing() {
        let packet = udp(Ipv4Addr::new(10, 64, 0, 10), Ipv4Addr::new(10, 64, 0, 1), 9, &[7; 16]);
        assert_eq!(checksum(&packet[..20]), [0, 0]);
        assert_eq!(packet.len(), 44);
        assert!(bears(&ethernet(Mac([2; 6]), Mac([4; 6]), 0x800, &packet), &[7; 16]));
        assert!(!bears(&packet, &[8; 16]), "the control");
        // RFC 1071's own numbers.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d]);
    }
}
