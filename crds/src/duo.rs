//! The Data Use Ontology (GA4GH DUO), release 2021-02-23: which codes exist.

use crate::bounded::bounded;

/// The usable terms of that release: 25 less the two that only group others.
pub const TERMS: [&str; 23] = [
    "DUO:0000004",
    "DUO:0000006",
    "DUO:0000007",
    "DUO:0000011",
    "DUO:0000012",
    "DUO:0000015",
    "DUO:0000016",
    "DUO:0000018",
    "DUO:0000019",
    "DUO:0000020",
    "DUO:0000021",
    "DUO:0000022",
    "DUO:0000024",
    "DUO:0000025",
    "DUO:0000026",
    "DUO:0000027",
    "DUO:0000028",
    "DUO:0000029",
    "DUO:0000042",
    "DUO:0000043",
    "DUO:0000044",
    "DUO:0000045",
    "DUO:0000046",
];

bounded!(
    /// A term of the Data Use Ontology.
    DuoId,
    max = 11,
    values = TERMS.to_vec()
);
