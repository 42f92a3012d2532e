//! Which gate the effects of this process pass: the open one, unless this is a test's build that was told otherwise.

use std::sync::Arc;

use dejima_plan::effect::{Gate, Open};

/// The gate of this process.
#[cfg(not(feature = "faults"))]
pub(crate) fn gate() -> Arc<dyn Gate> {
    Arc::new(Open)
}

/// The gate of this process: what `DEJIMA_FAULTS` says, a JSON file `{log, object, verb, nth, fate}`.
#[cfg(feature = "faults")]
pub(crate) fn gate() -> Arc<dyn Gate> {
    match faults::Faults::from_environment() {
        Some(faults) => Arc::new(faults),
        None => Arc::new(Open),
    }
}

#[cfg(feature = "faults")]
mod faults {
    use std::collections::BTreeMap;
    use std::io::Write as _;
    use std::sync::Mutex;

    use dejima_plan::effect::{Effect, Fate, Gate};
    use serde_json::Value;

    /// Writes each effect's name down, and lets one of them not pass.
    #[derive(Debug)]
    pub(super) struct Faults {
        log: Option<Mutex<std::fs::File>>,
        what: Value,
        counts: Mutex<BTreeMap<Effect, u64>>,
    }

    impl Faults {
        pub(super) fn from_environment() -> Option<Self> {
            let text = std::fs::read_to_string(std::env::var_os("DEJIMA_FAULTS")?).ok()?;
            let what: Value = serde_json::from_str(&text).ok()?;
            let log = what
                .get("log")
                .and_then(Value::as_str)
                .and_then(|path| std::fs::File::options().create(true).append(true).open(path).ok());
            Some(Self {
                log: log.map(Mutex::new),
                what,
                counts: Mutex::default(),
            })
        }
    }

    impl Gate for Faults {
        fn fate(&self, effect: &Effect) -> Fate {
            let count = self.counts.lock().map_or(0, |mut counts| {
                let count = counts.entry(effect.clone()).or_default();
                *count += 1;
                *count
            });
            if let Some(Ok(mut log)) = self.log.as_ref().map(Mutex::lock) {
                // One write a line: several processes append to the same file. A name that cannot be written down is missed by the test, which then fails.
                let _ = log.write_all(format!("{effect}\n").as_bytes());
            }
            let text = |field: &str| self.what.get(field).and_then(Value::as_str).unwrap_or_default();
            let nth = self.what.get("nth").and_then(Value::as_u64).unwrap_or(1);
            if text("object") != effect.object || text("verb") != effect.verb || nth != count {
                return Fate::Pass;
            }
            match text("fate") {
                "fail" => Fate::Fail,
                "time-out" => Fate::TimeOut,
                "kill" => Fate::Kill,
                // It stands still before it, until somebody lets it go on.
                "hang" => {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                    Fate::Pass
                }
                _ => Fate::Pass,
            }
        }
    }
}
