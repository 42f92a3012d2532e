//! Step 4, continued: an address outside answers once it is listed and attested, and no other.

use std::time::Instant;

use anyhow::{Result, bail};
use dejima_lab::Host;
use dejima_lab::people::OFFICE;

use super::screen::{says, took};
use super::{Story, Tenant, example};

/// The dataset whose policy lets attested egress be.
const DATASET: &str = "ct-mr-outside";
/// What is listed, and what is beside it.
pub(super) const LISTED: &str = "192.0.2.7";
const BESIDE: &str = "192.0.2.8";

/// A site's network behind a host: one more namespace with two addresses at which port 443 answers.
const BEGIN: &str = r#"
set -eu
setsid unshare --net -- busybox httpd -f -p 443 >/dev/null 2>&1 </dev/null &
site=$!
own=$(readlink /proc/self/ns/net)
for _ in $(seq 100); do
	there=$(readlink "/proc/$site/ns/net" || true)
	[ -z "$there" ] || [ "$there" = "$own" ] || break
	sleep 0.05
done
ip link add site0 type veth peer name up0 netns "$site"
ip address add 192.0.2.1/24 dev site0
ip link set site0 up
nsenter --target "$site" --net sh -c 'ip link set lo up; ip address add 192.0.2.7/24 dev up0; ip address add 192.0.2.8/24 dev up0; ip link set up0 up'
for address in 192.0.2.7 192.0.2.8; do
	for _ in $(seq 100); do
		! busybox nc -w 1 "$address" 443 </dev/null || break
		sleep 0.05
	done
	busybox nc -w 1 "$address" 443 </dev/null
done
echo "$site"
"#;

/// The namespace goes with its process, and both ends of the link with it.
pub(super) struct Site<'a> {
    host: &'a Host,
    process: String,
}

impl<'a> Site<'a> {
    /// Lays it; both addresses have answered the host itself.
    pub(super) fn behind(host: &'a Host) -> Result<Self> {
        let process = host.run(&["bash", "-c", BEGIN], None)?.trim().to_owned();
        Ok(Self { host, process })
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // Where it is gone already, nothing is left to end.
        let _ = self.host.run(&["kill", "-KILL", &self.process], None);
    }
}

impl Story<'_> {
    pub(super) fn an_address_answers(&self) -> Result<()> {
        let policy = [("name: open-2026", "name: outside-2026"), ("network: none", "network: attested")];
        self.apply(&example("usagepolicy-open.yaml", &policy)?)?;
        let named = format!("name: {DATASET},");
        let dataset = [
            ("name: ct-mr,", named.as_str()),
            ("policyRef: ct-mr-2026", "policyRef: outside-2026"),
        ];
        self.apply(&example("dataset-story.yaml", &dataset)?)?;
        self.sealed(DATASET, 1)?;
        self.vouch(DATASET)?;

        let reaching = Tenant {
            project: "reaching",
            image: "probe",
            dataset: DATASET,
            ..self.kyoto.clone()
        };
        self.tenant_space(&reaching)?;
        let entry = format!("  network: {{egress: [{{cidr: {LISTED}/32, ports: [443], why: results}}]}}\n  period:");
        self.create(&reaching, &[("  period:", &entry)])?;
        let name = self.platform.ready(&reaching.space, reaching.project, 120)?;
        self.mounted(&reaching)?;
        let agent = self.look_into(&name)?;
        let _site = Site::behind(self.platform.host(&name)?)?;
        let answers = |address: &str| {
            let tried = agent.run(&format!("nc -w 1 {address} 443 </dev/null"), 10);
            tried.is_ok_and(|ran| ran.is_success())
        };
        let condition = || {
            let world = &self.platform.world;
            world
                .condition(&reaching.space, "isolatedproject", reaching.project, "NetworkSealed")
                .2
        };
        self.awaits("a network that was proved", 30, || condition().contains("frames refused"))?;
        if answers(LISTED) || answers(BESIDE) {
            bail!("an address that nobody vouched for answers the machine");
        }
        says(&format!(
            "under a policy that lets attested egress be, a listed address stays closed: {}",
            condition()
        ))?;

        let begun = Instant::now();
        self.dejima(OFFICE, &["attest", "project", &reaching.reference(), "egress"])?;
        self.awaits("the attested address answers", 30, || answers(LISTED))?;
        if answers(BESIDE) {
            bail!("the address beside the attested one answers the machine");
        }
        took(
            &format!("{LISTED}:443, listed and attested, answers the machine; {BESIDE}:443 does not"),
            begun,
        )?;

        let begun = Instant::now();
        let patch = r#"[{"op":"replace","path":"/spec/network/egress/0/why","value":"something else"}]"#;
        let world = &self.platform.world;
        world
            .patch(reaching.lead, &reaching.space, "isolatedproject", reaching.project, patch)
            .ok()?;
        self.awaits("the edited entry is closed", 30, || {
            !answers(LISTED) && condition().contains("Unattested")
        })?;
        took(
            "the entry is edited: closed again, until somebody vouches for what it says now",
            begun,
        )?;
        self.delete(&reaching)
    }
}
