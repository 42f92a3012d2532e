//! A project's network on a host: names and addresses, all from the project's UID, so that they can be made again.

use dejima_crds::bounded::{Cidr, Label, Uid};
use dejima_crds::host_plan::{EgressRule, Port, Segment};
use dejima_crds::names;

/// The names of a project's machines: `name`, or `name-0`, `name-1`, … where the count is above one.
pub fn machine_names(name: &Label, count: u32) -> Vec<Label> {
    if count == 1 {
        return vec![name.clone()];
    }
    (0..count).map(|at| Label::from(format!("{name}-{at}"))).collect()
}

/// The second and third byte of the project's network: 10.64.0.0/10 has 16,384 networks of 256 addresses.
fn network(project: &Uid) -> (u8, u8) {
    let mut bytes = names::id(project, "segment").into_bytes().into_iter();
    let (second, third) = (bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default());
    (64 | (second & 0x3f), third)
}

/// The segment of a project with these machines, in this order.
///
/// Addresses are the project's own business: two projects that share a host may draw the same network, since each bridge is closed.
pub fn segment(project: &Uid, machines: &[Label], egress: Vec<EgressRule>) -> Segment {
    let (second, third) = network(project);
    let port = |(at, machine): (usize, &Label)| {
        let role = format!("port/{machine}");
        Port {
            machine: machine.clone(),
            tap: Label::from(format!("djt{}", names::short_id(project, &role))),
            mac: names::mac(project, &role).into(),
            address: format!("10.{second}.{third}.{}", at + 10).into(),
        }
    };
    Segment {
        bridge: Label::from(format!("djb{}", names::short_id(project, "bridge"))),
        cidr: Cidr::from(format!("10.{second}.{third}.0/24")),
        gateway: format!("10.{second}.{third}.1").into(),
        ports: machines.iter().enumerate().map(port).collect(),
        egress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_the_kernel_and_addresses_into_the_network() {
        let machines: Vec<Label> = machine_names(&"train".into(), 64);
        let segment = segment(&Uid::from("p-1"), &machines, vec![]);
        assert!(segment.bridge.as_str().len() <= 15);
        assert!(segment.ports.iter().all(|port| port.tap.as_str().len() <= 15));
        let mut addresses: Vec<String> = segment.ports.iter().map(|port| port.address.to_string()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 64);
        assert!(segment.gateway.as_str().starts_with("10."));
        assert_eq!(machine_names(&"one".into(), 1), [Label::from("one")]);
    }
}
