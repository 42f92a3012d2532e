//! Before anything is installed: what that would be, and whether to go on. Pure: who asks reads and writes.

use dejima_lab::packages::Package;

/// How it was called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    /// Whether yes was said beforehand.
    pub(crate) yes: bool,
    /// Whether it is CI.
    pub(crate) ci: bool,
    /// Whether somebody sits at a terminal.
    pub(crate) terminal: bool,
}

/// What is asked before these packages are installed; nothing where there is nothing to ask, or nobody.
pub(crate) fn question(called: Called, missing: &[Package]) -> Option<String> {
    let Called { yes, ci, terminal } = called;
    if missing.is_empty() || yes || ci || !terminal {
        return None;
    }
    let mut lines =
        vec!["These packages of the distribution are missing and will be installed; none of their services is started:".to_owned()];
    lines.extend(missing.iter().map(|Package { name, why }| format!("    {name:<28} {why}")));
    lines.push(
        "Into the user's cache go: Kubernetes built from its Go module, OpenBao and DICOM images from the Python index, and the builds."
            .to_owned(),
    );
    lines.push("Go on? [Y/n] ".to_owned());
    Some(lines.join("\n"))
}

/// Whether an answer, as it was read, lets it go on. An empty line does; a terminal that was closed does not.
pub(crate) fn is_yes(answer: &str) -> bool {
    let words = answer.trim().to_lowercase();
    answer == "\n" || ["y", "yes"].contains(&words.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLED: Called = Called {
        yes: false,
        ci: false,
        terminal: true,
    };

    fn missing(names: &[&str]) -> Vec<Package> {
        let package = |name: &&str| Package {
            name: (*name).to_owned(),
            why: format!("what {name} is for"),
        };
        names.iter().map(package).collect()
    }

    #[test]
    fn whoever_sits_at_a_terminal_is_asked_once_about_everything_that_is_missing() {
        let asked = question(CALLED, &missing(&["one", "two"])).unwrap();
        for said in [
            "one",
            "what one is for",
            "two",
            "what two is for",
            "none of their services is started",
        ] {
            assert!(asked.contains(said), "{asked}");
        }
        assert!(asked.ends_with("Go on? [Y/n] ") && asked.matches('?').count() == 1, "{asked}");
    }

    #[test]
    fn nobody_is_asked_who_said_yes_or_is_not_there_or_where_nothing_is_missing() {
        let one = missing(&["one"]);
        assert_eq!(question(Called { yes: true, ..CALLED }, &one), None);
        assert_eq!(question(Called { ci: true, ..CALLED }, &one), None);
        assert_eq!(question(Called { terminal: false, ..CALLED }, &one), None);
        assert_eq!(question(CALLED, &[]), None);
        assert!(question(CALLED, &one).is_some(), "the control");
    }

    #[test]
    fn an_empty_line_is_a_yes_and_a_closed_terminal_is_none() {
        for yes in ["\n", "y\n", "Y\n", "yes\r\n", " Yes \n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "n\n", "no\n", "nay\n", "yesterday\n", " \n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
