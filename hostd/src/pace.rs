//! How soon a bell is answered that may ring because of what is done about it.

use std::time::{Duration, Instant};

/// At once, unless it rang before and something was done about it a short while ago: then later and later. A machine that ends as
/// often as it is started is no busy loop.
#[derive(Debug)]
pub(crate) struct Pace {
    most: Duration,
    answers: u32,
    last: Option<Instant>,
}

impl Pace {
    /// A bell that is answered after so long at the latest.
    pub(crate) fn new(most: Duration) -> Self {
        Self {
            most,
            answers: 0,
            last: None,
        }
    }

    /// How long to wait before the bell is answered.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        match self.lately(now) {
            0 => Duration::ZERO,
            answers => Duration::from_millis(500 << answers.min(10)).min(self.most),
        }
    }

    /// The bell was answered, and there was something to do.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.answers = self.lately(now).saturating_add(1);
        self.last = Some(now);
    }

    fn lately(&self, now: Instant) -> u32 {
        let calm = self.last.is_none_or(|last| now.saturating_duration_since(last) > self.most * 2);
        if calm { 0 } else { self.answers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_is_answered_at_once_and_an_echo_later_and_later() {
        let most = Duration::from_secs(30);
        let (mut now, mut pace) = (Instant::now(), Pace::new(most));
        // A machine that ends as often as it is started.
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                let wait = pace.wait(now);
                now += wait;
                pace.answered(now);
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pace.wait(now + most * 2), most, "it may be between two of its lives");
        now += most * 2 + Duration::from_secs(1);
        assert_eq!(pace.wait(now), Duration::ZERO, "it has been calm");
        pace.answered(now);
        assert_eq!(pace.wait(now), Duration::from_secs(1), "it counts anew");
    }
}
