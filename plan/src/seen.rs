//! What an observer can say of a thing: that it is not there, that it is, or that nobody can tell.

use serde::{Deserialize, Serialize};

/// Absence must be seen, not guessed: a silent host has lost nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen<T> {
    /// It is not there.
    Absent,
    /// It is there.
    Present(T),
    /// Nobody can tell.
    Unknown,
}

impl<T> Seen<T> {
    /// The thing, where it is there.
    pub fn present(&self) -> Option<&T> {
        match self {
            Self::Present(thing) => Some(thing),
            Self::Absent | Self::Unknown => None,
        }
    }
}
