//! Checks of the repository itself: the walls between the crates, the promises, and what must not stand in any file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::codegen::root;

/// Which crates of ours a crate may import. `DESIGN.md`'s table; a new arrow needs an ADR.
const WALLS: [(&str, &[&str]); 11] = [
    ("dejima-crds", &[]),
    ("dejima-ledger", &[]),
    ("dejima-lab", &[]),
    ("dejima-policy", &["dejima-crds"]),
    ("dejima-plan", &["dejima-crds", "dejima-policy"]),
    ("dejima-hostd", &["dejima-crds", "dejima-plan"]),
    ("dejima-operator", &["dejima-crds", "dejima-policy", "dejima-plan"]),
    ("dejima-api", &["dejima-crds", "dejima-policy", "dejima-ledger"]),
    (
        "dejima",
        &[
            "dejima-crds",
            "dejima-policy",
            "dejima-plan",
            "dejima-ledger",
            "dejima-hostd",
            "dejima-operator",
            "dejima-api",
        ],
    ),
    ("dejima-tests", &["dejima-crds", "dejima-lab"]),
    ("xtask", &["dejima-crds", "dejima-lab"]),
];

/// What a crate may import for its tests alone.
const WALLS_OF_TESTS: [(&str, &str); 1] = [
    // docs/adr/0004: drivers are held to their tests on real parts.
    ("dejima-hostd", "dejima-lab"),
];

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    let mut problems = walls(&root)?;
    problems.extend(promises(&root)?);
    problems.extend(sources(&root)?);
    problems.extend(lints(&root)?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn walls(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output();
    let metadata: Value =
        serde_json::from_slice(&output.context("cannot run `cargo metadata`")?.stdout).context("cannot read `cargo metadata`")?;
    let walls: BTreeMap<&str, &[&str]> = WALLS.into_iter().collect();
    let mut problems = Vec::new();
    for package in metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("`cargo metadata` names no packages")?
    {
        let name = text(package, "name");
        let Some(allowed) = walls.get(name) else {
            problems.push(format!("crate `{name}` stands in no row of the table of walls (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let other = text(dependency, "name");
            let for_tests = text(dependency, "kind") == "dev" && WALLS_OF_TESTS.contains(&(name, other));
            if walls.contains_key(other) && other != name && !allowed.contains(&other) && !for_tests {
                problems.push(format!("crate `{name}` must not import `{other}`"));
            }
        }
    }
    Ok(problems)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Each row of docs/promises.md names a test that exists.
fn promises(root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("docs/promises.md")).context("cannot read docs/promises.md")?;
    let tests: String = tracked(root, "*.rs")?
        .iter()
        .filter_map(|file| std::fs::read_to_string(root.join(file)).ok())
        .collect();
    let mut rows = 0;
    let mut problems = Vec::new();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---") && !line.starts_with("| promise");
    for line in text.lines().filter(is_row) {
        let before = rows;
        for name in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| word.contains('_') && !word.contains([' ', '/', '.']))
        {
            rows += 1;
            if !tests.contains(&format!("fn {name}(")) {
                problems.push(format!("docs/promises.md names the test `{name}`, which is not there"));
            }
        }
        if rows == before {
            problems.push(format!("docs/promises.md: nobody keeps the promise of this row: {line}"));
        }
    }
    if rows == 0 {
        problems.push("docs/promises.md names no test".to_owned());
    }
    Ok(problems)
}

/// What stands in no source file.
fn sources(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in tracked(root, "*.rs")? {
        let text = std::fs::read_to_string(root.join(&file)).with_context(|| format!("cannot read `{file}`"))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let at = format!("{file}:{}", number + 1);
            if line.starts_with("matches!(") && line.ends_with(");") {
                problems.push(format!("{at}: a `matches!` whose answer nobody looks at"));
            }
            if line.starts_with("#[ignore") {
                problems.push(format!("{at}: a test that never runs"));
            }
        }
        if !["tests/", "xtask/"].iter().any(|folder| file.starts_with(folder)) && file.contains("src/") {
            problems.extend(shells(&file, &text));
        }
        let lines = text.lines().count();
        if lines > 700 {
            problems.push(format!("{file}: {lines} lines are two things"));
        }
    }
    Ok(problems)
}

/// What we ship runs programs, each by its name and with a list of words: no shell reads what somebody wrote.
fn shells(file: &str, text: &str) -> Vec<String> {
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut problems = Vec::new();
    for (number, line) in shipped.lines().enumerate() {
        let at = format!("{file}:{}", number + 1);
        let shell = ["sh", "bash", "dash", "ash", "zsh", "busybox", "env", "eval", "xargs", "ssh"];
        if shell
            .iter()
            .any(|name| line.contains(&format!("\"{name}\"")) || line.contains(&format!("bin/{name}\"")))
        {
            problems.push(format!("{at}: a shell, or what is as good as one"));
        }
        if let Some((_, program)) = line.split_once("Command::new(")
            && !program.starts_with('"')
        {
            problems.push(format!("{at}: a program whose name does not stand here"));
        }
    }
    problems
}

/// The one crate with lints of its own has the workspace's, but for `unsafe` (docs/adr/0006).
fn lints(root: &Path) -> Result<Vec<String>> {
    let table = |file: &str, from: &str| -> Result<Vec<String>> {
        let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read `{file}`"))?;
        let lines = text.lines().map(str::trim);
        let inside = lines
            .skip_while(|line| *line != format!("[{from}lints.rust]"))
            .map(|line| line.replace("[workspace.", "["));
        let ours = inside.take_while(|line| !line.starts_with('[') || line.starts_with("[lints."));
        Ok(ours.filter(|line| !line.is_empty() && !line.starts_with('#')).collect())
    };
    let wanted: Vec<String> = table("Cargo.toml", "workspace.")?
        .into_iter()
        .map(|line| line.replace("unsafe_code = \"forbid\"", "unsafe_code = \"deny\""))
        .collect();
    let mut own = table("hostd/Cargo.toml", "")?;
    own.retain(|line| line != "undocumented_unsafe_blocks = \"deny\"");
    let same = wanted == own && wanted.len() > 10;
    Ok(if same {
        Vec::new()
    } else {
        vec!["hostd/Cargo.toml: its lints are not the workspace's".to_owned()]
    })
}

fn tracked(root: &Path, pattern: &str) -> Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern])
        .output();
    let text = String::from_utf8(output.context("cannot run git")?.stdout).context("git prints UTF-8")?;
    Ok(text.lines().map(str::to_owned).filter(|file| root.join(file).exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::shells;

    #[test]
    fn a_shell_is_found_wherever_it_is_started() {
        let found = |text: &str| shells("hostd/src/a.rs", text).len();
        assert_eq!(found("Command::new(\"qemu-img\").arg(user)"), 0);
        assert_eq!(found("Command::new(\"sh\").args([\"-c\", user])"), 1);
        assert_eq!(found("space.run(&[\"/bin/sh\", \"-c\", user])"), 1);
        assert_eq!(found("Command::new(user)"), 1);
        assert_eq!(found("#[cfg(test)]\nCommand::new(\"sh\")"), 0);
    }
}
