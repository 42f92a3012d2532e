//! Figures: what was measured, its percentiles beside the rival's, and whether the goal was met.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What is to be reached.
pub(crate) enum Goal {
    /// At most so much more than the rival's, at the median and, where said, at the 95th percentile; in the unit of the row.
    Over { p50: f64, p95: Option<f64> },
    /// As above, and the 99th percentile below this.
    OverAndBelow { p50: f64, p99: f64 },
    /// At most this, the largest of all.
    AtMost(f64),
    /// At least this part of the rival's, at the median.
    Ratio(f64),
    /// None: it explains another row.
    None,
}

/// One figure.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: &'static str,
    /// In which unit.
    pub(crate) unit: &'static str,
    /// Ours.
    pub(crate) ours: Vec<f64>,
    /// Who does the same in this run, and his.
    pub(crate) rival: Option<(&'static str, Vec<f64>)>,
    /// What is to be reached.
    pub(crate) goal: Goal,
}

/// A percentile by the nearest rank.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

impl Row {
    fn rivals(&self, percent: usize) -> f64 {
        self.rival.as_ref().map_or(0.0, |(_, values)| percentile(values, percent))
    }

    fn ours(&self, percent: usize) -> f64 {
        percentile(&self.ours, percent)
    }

    /// Whether the goal was met; nothing where there is none.
    fn is_met(&self) -> Option<bool> {
        let over = |percent| self.ours(percent) - self.rivals(percent);
        match self.goal {
            Goal::Over { p50, p95 } => Some(over(50) <= p50 && p95.is_none_or(|p95| over(95) <= p95)),
            Goal::OverAndBelow { p50, p99 } => Some(over(50) <= p50 && self.ours(99) < p99),
            Goal::AtMost(most) => Some(self.ours(100) <= most),
            Goal::Ratio(least) => Some(self.ours(50) / self.rivals(50) >= least),
            Goal::None => None,
        }
    }

    fn goal(&self) -> String {
        let unit = self.unit;
        match self.goal {
            Goal::Over { p50, p95: None } => format!("p50 +{p50} {unit}"),
            Goal::Over { p50, p95: Some(p95) } => format!("p50 +{p50}, p95 +{p95} {unit}"),
            Goal::OverAndBelow { p50, p99 } => format!("p50 +{p50}, p99 < {p99} {unit}"),
            Goal::AtMost(most) => format!("<= {most} {unit}"),
            Goal::Ratio(least) => format!(">= {least} of the rival's"),
            Goal::None => String::new(),
        }
    }
}

fn three(values: &[f64]) -> String {
    let shown = |percent| format!("{:.1}", percentile(values, percent));
    match values {
        [] => String::new(),
        [one] => format!("{one:.1}"),
        _ => format!("{} / {} / {}", shown(50), shown(95), shown(99)),
    }
}

/// The table: p50 / p95 / p99 of each.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | unit | n | ours (p50 / p95 / p99) | rival | rival's (p50 / p95 / p99) | goal | met |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (name, theirs) = row
            .rival
            .as_ref()
            .map_or(("", String::new()), |(name, values)| (*name, three(values)));
        let met = row.is_met().map_or("", |met| if met { "yes" } else { "no" });
        let (count, ours) = (row.ours.len(), three(&row.ours));
        let goal = row.goal();
        let _ = writeln!(
            text,
            "| {} | {} | {count} | {ours} | {name} | {theirs} | {goal} | {met} |",
            row.what, row.unit
        );
    }
    text
}

/// One line for programs.
pub(crate) fn json(bench: &str, rows: &[Row]) -> Value {
    let one = |row: &Row| {
        let of = |values: &[f64]| json!({"n": values.len(), "p50": percentile(values, 50), "p95": percentile(values, 95), "p99": percentile(values, 99)});
        let rival = row
            .rival
            .as_ref()
            .map(|(name, values)| json!({"who": name, "figures": of(values), "ratio": row.ours(50) / percentile(values, 50)}));
        json!({"what": row.what, "unit": row.unit, "ours": of(&row.ours), "rival": rival, "goal": row.goal(), "met": row.is_met()})
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    json!({"bench": bench, "processors": processors, "rows": rows.iter().map(one).collect::<Vec<_>>()})
}
