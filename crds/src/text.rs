//! Text that people read, in Japanese and English.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::Prose;

/// A text in one or both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// In Japanese.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja: Option<Prose>,
    /// In English.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub en: Option<Prose>,
}

/// The language in which somebody is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Japanese.
    Ja,
    /// English.
    En,
}

impl Text {
    /// The text in both languages.
    pub fn of(ja: &str, en: &str) -> Self {
        Self {
            ja: Some(ja.into()),
            en: Some(en.into()),
        }
    }

    /// The text in the language that was asked for, or in the other one where it is absent.
    pub fn get(&self, language: Language) -> &str {
        let (first, second) = match language {
            Language::Ja => (&self.ja, &self.en),
            Language::En => (&self.en, &self.ja),
        };
        first.as_ref().or(second.as_ref()).map_or("", |text| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_language_serves_where_one_is_absent() {
        let text = Text {
            ja: Some("出島".into()),
            en: None,
        };
        assert_eq!(text.get(Language::En), "出島");
        assert_eq!(Text::of("出島", "Dejima").get(Language::En), "Dejima");
    }
}
