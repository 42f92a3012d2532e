//! What a machine is told when it boots: a NoCloud seed, as the bytes of a disk.
//!
//! ```text
//! meta-data       who it is                      network-config  its port, by MAC; its route
//! vendor-data     the script that obeys the map  user-data       the tenant's, as it was given
//! ```
//! The route is always there: machines route through the gateway, and its rules decide what leaves.

use std::net::Ipv4Addr;

use dejima_crds::bounded::Line;
use dejima_crds::host_plan::{DomainPlan, ProjectPlan};
use serde_json::{Value, json};

use crate::driver::Error;
use crate::iso::{File, image};
use crate::network::closed::Mac;

/// The script that makes a machine's mounts equal to its map.
pub const MOUNT_SCRIPT: &str = include_str!("../guest/mount.sh");
/// The label by which a seed is found.
pub const LABEL: &str = "cidata";

/// The most characters of a host name.
const NAME: usize = 63;

/// The seed of a machine.
pub fn seed(plan: &ProjectPlan, domain: &DomainPlan) -> Result<Vec<u8>, Error> {
    let who = json!({"instance-id": domain.uid, "local-hostname": host_name(domain.machine.as_str())}).to_string();
    let network = network(plan, domain)?.to_string();
    // cloud-init takes a disk without this file for no seed at all: what is absent is empty.
    let user = domain.user_data.as_ref().map_or("", |user| user.as_str());
    let file = |name, content| File { name, content };
    image(
        LABEL,
        &[
            file("meta-data", who.as_bytes()),
            file("network-config", network.as_bytes()),
            file("user-data", user.as_bytes()),
            file("vendor-data", MOUNT_SCRIPT.as_bytes()),
        ],
    )
}

/// A name that every system takes for the name of a host.
fn host_name(machine: &str) -> String {
    let lower = machine.to_ascii_lowercase();
    let signs: String = lower
        .chars()
        .map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' })
        .take(NAME)
        .collect();
    match signs.trim_matches('-') {
        "" => "machine".to_owned(),
        name => name.to_owned(),
    }
}

fn network(plan: &ProjectPlan, domain: &DomainPlan) -> Result<Value, Error> {
    let segment = &plan.segment;
    let port = segment
        .ports
        .iter()
        .find(|port| port.machine == domain.machine)
        .ok_or_else(|| Error::Missing(format!("machine `{}` has no port", domain.machine)))?;
    let length = segment
        .cidr
        .as_str()
        .split_once('/')
        .and_then(|(_, length)| length.parse::<u8>().ok());
    let length = length
        .filter(|length| *length <= 32)
        .ok_or_else(|| Error::Missing(format!("`{}` is no range of addresses", segment.cidr)))?;
    // `0.0.0.0/0` and not `default`: every release of cloud-init knows it.
    let address = |text: &Line| -> Result<Ipv4Addr, Error> {
        let read = text.as_str().parse();
        read.map_err(|cause| Error::driver("read an address of", format!("machine `{}`", domain.machine), cause))
    };
    let mac: Mac = port
        .mac
        .as_str()
        .parse()
        .map_err(|cause| Error::driver("read an address of", format!("machine `{}`", domain.machine), cause))?;
    Ok(json!({"version": 2, "ethernets": {"port": {
        "match": {"macaddress": mac.to_string()},
        "addresses": [format!("{}/{length}", address(&port.address)?)],
        "routes": [{"to": "0.0.0.0/0", "via": address(&segment.gateway)?.to_string()}],
    }}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> ProjectPlan {
        serde_json::from_value(json!({
            "of": {"namespace": "lab", "name": "lung", "uid": "p-1"}, "dedicated": false, "key": "k", "volumes": [], "mounts": [],
            "segment": {"bridge": "dj1", "cidr": "10.51.0.0/24", "gateway": "10.51.0.254",
                "ports": [{"machine": "scan-1", "tap": "t1", "mac": "52:54:00:51:00:01", "address": "10.51.0.1"}]},
            "domains": [{"machine": "scan-1", "uid": "7e57ab1e-0000-4000-8000-000000000001", "power": "running", "cpus": 1, "memoryMiB": 192,
                "image": {"name": "plain", "format": "raw", "guest": "cloud-init"}}],
        }))
        .unwrap()
    }

    fn with(user: Option<&str>) -> Vec<u8> {
        let mut plan = plan();
        plan.domains[0].user_data = user.map(Into::into);
        seed(&plan, &plan.domains[0]).unwrap()
    }

    /// The files in their order, each at the sector and of the length that its record says.
    fn files(seed: &[u8]) -> Vec<Vec<u8>> {
        let number = |at: usize| usize::try_from(u32::from_le_bytes(seed[at..at + 4].try_into().unwrap())).unwrap();
        let mut at = number(16 * 2048 + 158) * 2048;
        let mut files = Vec::new();
        while seed[at] != 0 {
            if seed[at + 25] == 0 {
                files.push(seed[number(at + 2) * 2048..][..number(at + 10)].to_vec());
            }
            at += usize::from(seed[at]);
        }
        files
    }

    #[test]
    fn a_machine_is_told_who_it_is_and_where_its_port_leads() {
        let files = files(&with(None));
        let read = |file: &[u8]| serde_json::from_slice::<Value>(file).unwrap();
        assert_eq!(
            read(&files[0]),
            json!({"instance-id": "7e57ab1e-0000-4000-8000-000000000001", "local-hostname": "scan-1"})
        );
        assert_eq!(
            read(&files[1]),
            json!({"version": 2, "ethernets": {"port": {"match": {"macaddress": "52:54:00:51:00:01"}, "addresses": ["10.51.0.1/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.51.0.254"}]}}})
        );
        assert_eq!((files[2].as_slice(), files[3].as_slice()), (&b""[..], MOUNT_SCRIPT.as_bytes()));
        assert!(MOUNT_SCRIPT.starts_with("#!/bin/sh\n"));
    }

    #[test]
    fn a_machine_without_a_port_or_a_range_gets_no_seed() {
        let mut without = plan();
        without.segment.ports.clear();
        assert!(seed(&without, &without.domains[0]).is_err());
        for range in ["10.51.0.0", "10.51.0.0/33", "10.51.0.0/x"] {
            let mut plan = plan();
            plan.segment.cidr = range.into();
            assert!(seed(&plan, &plan.domains[0]).is_err(), "`{range}` was taken");
        }
    }

    #[test]
    fn a_host_name_is_safe_whatever_the_machine_is_called() {
        assert_eq!(host_name("scan-1"), "scan-1");
        assert_eq!(host_name("-A_b\n$(x)"), "a-b---x");
        assert_eq!(host_name("'\"\n"), "machine");
        assert_eq!(host_name(&"é".repeat(90)), "machine");
        assert_eq!(host_name(&"a".repeat(90)).len(), 63);
    }

    proptest! {
        #[test]
        fn nothing_but_addresses_gets_into_what_a_machine_is_told_of_its_port(
            text in "(\\PC|['\"\n\r\t$`:#{}&*!|>%@-]){0,40}|10\\.51\\.0\\.[0-9]{1,3}( .*)?|52:54:00(:[0-9a-f]{2}){3}(\n.*)?", at in 0..3
        ) {
            let mut plan = plan();
            let plain = seed(&plan, &plan.domains[0]).unwrap();
            match at {
                0 => plan.segment.ports[0].mac = text.as_str().into(),
                1 => plan.segment.ports[0].address = text.as_str().into(),
                _ => plan.segment.gateway = text.as_str().into(),
            }
            let is_one = if at == 0 { text.parse::<Mac>().is_ok() } else { text.parse::<Ipv4Addr>().is_ok() };
            let given = seed(&plan, &plan.domains[0]);
            prop_assert_eq!(given.is_ok(), is_one);
            if let Ok(given) = given {
                let (given, plain) = (files(&given), files(&plain));
                prop_assert_eq!((&given[0], &given[2], &given[3]), (&plain[0], &plain[2], &plain[3]));
                let told: Value = serde_json::from_slice(&given[1]).unwrap();
                let port = &told["ethernets"]["port"];
                let told = [&port["match"]["macaddress"], &port["addresses"][0], &port["routes"][0]["via"]];
                let wanted = if at == 1 { format!("{text}/24") } else { text.to_ascii_lowercase() };
                prop_assert_eq!(told[usize::try_from(at).unwrap()], &json!(wanted));
            }
        }

        #[test]
        fn what_a_machine_is_called_is_read_again_exactly(uid in "(\\PC|['\"\n\r\t\0$`:#{}]){1,64}") {
            let mut plan = plan();
            plan.domains[0].uid = uid.as_str().into();
            let told: Value = serde_json::from_slice(&files(&seed(&plan, &plan.domains[0]).unwrap())[0]).unwrap();
            prop_assert_eq!(told, json!({"instance-id": uid, "local-hostname": "scan-1"}));
        }

        #[test]
        fn what_a_tenant_gives_comes_out_byte_for_byte_and_changes_nothing_else(user in "(\\PC|['\"\n\r\t$`\\\\]|]]>|</|--){0,200}") {
            let (plain, given) = (files(&with(None)), files(&with(Some(&user))));
            prop_assert_eq!(&given[2], user.as_bytes());
            prop_assert_eq!((&given[0], &given[1], &given[3]), (&plain[0], &plain[1], &plain[3]));
        }
    }
}
