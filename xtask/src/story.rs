//! The story: one manifest, one sealed project, end to end, on real parts; each step with what was measured.
//!
//! Everything goes through kubectl and the binary `dejima`, each person under his own login. What is shown was asked of the platform, and of
//! the running machine itself; a step whose claim does not hold ends the story with an error.

mod access;
mod ends;
mod inside;
mod outside;
mod project;
mod screen;
mod seal;

use std::time::Instant;

use anyhow::{Context, Result, bail};
use dejima_lab::people::{ADMIN, LEAD, OFFICE, OTHER_LEAD};
use dejima_lab::{Agent, Platform};
use serde_json::Value;

use crate::codegen::root;
use crate::up::PROVIDER_SPACE;
use screen::{line, screen};

/// How much of it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All eight steps.
    Whole,
    /// Steps 2, 3, 6 and 7, over the dataset that is sealed already.
    Short,
}

/// The label of namespaces that the story made: what stands in them is cleaned away.
const LABEL: &str = "example.org/story=true";

/// A tenant of the story.
#[derive(Clone, Debug)]
struct Tenant {
    /// Its namespace.
    space: String,
    /// The lead of its project.
    lead: &'static str,
    /// Its institution (ROR).
    ror: &'static str,
    /// The project.
    project: &'static str,
    /// What its machine boots.
    image: &'static str,
    /// The dataset that it asks for.
    dataset: &'static str,
}

impl Tenant {
    fn reference(&self) -> String {
        format!("{}/{}", self.space, self.project)
    }
}

/// The story as it is told.
struct Story<'a> {
    platform: &'a mut Platform,
    /// The tenant whose project is followed.
    osaka: Tenant,
    /// The tenant beside it, whose guest does no hot-plug.
    kyoto: Tenant,
    /// A look into the machine of the first.
    agent: Option<Agent>,
    begun: Instant,
}

/// Tells it; leaves no project behind.
pub(crate) fn tell(platform: &mut Platform, which: Which) -> Result<()> {
    let begun = Instant::now();
    let number = clean(platform)? + 1;
    let tenant = |city: &str, lead, ror, project, image| Tenant {
        space: format!("{city}-{number}"),
        lead,
        ror,
        project,
        image,
        dataset: "ct-mr",
    };
    let mut story = Story {
        osaka: tenant("osaka", LEAD, "035t8zc32", "liver-ct", "probe"),
        kyoto: tenant("kyoto", OTHER_LEAD, "02kpeqv85", "beside", "probe-hostile"),
        platform,
        agent: None,
        begun,
    };
    let sealed = story.platform.world.condition(PROVIDER_SPACE, "dataset", "ct-mr", "Mountable").0 == "True";
    let whole = which == Which::Whole || !sealed;
    let told = story.steps(whole);
    if let Err(error) = &told {
        line(&format!("the story broke off: {error:#}"))?;
        line(&story.platform.report())?;
        story.revive()?;
    }
    clean(story.platform)?;
    told?;
    let seconds = begun.elapsed().as_secs_f64();
    line(&format!(
        "\nThe story took {seconds:.1} s. Its projects are gone and the hosts are free."
    ))
}

/// Deletes the projects that stories made; the highest number that one of them had.
fn clean(platform: &Platform) -> Result<u32> {
    let world = &platform.world;
    let listed = world.run(ADMIN, &["get", "namespaces", "-l", LABEL, "-o", "name"]).ok()?;
    let mut highest = 0;
    for space in listed.lines().filter_map(|line| line.strip_prefix("namespace/")) {
        world
            .run(ADMIN, &["delete", "isolatedprojects", "--all", "-n", space, "--timeout=60s"])
            .ok()?;
        let number = space.rsplit('-').next().and_then(|number| number.parse().ok());
        highest = highest.max(number.unwrap_or(0));
    }
    Ok(highest)
}

impl Story<'_> {
    fn steps(&mut self, whole: bool) -> Result<()> {
        if whole {
            self.data_is_sealed()?;
        }
        self.a_project_is_applied(whole)?;
        self.everybody_agrees()?;
        if whole {
            self.inside_the_machine()?;
            self.an_address_answers()?;
        }
        self.beside_each_other(whole)?;
        self.access_ends(whole)?;
        self.the_project_ends()?;
        if whole {
            self.in_plain_words()?;
        }
        Ok(())
    }

    /// Starts again what a step has stopped.
    fn revive(&mut self) -> Result<()> {
        if !self.platform.runs("dejima-api") {
            self.platform.start_api()?;
        }
        if !self.platform.runs("operator") {
            self.platform.start_operator(None)?;
        }
        Ok(())
    }

    /// A look into the machine of the tenant that is followed.
    fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the machine was not looked into yet")
    }

    /// Begins a step.
    fn chapter(&self, number: u32, title: &str) -> Result<()> {
        let at = self.begun.elapsed().as_secs_f64();
        line(&format!("\n{number}. {title:<92} {at:>6.1} s"))
    }

    /// Runs kubectl as a login and shows what it said.
    fn shows(&self, login: &str, arguments: &[&str]) -> Result<()> {
        let text = self.platform.world.run(login, arguments).ok()?;
        screen(&format!("kubectl {}", arguments.join(" ")), login, &text)
    }

    /// Runs the binary as a login and shows what it said.
    fn dejima_shows(&self, login: &str, arguments: &[&str]) -> Result<()> {
        let text = self.dejima(login, arguments)?;
        screen(&format!("kubectl dejima {}", arguments.join(" ")), login, &text)
    }

    /// Runs the binary as a login, which must end well; what it said.
    fn dejima(&self, login: &str, arguments: &[&str]) -> Result<String> {
        let output = self.platform.dejima(login, arguments)?;
        if !output.status.success() {
            let words = arguments.join(" ");
            bail!("`dejima {words}` as {login}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits for something.
    fn awaits(&self, what: &str, seconds: u64, so: impl FnMut() -> bool) -> Result<()> {
        Ok(self.platform.eventually(what, seconds, so)?)
    }

    /// An object as the admin sees it.
    fn object(&self, tenant: &Tenant) -> Value {
        let world = &self.platform.world;
        // What is not there has no fields.
        world.get(&tenant.space, "isolatedproject", tenant.project).unwrap_or_default()
    }

    /// A tenant's namespace: its group may work there, and the office says who the tenant is.
    fn tenant_space(&self, tenant: &Tenant) -> Result<()> {
        let world = &self.platform.world;
        if world.run(ADMIN, &["get", "namespace", &tenant.space]).accepted {
            return Ok(());
        }
        let group = format!("dejima.dev/tenant-{}", tenant.space.split('-').next().unwrap_or_default());
        world.namespace(&tenant.space, &[("dejima-tenant", &group)])?;
        world.run(ADMIN, &["label", "namespace", &tenant.space, LABEL]).ok()?;
        let institution = format!("dejima.dev/institution={}", tenant.ror);
        let labels = [&institution, "dejima.dev/org-kind=public", "dejima.dev/country=JP"];
        world
            .run(OFFICE, &[&["label", "namespace", &tenant.space][..], &labels[..]].concat())
            .ok()
            .map(drop)
            .map_err(Into::into)
    }
}

/// An example manifest as the story's tenants and the provider apply it.
fn example(name: &str, replace: &[(&str, &str)]) -> Result<String> {
    let path = root()?.join("examples").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    for (from, _) in replace {
        if !text.contains(from) {
            bail!("`{}` does not say `{from}`", path.display());
        }
    }
    Ok(replace.iter().fold(text, |text, (from, to)| text.replace(from, to)))
}

/// A text at a place in an object; empty where there is none.
fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The items of a list at a place in an object.
fn items(value: &Value, pointer: &str) -> Vec<Value> {
    value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}
