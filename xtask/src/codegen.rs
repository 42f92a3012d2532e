//! Files that are generated from code and committed: a check proves them fresh.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Writes the generated files, or, with `check`, names the stale ones.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = root()?;
    let mut stale = Vec::new();
    for definition in dejima_crds::all() {
        let name = definition.metadata.name.clone().context("a definition without a name")?;
        let path = root.join("charts/dejima/crds").join(format!("{name}.yaml"));
        let text = serde_yaml::to_string(&definition).with_context(|| format!("cannot write `{name}` as YAML"))?;
        let text = quoted(&text);
        if fs::read_to_string(&path).ok().as_deref() == Some(text.as_str()) {
            continue;
        }
        if check {
            stale.push(path);
        } else {
            write(&path, &text)?;
        }
    }
    if !stale.is_empty() {
        bail!("stale, run `cargo xtask codegen`: {stale:?}");
    }
    Ok(())
}

/// With quotes around words that YAML 1.1, which kubectl and Helm read, takes for truth values: `NO` is Norway.
fn quoted(text: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("- ") {
        Some(word) if ["y", "n", "yes", "no", "on", "off"].contains(&word.to_ascii_lowercase().as_str()) => {
            format!("{}'{word}'\n", line.strip_suffix(word).unwrap_or_default())
        }
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// The root of the repository.
pub(crate) fn root() -> Result<PathBuf> {
    // What runs is asked, not what was built: one target directory may serve several checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here)
        .parent()
        .map(Path::to_path_buf)
        .context("xtask lies in no repository")
}

#[cfg(test)]
mod tests {
    #[test]
    fn norway_is_a_country_for_every_reader_of_yaml() {
        assert_eq!(
            super::quoted("enum:\n- NL\n  - NO\n- note: no\n"),
            "enum:\n- NL\n  - 'NO'\n- note: no\n"
        );
    }
}
