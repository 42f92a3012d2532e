//! The door: what passes between a person, the API and a host while a visit lasts. Plain types, and what a screen may be.
//!
//! ```text
//! guest's bytes -> host: the terminal's state -> differences (text and looks, nothing else) -> API -> person
//! ```
//! A person gets screens, never a stream: a difference has no place for a sequence of the guest's.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::{Label, Login, Uid};
use crate::grant::ProjectRef;

/// The rows of a console: a serial line tells nobody how large a screen is.
pub const ROWS: u16 = 24;
/// The columns of a console.
pub const COLUMNS: u16 = 80;
/// At most so many bytes of keys in one message.
pub const KEYS_AT_ONCE: usize = 1024;
/// The fact of a visit's act that says who came.
pub const WHO: &str = "who";
/// The fact that says into which machine.
pub const MACHINE: &str = "machine";
/// The fact of an end that says which recording there is: the last digest of its chain.
pub const RECORDING: &str = "recording";

/// The activity of a visit.
pub fn activity(visit: &Uid) -> String {
    format!("visit/{visit}")
}

/// How cells look. Colours are the terminal's palette.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Look {
    /// The colour of the text, of 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ink: Option<u8>,
    /// The colour behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<u8>,
    /// Bold, dim, italic, underlined, inverse: 1, 2, 4, 8, 16.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub marks: u8,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Marks and the numbers that terminals know them by (SGR).
const MARKS: [(u8, u8); 5] = [(1, 1), (2, 2), (4, 3), (8, 4), (16, 7)];

/// Text of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The text: no control character, nothing invisible.
    pub text: String,
    /// How it looks.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub look: Look,
}

/// A whole row as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Which, from 0.
    pub row: u16,
    /// What stands in it; the rest is blank.
    pub spans: Vec<Span>,
}

/// Where the cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The row, from 0.
    pub row: u16,
    /// The column, from 0.
    pub column: u16,
    /// Whether it is not to be seen.
    pub hidden: bool,
}

/// What changed on a screen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The rows that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// The cursor, where it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// Whether a character may reach a person: it is no control character, changes no direction, is not invisible and not private.
pub fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

/// A text with nothing in it but what may reach a person.
pub fn plain(text: &str) -> String {
    text.chars().map(|found| if is_plain(found) { found } else { '?' }).collect()
}

/// A difference as a terminal takes it: text, looks, positions, and nothing else, whatever the difference says.
pub fn render(difference: &Difference) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    for row in difference.rows.iter().filter(|row| row.row < ROWS) {
        let _ = write!(text, "\u{1b}[{};1H\u{1b}[0m\u{1b}[K", row.row + 1);
        let mut room = usize::from(COLUMNS);
        for span in &row.spans {
            look(&mut text, span.look);
            let shown: String = span.text.chars().take(room).collect();
            room -= shown.chars().count();
            text.push_str(&plain(&shown));
        }
        text.push_str("\u{1b}[0m");
    }
    if let Some(cursor) = difference.cursor {
        let (row, column) = (cursor.row.min(ROWS - 1) + 1, cursor.column.min(COLUMNS - 1) + 1);
        let _ = write!(text, "\u{1b}[{row};{column}H\u{1b}[?25{}", if cursor.hidden { 'l' } else { 'h' });
    }
    text
}

fn look(text: &mut String, look: Look) {
    text.push_str("\u{1b}[0");
    for (_, number) in MARKS.iter().filter(|(mark, _)| look.marks & mark != 0) {
        let _ = write!(text, ";{number}");
    }
    if let Some(ink) = look.ink {
        let _ = write!(text, ";38;5;{ink}");
    }
    if let Some(ground) = look.ground {
        let _ = write!(text, ";48;5;{ground}");
    }
    text.push('m');
}

/// Whether a text holds no control character but those of the sequences that [`render`] makes: what tests hold it to.
pub fn is_tame(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(|found| !is_plain(found)) {
        let after = rest.get(at..).and_then(|found| found.strip_prefix("\u{1b}["));
        let Some(after) = after else { return false };
        let end = after
            .find(|found: char| !found.is_ascii_digit() && found != ';')
            .unwrap_or(after.len());
        let (numbers, verb) = after.split_at(end);
        let skipped = match verb.chars().next() {
            Some('H' | 'K' | 'm') => 1,
            Some('?') if numbers.is_empty() && (verb.starts_with("?25h") || verb.starts_with("?25l")) => 4,
            Some(_) | None => return false,
        };
        rest = verb.get(skipped..).unwrap_or_default();
    }
    true
}

/// Why a visit is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Why {
    /// The person left, or his connection broke.
    Left,
    /// He is no member of the project any more.
    NotMember,
    /// He is a member, and not effective any more.
    NotEffective,
    /// Kubernetes does not let him any more, or knows his login no more.
    NotAllowed,
    /// The project is going away.
    ProjectEnds,
    /// The machine is not there, or does not run any more.
    MachineGone,
    /// It cannot be recorded: not on the host, or not in the ledger.
    NotRecorded,
    /// Host and API do not reach each other.
    HostGone,
    /// Nobody can tell any more whether he may stay.
    Unknown,
    /// There is no room for another visit.
    Full,
}

/// Why a visit is over, in a word and in plain words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Farewell {
    /// The word.
    pub why: Why,
    /// What happened.
    pub message: String,
}

impl Farewell {
    /// In these words.
    pub fn new(why: Why, message: impl Into<String>) -> Self {
        Self {
            why,
            message: message.into(),
        }
    }
}

/// How somebody wants to come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Entry {
    /// Only to watch: his keys never reach the machine.
    pub watch: bool,
}

/// What lets one person into one machine, once and soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ticket {
    /// For the query of the same path, with the method GET and an upgrade to a WebSocket.
    pub ticket: String,
    /// Seconds that it can be used within.
    pub seconds: u64,
}

/// From a person to the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromPerson {
    /// Keys, at most [`KEYS_AT_ONCE`] bytes.
    Keys(String),
    /// He leaves.
    Leave,
}

/// From the API to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToPerson {
    /// He is in, and it is on record. Whether his keys reach the machine.
    Entered(bool),
    /// What changed on the screen.
    Screen(Difference),
    /// His keys reach the machine from now on.
    Writes,
    /// Something that he should know.
    Notice(String),
    /// It is over.
    Left(Farewell),
}

/// From the API to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToHost {
    /// Somebody comes, whom the API knows and let in.
    Enter {
        /// The visit.
        visit: Uid,
        /// Who.
        login: Login,
        /// Whose project.
        project: ProjectRef,
        /// Into which machine.
        machine: Label,
        /// Whether only to watch.
        watch: bool,
    },
    /// His keys.
    Keys {
        /// The visit.
        visit: Uid,
        /// At most [`KEYS_AT_ONCE`] bytes.
        keys: String,
    },
    /// It is over.
    Leave {
        /// The visit.
        visit: Uid,
        /// Why.
        farewell: Farewell,
    },
}

/// From a host to the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FromHost {
    /// The visit.
    pub visit: Uid,
    /// What of it.
    pub says: ToPerson,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_difference_says_only_our_own_sequences_are_rendered(
            rows in proptest::collection::vec((any::<u16>(), proptest::collection::vec((any::<String>(), any::<Option<u8>>(), any::<Option<u8>>(), any::<u8>()), 0..4)), 0..4),
            cursor in any::<Option<(u16, u16, bool)>>(),
        ) {
            let span = |(text, ink, ground, marks)| Span { text, look: Look { ink, ground, marks } };
            let rows = rows.into_iter().map(|(row, spans)| Row { row, spans: spans.into_iter().map(span).collect() }).collect();
            let cursor = cursor.map(|(row, column, hidden)| Cursor { row, column, hidden });
            let text = render(&Difference { rows, cursor });
            prop_assert!(is_tame(&text), "{:?}", text);
        }
    }

    #[test]
    fn what_is_not_ours_is_seen() {
        for wild in [
            "\u{1b}]52;c;aGk=\u{7}",
            "\u{1b}]8;;http://x\u{1b}\\",
            "\u{1b}]0;title\u{7}",
            "\u{1b}[6n",
            "\u{1b}[?1049h",
            "\u{1b}[?25",
            "\u{1b}c",
            "\u{1b}",
            "\u{9b}1m",
            "a\rb",
            "\u{202e}",
            "\u{e0041}",
        ] {
            assert!(!is_tame(wild), "{wild:?}");
            assert!(is_tame(&plain(wild)), "{wild:?}");
        }
        assert!(is_tame("\u{1b}[3;1H\u{1b}[0;1;38;5;2m出島\u{1b}[K\u{1b}[?25h"));
    }

    #[test]
    fn a_row_is_never_wider_than_the_screen() {
        let span = Span {
            text: "x".repeat(200),
            look: Look::default(),
        };
        let difference = Difference {
            rows: vec![Row {
                row: 0,
                spans: vec![span.clone(), span],
            }],
            cursor: None,
        };
        assert_eq!(render(&difference).matches('x').count(), usize::from(COLUMNS));
    }
}
