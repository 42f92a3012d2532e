//! What a visitor has on his screen, and what has to be said to him so that it is what the terminal shows. Pure.
//!
//! The guest's bytes end in the terminal's state: only text and looks of cells are read from it, so clipboard, links,
//! titles, queries and files of a guest have no way to a person.

use dejima_crds::door::{COLUMNS, Cursor, Difference, Look, ROWS, Row, Span, is_plain};

/// What a message costs beside its rows, in bytes.
pub const ENVELOPE: usize = 192;
/// At most so many characters beside the first in one cell: accents.
const MARKS_A_CELL: usize = 2;

/// How many bytes a visit may take: so many a minute, in any minute. Time is an argument, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    // In bytes, times the milliseconds of a minute: what comes back in a millisecond is then a whole number.
    left: u64,
    most: u64,
    each_millisecond: u64,
    at: u64,
}

const MINUTE: u64 = 60_000;

impl Budget {
    /// A quarter may go at once, the rest comes back over the minute: together never more than this.
    pub fn new(bytes_a_minute: u64) -> Self {
        let at_once = bytes_a_minute / 4;
        Self {
            left: at_once.saturating_mul(MINUTE),
            most: at_once.saturating_mul(MINUTE),
            each_millisecond: bytes_a_minute - at_once,
            at: 0,
        }
    }

    /// How many bytes may go now.
    pub fn room(&mut self, now: u64) -> usize {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.left = self
            .left
            .saturating_add(passed.saturating_mul(self.each_millisecond))
            .min(self.most);
        usize::try_from(self.left / MINUTE).unwrap_or(usize::MAX)
    }

    /// Takes what goes, if there is room for it.
    pub fn spend(&mut self, bytes: usize, now: u64) -> bool {
        let fits = bytes <= self.room(now);
        if fits {
            self.left -= u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(MINUTE);
        }
        fits
    }
}

/// What a visitor has on his screen.
#[derive(Clone, Debug)]
pub struct Shown {
    rows: Vec<Vec<Span>>,
    cursor: Option<Cursor>,
    // Where the next look begins: a flood at the top does not starve the bottom.
    first: u16,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            rows: vec![Vec::new(); usize::from(ROWS)],
            cursor: None,
            first: 0,
        }
    }
}

impl Shown {
    /// What has to be said, as far as there is room, and what it costs; from then on the visitor is taken to have it. What
    /// there was no room for is said another time, as it is then.
    pub fn next(&mut self, screen: &vt100::Screen, room: usize) -> (Option<Difference>, usize) {
        let mut difference = Difference::default();
        let mut cost = ENVELOPE;
        let first = self.first;
        for row in (0..ROWS).map(|step| (first + step) % ROWS) {
            let spans = spans(screen, row);
            let Some(shown) = self.rows.get_mut(usize::from(row)) else {
                continue;
            };
            if *shown == spans {
                continue;
            }
            let said = Row { row, spans };
            let more = size(&said);
            if cost + more > room {
                self.first = row;
                return self.done(difference, cost);
            }
            cost += more;
            shown.clone_from(&said.spans);
            difference.rows.push(said);
        }
        let cursor = cursor(screen);
        if self.cursor != Some(cursor) && cost <= room {
            self.cursor = Some(cursor);
            difference.cursor = Some(cursor);
        }
        self.done(difference, cost)
    }

    /// A terminal's cursor is where it last wrote: after rows it is put back.
    fn done(&mut self, mut difference: Difference, cost: usize) -> (Option<Difference>, usize) {
        if difference == Difference::default() {
            return (None, 0);
        }
        difference.cursor = difference.cursor.or(self.cursor);
        (Some(difference), cost)
    }

    /// Whether the visitor has what the terminal shows.
    pub fn is(&self, screen: &vt100::Screen) -> bool {
        let same = |(row, shown): (u16, &Vec<Span>)| *shown == spans(screen, row);
        (0..ROWS).zip(&self.rows).all(same) && self.cursor == Some(cursor(screen))
    }
}

fn size(row: &Row) -> usize {
    // INVARIANT: numbers and texts, which always have a JSON form; what had none would never fit.
    serde_json::to_vec(row).map_or(usize::MAX / 2, |bytes| bytes.len() + 1)
}

fn cursor(screen: &vt100::Screen) -> Cursor {
    let (row, column) = screen.cursor_position();
    Cursor {
        row: row.min(ROWS - 1),
        column: column.min(COLUMNS - 1),
        hidden: screen.hide_cursor(),
    }
}

fn look(cell: &vt100::Cell) -> Look {
    let palette = |colour| match colour {
        vt100::Color::Idx(index) => Some(index),
        // A colour outside the palette is the usual one.
        vt100::Color::Default | vt100::Color::Rgb(..) => None,
    };
    let marks = [
        (cell.bold(), 1),
        (cell.dim(), 2),
        (cell.italic(), 4),
        (cell.underline(), 8),
        (cell.inverse(), 16),
    ];
    Look {
        ink: palette(cell.fgcolor()),
        ground: palette(cell.bgcolor()),
        marks: marks.iter().filter(|(on, _)| *on).map(|(_, mark)| mark).sum(),
    }
}

/// The text of a cell: one character that may reach a person, with its accents.
fn text(cell: &vt100::Cell) -> impl Iterator<Item = char> {
    let mut found = cell.contents().chars();
    let first = found.next().unwrap_or(' ');
    let first = if is_plain(first) { first } else { '?' };
    std::iter::once(first).chain(found.filter(|mark| is_plain(*mark)).take(MARKS_A_CELL))
}

/// A row as spans, without the blank end.
fn spans(screen: &vt100::Screen, row: u16) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let cells = (0..COLUMNS).filter_map(|column| screen.cell(row, column));
    for cell in cells.filter(|cell| !cell.is_wide_continuation()) {
        let look = look(cell);
        match spans.last_mut() {
            Some(last) if last.look == look => last.text.extend(text(cell)),
            Some(_) | None => spans.push(Span {
                text: text(cell).collect(),
                look,
            }),
        }
    }
    if let Some(last) = spans.last_mut().filter(|last| last.look == Look::default()) {
        last.text.truncate(last.text.trim_end_matches(' ').len());
        if last.text.is_empty() {
            spans.pop();
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use dejima_crds::door::{is_tame, render};
    use proptest::prelude::*;

    use super::*;
    use crate::door::terminal::blank;

    /// What a guest may print: any bytes, and more often than chance those that a terminal obeys.
    fn printed() -> impl Strategy<Value = Vec<u8>> {
        let wild = prop_oneof![
            Just(b"\x1b]52;c;aGVsbG8=\x07".to_vec()),
            Just(b"\x1b]8;;file:///etc/passwd\x1b\\here\x1b]8;;\x1b\\".to_vec()),
            Just(b"\x1b]0;title\x07\x1b]1337;File=:aGk=\x07".to_vec()),
            Just(b"\x1b[6n\x1b[c\x1bZ\x1b[21t\x1bP+q544e\x1b\\".to_vec()),
            Just(b"\x1b[?1049h\x1b[?2004h\x1b[?1000h\x1b[5;10r\x1bM\x1bD".to_vec()),
            Just("出島\u{202e}\u{200b}\u{e0041}e\u{301}\u{301}\u{301}\u{301}".as_bytes().to_vec()),
            Just(b"\x1b[1;31;48;5;200mred\x1b[38;2;1;2;3mrgb\x1b[0m\x1b[2J\x1b[H".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..64),
            "[ -~]{0,100}\r\n".prop_map(String::into_bytes),
            "\x1b\\[[0-9;?]{0,8}[@-~]".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(wild, 0..24).prop_map(|parts| parts.concat())
    }

    /// A terminal that understands our sequences, after what a visitor was sent.
    fn seen(sent: &str) -> vt100::Parser {
        let mut own = blank();
        own.process(sent.as_bytes());
        own
    }

    proptest! {
        #[test]
        fn nothing_but_our_own_sequences_leaves_whatever_a_guest_prints(steps in proptest::collection::vec((printed(), 0usize..20_000), 1..6)) {
            let mut terminal = blank();
            let mut shown = Shown::default();
            for (bytes, room) in steps {
                terminal.process(&bytes);
                let (difference, cost) = shown.next(terminal.screen(), room);
                if let Some(difference) = difference {
                    let message = serde_json::to_string(&difference).unwrap();
                    prop_assert!(message.len() <= cost && cost <= room, "{} bytes, {} counted, room for {}", message.len(), cost, room);
                    prop_assert!(difference.rows.iter().flat_map(|row| &row.spans).all(|span| span.text.chars().all(is_plain)));
                    let text = render(&difference);
                    prop_assert!(is_tame(&text), "{:?}", text);
                }
            }
        }

        #[test]
        fn with_room_a_visitor_comes_to_see_what_the_terminal_shows(steps in proptest::collection::vec("[a-z \r\n]{0,300}", 1..6)) {
            let mut terminal = blank();
            let mut shown = Shown::default();
            let mut sent = String::new();
            for text in steps {
                terminal.process(text.as_bytes());
                // Some of it for the time being, the rest later.
                sent.extend(shown.next(terminal.screen(), 900).0.map(|some| render(&some)));
            }
            sent.extend(shown.next(terminal.screen(), 1 << 20).0.map(|rest| render(&rest)));
            prop_assert!(shown.is(terminal.screen()));
            let own = seen(&sent);
            let rows = |screen: &vt100::Screen| screen.rows(0, COLUMNS).map(|row| row.trim_end().to_owned()).collect::<Vec<_>>();
            prop_assert_eq!(rows(own.screen()), rows(terminal.screen()));
            prop_assert_eq!(cursor(own.screen()), cursor(terminal.screen()));
            prop_assert!(shown.next(terminal.screen(), 1 << 20).0.is_none(), "what is there is not said again");
        }

        #[test]
        fn no_minute_takes_more_than_the_budget(bytes_a_minute in 1_000u64..1_000_000, asks in proptest::collection::vec((0u64..5_000, 0usize..100_000), 1..200)) {
            let mut budget = Budget::new(bytes_a_minute);
            let mut now = 0;
            let mut went: Vec<(u64, u64)> = Vec::new();
            for (pause, wish) in asks {
                now += pause;
                let bytes = wish.min(budget.room(now));
                prop_assert!(budget.spend(bytes, now));
                went.push((now, u64::try_from(bytes).unwrap()));
                let minute: u64 = went.iter().filter(|(at, _)| now - at < MINUTE).map(|(_, bytes)| bytes).sum();
                prop_assert!(minute <= bytes_a_minute, "{} in a minute", minute);
            }
        }
    }

    #[test]
    fn a_flood_stays_within_the_budget_and_the_last_screen_is_seen() {
        let (a_minute, minutes) = (64 << 10, 3);
        let (mut terminal, mut shown, mut budget) = (blank(), Shown::default(), Budget::new(a_minute));
        let (mut sent, mut printed) = (0u64, 0u64);
        for tick in 0..(minutes * 600u64) {
            // 1,100 bytes of base64 each tenth of a second, as a fast serial line brings them.
            for line in 0..14u64 {
                let text = format!("{:x<76}\r\n", tick * 7919 + line);
                printed += u64::try_from(text.len()).unwrap();
                terminal.process(text.as_bytes());
            }
            let now = tick * 100;
            let (difference, cost) = shown.next(terminal.screen(), budget.room(now));
            if let Some(difference) = difference {
                assert!(budget.spend(cost, now));
                sent += u64::try_from(serde_json::to_vec(&difference).unwrap().len()).unwrap();
            }
        }
        assert!(sent <= minutes * a_minute && sent > minutes * a_minute / 3, "{sent} of {printed}");
        assert!(printed > 8 * sent, "the control: it was a flood");
        let (mut now, mut said) = (minutes * 60_000, 0);
        while !shown.is(terminal.screen()) {
            now += 100;
            said += 1;
            let (difference, cost) = shown.next(terminal.screen(), budget.room(now));
            assert!(difference.is_none() || budget.spend(cost, now));
            assert!(said < 600, "the last screen never comes");
        }
    }
}
