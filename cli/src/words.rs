//! The language of answers: what was asked for, else what the locale says, else English.

use clap::ValueEnum;
use dejima_crds::text::Language;

/// A language on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Lang {
    /// Japanese
    Ja,
    /// English
    En,
}

/// The language to answer in.
pub(crate) fn language(asked: Option<Lang>) -> Language {
    let from_locale = || {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        if locale.is_some_and(|locale| locale.starts_with("ja")) {
            Language::Ja
        } else {
            Language::En
        }
    };
    match asked {
        Some(Lang::Ja) => Language::Ja,
        Some(Lang::En) => Language::En,
        None => from_locale(),
    }
}
