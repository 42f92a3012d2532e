//! Hosts that have dialled in, and the visits that pass between them and people.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use dejima_crds::act::Act;
use dejima_crds::bounded::{Label, Login, Uid};
use dejima_crds::door::{Farewell, FromHost, MACHINE, ToHost, ToPerson, WHO, Why, activity};
use dejima_crds::grant::ProjectRef;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

/// What waits for a host; what a visit's screens may wait for before it is over.
const WAITING: usize = 256;
/// A line is asked whether it lives after so long, and is over when it has said nothing for three times as long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// A message that is not taken for so long breaks the line.
const PATIENCE: Duration = Duration::from_secs(5);

/// A visit that the API has let in, and that is not over.
#[derive(Debug)]
struct Visit {
    host: String,
    login: Login,
    project: ProjectRef,
    machine: Label,
    to: mpsc::Sender<ToPerson>,
}

#[derive(Debug, Default)]
struct State {
    // The number tells two lines of one host apart.
    lines: BTreeMap<String, (u64, mpsc::Sender<ToHost>)>,
    visits: BTreeMap<Uid, Visit>,
    count: u64,
}

/// Lines of hosts, and visits.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Mutex<State>);

/// Who is let in where.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) visit: Uid,
    pub(super) host: String,
    pub(super) login: Login,
    pub(super) project: ProjectRef,
    pub(super) machine: Label,
    pub(super) watch: bool,
}

impl Hosts {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step: what was lost in a panic is none of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a host has dialled in.
    pub(super) fn is_there(&self, host: &str) -> bool {
        self.state().lines.contains_key(host)
    }

    /// Somebody is let in: the host is told, and what it says of him comes here. Nothing where the host is not there.
    pub(super) fn enter(&self, admitted: &Admitted) -> Option<mpsc::Receiver<ToPerson>> {
        let mut state = self.state();
        let (_, line) = state.lines.get(&admitted.host)?;
        let enter = ToHost::Enter {
            visit: admitted.visit.clone(),
            login: admitted.login.clone(),
            project: admitted.project.clone(),
            machine: admitted.machine.clone(),
            watch: admitted.watch,
        };
        line.try_send(enter).ok()?;
        let (to, from) = mpsc::channel(WAITING);
        let visit = Visit {
            host: admitted.host.clone(),
            login: admitted.login.clone(),
            project: admitted.project.clone(),
            machine: admitted.machine.clone(),
            to,
        };
        state.visits.insert(admitted.visit.clone(), visit);
        Some(from)
    }

    /// Something for a visit's host. Whether it was taken.
    pub(super) fn tell(&self, host: &str, what: ToHost) -> bool {
        self.state().lines.get(host).is_some_and(|(_, line)| line.try_send(what).is_ok())
    }

    /// A visit is over here.
    pub(super) fn forget(&self, visit: &Uid) {
        self.state().visits.remove(visit);
    }

    /// Whether this act is the beginning of a visit that the API has let in on this host: no host can make a visitor up.
    pub(crate) fn begins(&self, host: &str, act: &Act) -> bool {
        let fact = |name: &str| act.facts.get(name).map(String::as_str).unwrap_or_default();
        self.state().visits.iter().any(|(id, visit)| {
            act.activity == activity(id)
                && visit.host == host
                && act.project.as_ref() == Some(&visit.project)
                && visit.login == *fact(WHO)
                && visit.machine == *fact(MACHINE)
        })
    }

    /// What a host says of a visit of its own. One whose visitor does not keep up is over.
    fn said(&self, host: &str, said: FromHost) {
        let mut state = self.state();
        let own = state.visits.get(&said.visit).filter(|visit| visit.host == host);
        if own.is_some_and(|visit| visit.to.try_send(said.says).is_err()) {
            state.visits.remove(&said.visit);
        }
    }

    fn join(&self, host: &str) -> (u64, mpsc::Receiver<ToHost>) {
        let (line, orders) = mpsc::channel(WAITING);
        let mut state = self.state();
        state.count += 1;
        let number = state.count;
        // An older line of the same host is over with this: its other end sees that nobody speaks any more.
        state.lines.insert(host.to_owned(), (number, line));
        state.visits.retain(|_, visit| visit.host != host);
        (number, orders)
    }

    fn leave(&self, host: &str, number: u64) {
        let mut state = self.state();
        if state.lines.get(host).is_some_and(|(current, _)| *current == number) {
            state.lines.remove(host);
            state.visits.retain(|_, visit| visit.host != host);
        }
    }

    /// A host's line, until it breaks.
    pub(super) async fn serve(&self, host: &str, mut socket: WebSocket) {
        let (number, mut orders) = self.join(host);
        tracing::info!(host, "a host has dialled in");
        let mut signs = interval(SIGN_OF_LIFE);
        let mut silent: u32 = 0;
        loop {
            let message = tokio::select! {
                said = socket.recv() => {
                    silent = 0;
                    match said {
                        Some(Ok(Message::Text(text))) => {
                            match serde_json::from_str(&text) {
                                Ok(said) => self.said(host, said),
                                Err(error) => {
                                    tracing::warn!(host, error = %error, "a host says what is no word of the door");
                                    break;
                                }
                            }
                            continue;
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => break,
                    }
                }
                order = orders.recv() => {
                    let text = order.and_then(|order| serde_json::to_string(&order).ok());
                    let Some(text) = text else { break };
                    Message::Text(text.into())
                }
                _ = signs.tick() => {
                    silent += 1;
                    if silent > 3 {
                        break;
                    }
                    Message::Ping(Vec::new().into())
                }
            };
            if !matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(()))) {
                break;
            }
        }
        self.leave(host, number);
        tracing::info!(host, "the line of a host is over");
    }
}

/// Why a visit is over whose host says nothing any more.
pub(super) fn host_gone() -> Farewell {
    Farewell::new(
        Why::HostGone,
        "the host of this machine and the platform's API do not reach each other",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dejima_crds::act::{Kind, Phase};

    use super::*;

    fn admitted() -> Admitted {
        Admitted {
            visit: "v".into(),
            host: "host-a".to_owned(),
            login: "lead".into(),
            project: ProjectRef {
                namespace: "osaka".into(),
                name: "liver".into(),
                uid: "u".into(),
            },
            machine: "train".into(),
            watch: false,
        }
    }

    fn begun(who: &str) -> Act {
        Act {
            activity: "visit/v".to_owned(),
            phase: Phase::Begun,
            kind: Kind::Visit,
            project: Some(admitted().project),
            host: Some("host-a".to_owned()),
            used: Vec::new(),
            generated: Vec::new(),
            outcome: None,
            facts: BTreeMap::from([(WHO.to_owned(), who.to_owned()), (MACHINE.to_owned(), "train".to_owned())]),
        }
    }

    #[test]
    fn a_host_begins_the_visits_that_the_api_let_in_and_makes_nobody_up() {
        let hosts = Hosts::default();
        assert!(hosts.enter(&admitted()).is_none(), "the host has not dialled in");
        let (_, mut orders) = hosts.join("host-a");
        let mut from = hosts.enter(&admitted()).unwrap();
        assert!(matches!(orders.try_recv(), Ok(ToHost::Enter { .. })));
        assert!(hosts.begins("host-a", &begun("lead")), "the control");
        assert!(!hosts.begins("host-b", &begun("lead")), "another host");
        assert!(!hosts.begins("host-a", &begun("student")), "another person");
        let mut other = begun("lead");
        other.activity = "visit/w".to_owned();
        assert!(!hosts.begins("host-a", &other), "a visit that nobody let in");
        let said = |visit: &str| FromHost {
            visit: visit.into(),
            says: ToPerson::Writes,
        };
        hosts.said("host-b", said("v"));
        assert!(from.try_recv().is_err(), "of another host's visit");
        hosts.said("host-a", said("v"));
        assert_eq!(from.try_recv(), Ok(ToPerson::Writes));
        hosts.forget(&"v".into());
        assert!(!hosts.begins("host-a", &begun("lead")), "it is over");
    }

    #[test]
    fn a_line_that_breaks_ends_its_visits_and_a_newer_one_stands() {
        let hosts = Hosts::default();
        let (first, _orders) = hosts.join("host-a");
        let mut from = hosts.enter(&admitted()).unwrap();
        let (second, _newer) = hosts.join("host-a");
        assert!(matches!(from.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        hosts.leave("host-a", first);
        assert!(hosts.is_there("host-a"), "the newer line stands");
        hosts.leave("host-a", second);
        assert!(!hosts.is_there("host-a"));
    }
}
