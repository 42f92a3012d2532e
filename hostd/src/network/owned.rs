//! What of ours is in a network namespace: networks that are kept, and bridges of which nobody knows whose they are.

use dejima_crds::bounded::Label;
use dejima_plan::sweep::Thing;
use serde_json::Value;

use super::{Host, members, named};
use crate::driver::Error;

/// How the names of our bridges begin (`dejima_plan::segment`).
const BRIDGE: &str = "djb";

impl Host {
    /// Everything of ours.
    pub(super) fn owned(&mut self) -> Result<Vec<Thing>, Error> {
        let links = self.links().map_err(|cause| Error::driver("list", "links", cause))?;
        let networks = self.kept.segments.keys().map(|uid| Thing::Network(uid.as_str().into()));
        let kept: Vec<&Label> = self.kept.segments.values().map(|segment| &segment.bridge).collect();
        let all = links.as_array().into_iter().flatten();
        let bridge = |link: &Value| {
            let name = link.get("ifname").and_then(Value::as_str).filter(|name| name.starts_with(BRIDGE))?;
            let is_bridge = link.pointer("/linkinfo/info_kind").and_then(Value::as_str) == Some("bridge");
            let nobodys = is_bridge && !kept.iter().any(|known| known.as_str() == name);
            nobodys.then(|| Thing::Bridge {
                name: name.into(),
                plugged: !members(&links, name).is_empty(),
            })
        };
        Ok(networks.chain(all.filter_map(bridge)).collect())
    }

    /// Takes a stray away.
    pub(super) fn sweep(&mut self, thing: &Thing) -> Result<(), Error> {
        if let Thing::Network(project) = thing {
            return self.remove(project);
        }
        let Thing::Bridge { name, plugged: false } = thing else {
            return Err(Error::Missing(format!("no {} is a network that is nobody's", thing.word())));
        };
        let failed = |cause| Error::driver("take away", name.to_string(), cause);
        let links = self.links().map_err(failed)?;
        // It is looked at again: what somebody plugged in meanwhile is not unplugged.
        let still = named(&links, name.as_str()).is_some() && members(&links, name.as_str()).is_empty();
        if still && name.as_str().starts_with(BRIDGE) {
            self.space.ip(&[format!("link del dev {name}")]).map_err(failed)?;
        }
        Ok(())
    }
}
