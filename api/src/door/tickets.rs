//! Tickets: each lets one person into one machine, once and soon. Pure: chance and time are arguments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a ticket can be used.
pub(super) const LIFE: Duration = Duration::from_secs(15);
/// Tickets that wait at the same time, in all and of one person: who asks for more loses his eldest.
const ROOM: usize = 4096;
const ROOM_OF_ONE: usize = 8;

/// What a ticket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) login: String,
    pub(super) namespace: String,
    pub(super) project: String,
    pub(super) machine: String,
    pub(super) watch: bool,
}

impl Pass {
    fn is_for(&self, other: &Self) -> bool {
        (&self.login, &self.namespace, &self.project, &self.machine) == (&other.login, &other.namespace, &other.project, &other.machine)
    }
}

/// Tickets that were not used yet.
#[derive(Debug, Default)]
pub(super) struct Tickets(BTreeMap<String, (Instant, Pass)>);

impl Tickets {
    /// Keeps a ticket. Whether there was room for it.
    pub(super) fn issue(&mut self, ticket: String, pass: Pass, now: Instant) -> bool {
        self.0.retain(|_, (at, _)| now.duration_since(*at) < LIFE);
        let own = |(_, (_, other)): &(&String, &(Instant, Pass))| other.login == pass.login;
        if self.0.iter().filter(own).count() >= ROOM_OF_ONE {
            let eldest = self
                .0
                .iter()
                .filter(own)
                .min_by_key(|(_, (at, _))| *at)
                .map(|(ticket, _)| ticket.clone());
            eldest.and_then(|eldest| self.0.remove(&eldest));
        }
        self.0.len() < ROOM && self.0.insert(ticket, (now, pass)).is_none()
    }

    /// Uses a ticket up, whoever brings it. What it lets do, if it is this person's for this machine, and in time.
    pub(super) fn redeem(&mut self, ticket: &str, by: &Pass, now: Instant) -> Option<Pass> {
        let (at, pass) = self.0.remove(ticket)?;
        (now.duration_since(at) < LIFE && pass.is_for(by)).then_some(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(login: &str, machine: &str) -> Pass {
        Pass {
            login: login.to_owned(),
            namespace: "osaka".to_owned(),
            project: "liver".to_owned(),
            machine: machine.to_owned(),
            watch: false,
        }
    }

    #[test]
    fn a_ticket_works_once_shortly_for_its_person_and_its_machine() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        let own = pass("lead", "train");
        let issue = |tickets: &mut Tickets| assert!(tickets.issue("t".to_owned(), own.clone(), now));
        issue(&mut tickets);
        assert_eq!(tickets.redeem("t", &own, now), Some(own.clone()));
        assert_eq!(tickets.redeem("t", &own, now), None, "twice");
        for other in [pass("student", "train"), pass("lead", "other")] {
            issue(&mut tickets);
            assert_eq!(tickets.redeem("t", &other, now), None);
            assert_eq!(tickets.redeem("t", &own, now), None, "it was shown to somebody else");
        }
        issue(&mut tickets);
        assert_eq!(tickets.redeem("t", &own, now + LIFE), None, "too late");
        assert_eq!(tickets.redeem("made up", &own, now), None);
    }

    #[test]
    fn who_asks_for_many_tickets_takes_nobody_elses_room() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        assert!(tickets.issue("other".to_owned(), pass("student", "train"), now));
        for number in 0..5000u32 {
            assert!(tickets.issue(number.to_string(), pass("lead", "train"), now + Duration::from_millis(1)));
        }
        assert_eq!(tickets.0.len(), 1 + ROOM_OF_ONE);
        assert!(tickets.redeem("other", &pass("student", "train"), now).is_some());
    }
}
