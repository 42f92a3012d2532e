//! `cargo xtask up` and `down`: a platform on this machine that stays, to play with.

use std::fs::{self, File};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use dejima_lab::children::Stay;
use dejima_lab::packages::Package;
use dejima_lab::platform::{Names, end};
use dejima_lab::{Binaries, Guest, Platform, Setup, ToStderr, cache, dicom, packages, people};

use crate::codegen::root;
use crate::consent::{self, Called};
use crate::step::{say, shown, step};
use crate::story::{self, Which};

/// The hosts that run machines.
pub(crate) const MACHINES: [&str; 2] = ["host-a", "host-b"];
/// The host that seals.
pub(crate) const INTAKE: &str = "intake-1";
/// The namespace of the provider, which the intake root is for.
pub(crate) const PROVIDER_SPACE: &str = "jichi";

/// What `up` does.
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Installs what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Shows the whole story again, on a platform that runs already
    #[arg(long)]
    story: bool,
    /// Shows no story
    #[arg(long, conflicts_with = "story")]
    without_story: bool,
    /// The directory of the platform; another one is another platform
    #[arg(long, env = "DEJIMA_UP")]
    dir: Option<PathBuf>,
    /// A binary `dejima` to run as it is, instead of one that is built first
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
    /// One more package of the distribution that is to be there
    #[arg(long, hide = true, value_name = "PACKAGE")]
    also_needs: Vec<String>,
}

/// What `down` does.
#[derive(Debug, Args)]
pub(crate) struct DownArguments {
    /// The directory of the platform
    #[arg(long, env = "DEJIMA_UP")]
    dir: Option<PathBuf>,
}

fn names() -> Names<'static> {
    Names {
        machines: &MACHINES,
        others: &[INTAKE],
    }
}

fn setup(dir: Option<PathBuf>) -> Result<Setup> {
    let dir = dir.unwrap_or_else(|| cache::root().join("up"));
    // Hosts lie elsewhere, under a name: it is the directory's own, so that two platforms are two.
    let name = format!("up-{}", cache::key(&[dir.as_os_str().as_encoded_bytes()]));
    Ok(Setup {
        name,
        program: dir.join("bin/dejima"),
        chart: root()?.join("charts/dejima"),
        people: people::cast(),
        stay: Stay::UntilStopped,
        dir,
    })
}

/// One `up` or `down` at a time; the lock goes with the file.
fn lock(setup: &Setup) -> Result<File> {
    let path = setup.dir.with_extension("lock");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    let file = File::create(&path).with_context(|| format!("cannot open `{}`", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another `cargo xtask up` or `down` is at work on `{}`", setup.dir.display());
    }
    Ok(file)
}

/// Starts a platform, or finds the one that runs, and shows the story.
pub(crate) fn up(arguments: UpArguments) -> Result<()> {
    if !is_root()? {
        bail!("`cargo xtask up` makes namespaces and installs packages: run it as root");
    }
    let also = arguments.also_needs.into_iter().map(|name| Package {
        name,
        why: "named with --also-needs".to_owned(),
    });
    let missing = packages::missing(packages::needed().into_iter().chain(also).collect())?;
    ask(arguments.yes, &missing)?;
    let setup = setup(arguments.dir)?;
    let _lock = lock(&setup)?;
    step("packages", || Ok(packages::install_these(&missing, &ToStderr)?))?;
    let binaries = step("Kubernetes and the key server", || Ok(Binaries::get(&ToStderr)?))?;
    let built = match arguments.program {
        Some(program) => program,
        None => step("the binary dejima", build)?,
    };
    step("the guest and real images", || {
        Guest::get(&ToStderr)?;
        dicom::images(&ToStderr)?;
        Ok(())
    })?;
    let print = fingerprint(&setup, &built)?;
    let same = fs::read_to_string(setup.dir.join(PRINT)).is_ok_and(|kept| kept == print);
    let running = same.then(|| Platform::again(&binaries, setup.clone(), names())).flatten();
    let (mut platform, which) = if let Some(platform) = running {
        say("==> a platform runs already and is used again");
        (platform, if arguments.story { Which::Whole } else { Which::Short })
    } else {
        let platform = step("a platform", || fresh(&binaries, &setup, &built))?;
        fs::write(setup.dir.join(PRINT), print).context("cannot keep what the platform was made from")?;
        (platform, Which::Whole)
    };
    if !arguments.without_story {
        story::tell(&mut platform, which)?;
    }
    tell(&platform)
}

/// Ends the platform and removes what it made. Built and fetched things stay in the cache.
pub(crate) fn down(arguments: DownArguments) -> Result<()> {
    let setup = setup(arguments.dir)?;
    let _lock = lock(&setup)?;
    step("down", || Ok(end(&setup, names())?))?;
    let path = setup.dir.with_extension("lock");
    fs::remove_file(&path).with_context(|| format!("cannot remove `{}`", path.display()))
}

fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read who this is")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    // Real, effective, saved, file system.
    Ok(line.split_whitespace().nth(1) == Some("0"))
}

/// Says what will be installed, and on a terminal asks once.
fn ask(yes: bool, missing: &[Package]) -> Result<()> {
    let called = Called {
        yes,
        ci: std::env::var_os("CI").is_some(),
        terminal: std::io::stdin().is_terminal(),
    };
    let Some(question) = consent::question(called, missing) else {
        return Ok(());
    };
    write!(std::io::stderr(), "{question}").context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    if !consent::is_yes(&answer) {
        bail!("nothing was installed, and nothing was changed");
    }
    Ok(())
}

/// Builds the binary, without the seam for faults; where it lies.
fn build() -> Result<PathBuf> {
    let root = root()?;
    shown(
        Command::new("cargo")
            .current_dir(&root)
            .args(["build", "--quiet", "--package", "dejima"]),
    )?;
    // This very program lies beside it.
    let here = std::env::current_exe().context("this program has no path")?;
    Ok(here.with_file_name("dejima"))
}

/// The file that says what a platform was made from.
const PRINT: &str = "made-from";

/// What the platform is made from: another binary or chart is another platform.
fn fingerprint(setup: &Setup, built: &Path) -> Result<String> {
    let mut parts = vec![fs::read(built).with_context(|| format!("cannot read `{}`", built.display()))?];
    for folder in ["crds", "templates"] {
        let folder = setup.chart.join(folder);
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            parts.push(fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?);
        }
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(cache::key(&parts))
}

/// A platform from nothing; what is left of an earlier one goes first.
fn fresh(binaries: &Binaries, setup: &Setup, built: &Path) -> Result<Platform> {
    end(setup, names())?;
    let bin = setup.dir.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make `{}`", bin.display()))?;
    // A copy: the next build must not change what runs.
    fs::copy(built, &setup.program).context("cannot copy the binary")?;
    for (name, target) in [("kubectl-dejima", setup.program.clone()), ("kubectl", binaries.program("kubectl"))] {
        std::os::unix::fs::symlink(&target, bin.join(name)).with_context(|| format!("cannot link `{name}`"))?;
    }
    let mut platform = Platform::start(binaries, setup.clone())?;
    platform.start_operator(None)?;
    platform.install_probe_image(None, &ToStderr)?;
    for host in MACHINES {
        platform.add_machine_host(host, "{roles: [machines]}")?;
    }
    platform.add_host(
        INTAKE,
        &format!("{{roles: [intake], intake: [{{namespace: {PROVIDER_SPACE}, path: {PROVIDER_SPACE}}}]}}"),
    )?;
    fs::create_dir_all(platform.sources(INTAKE)?.join(PROVIDER_SPACE)).context("cannot make the intake root")?;
    platform.start_host(INTAKE, None)?;
    Ok(platform)
}

/// What there is now, and what to try.
fn tell(platform: &Platform) -> Result<()> {
    let plane = platform.world.plane();
    let bin = platform.dir().join("bin");
    let mut lines = vec![
        String::new(),
        "The platform runs; `cargo xtask down` ends it and leaves nothing behind.".to_owned(),
        String::new(),
        format!("  export PATH={}:$PATH", bin.display()),
        format!("  export KUBECONFIG={}", plane.kubeconfig(people::ADMIN).display()),
        String::new(),
        format!("  API server  {}", plane.server()),
        format!("  Dejima API  {}/api/v1/records", platform.api_address()),
        format!("  key server  {}", platform.keys.address()),
        String::new(),
        "Logins, each with a kubeconfig of its own (kubectl --kubeconfig FILE):".to_owned(),
    ];
    for person in plane.people() {
        lines.push(format!("  {:<28} {}", person.login, plane.kubeconfig(&person.login).display()));
    }
    lines.extend([
        String::new(),
        "Try next:".to_owned(),
        "  kubectl get hosts,datasets,isolatedprojects,accessgrants -A".to_owned(),
        format!("  kubectl describe dataset ct-mr -n {PROVIDER_SPACE}"),
        "  kubectl explain isolatedproject.spec".to_owned(),
        "  kubectl create namespace osaka-radiology && kubectl apply -f examples/isolatedproject-story.yaml".to_owned(),
        "  kubectl dejima explain project osaka-radiology/liver-ct".to_owned(),
        "  cargo xtask up --story        # the whole story again".to_owned(),
        String::new(),
    ]);
    let text = lines.join("\n");
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
}
