//! Steps 2, 3 and 5: projects are applied, everybody agrees, and two stand beside each other.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use dejima_lab::people::{ADMIN, BOARD_JICHI, BOARD_PLATFORM, OFFICE, PROVIDER};
use serde_json::{Value, json};

use super::inside::{CANARY, digests, digests_inside, writing_fails};
use super::screen::{refused, says, took};
use super::{Story, Tenant, example, items, text};
use crate::up::{INTAKE, PROVIDER_SPACE};

impl Story<'_> {
    pub(super) fn a_project_is_applied(&mut self, whole: bool) -> Result<()> {
        self.chapter(2, "A research group applies one manifest")?;
        let osaka = self.osaka.clone();
        self.tenant_space(&osaka)?;
        let begun = Instant::now();
        self.create(&osaka, &[])?;
        if !whole {
            // Its machine boots while the first is looked at.
            let kyoto = self.kyoto.clone();
            self.tenant_space(&kyoto)?;
            self.create(&kyoto, &[])?;
        }
        let host = self.platform.ready(&osaka.space, osaka.project, 120)?;
        took(
            &format!("{} is ready on {host}, which nobody else may use", osaka.reference()),
            begun,
        )?;
        let (_, _, sealed) = self
            .platform
            .world
            .condition(&osaka.space, "isolatedproject", osaka.project, "NetworkSealed");
        says(&format!("its network was proved before: {sealed}"))?;
        self.awaits("every reason why the dataset waits", 30, || {
            let codes = self.codes(&osaka);
            codes.contains(&"ReviewPending".to_owned()) && codes.contains(&"Unattested".to_owned())
        })?;
        self.shows(osaka.lead, &["get", "isolatedprojects", "-n", &osaka.space])?;
        self.dejima_shows(osaka.lead, &["explain", "project", &osaka.reference(), "--lang", "en"])?;
        let grant = self.grant(&osaka)?;
        says(&format!("a request stands in the provider's namespace: {grant}"))?;
        self.agent = Some(self.look_into(&host)?);
        took("its machine runs and answers", begun)
    }

    /// A tenant's lead creates the story's project, with more of its text replaced.
    pub(super) fn create(&self, tenant: &Tenant, more: &[(&str, &str)]) -> Result<()> {
        let replace = [
            ("namespace: osaka-radiology", format!("namespace: {}", tenant.space)),
            ("name: liver-ct", format!("name: {}", tenant.project)),
            ("ror.org/035t8zc32", format!("ror.org/{}", tenant.ror)),
            ("lead@osaka.example", tenant.lead.to_owned()),
            ("name: ct-mr,", format!("name: {},", tenant.dataset)),
            (
                "image: probe",
                format!("image: {}, userData: \"#!/bin/sh\\necho {CANARY} > /run/told\\n\"", tenant.image),
            ),
        ];
        let replace = replace.iter().map(|(from, to)| (*from, to.as_str()));
        let replace: Vec<(&str, &str)> = replace.chain(more.iter().copied()).collect();
        let manifest = example("isolatedproject-story.yaml", &replace)?;
        self.platform.world.create(tenant.lead, &manifest).ok()?;
        Ok(())
    }

    /// The codes of all reasons why a project's first dataset waits.
    pub(super) fn codes(&self, tenant: &Tenant) -> Vec<String> {
        let reasons = items(&self.object(tenant), "/status/datasets/0/reasons");
        reasons.iter().map(|reason| text(reason, "/code")).collect()
    }

    /// The request, or grant, of a project.
    pub(super) fn grant(&self, tenant: &Tenant) -> Result<String> {
        let find = || -> Option<String> {
            let listed = self
                .platform
                .world
                .run(PROVIDER, &["get", "accessgrants", "-n", PROVIDER_SPACE, "-o", "json"]);
            let listed: Value = serde_json::from_str(&listed.text).ok()?;
            items(&listed, "/items")
                .iter()
                .find(|grant| text(grant, "/spec/project/namespace") == tenant.space && text(grant, "/spec/project/name") == tenant.project)
                .map(|grant| text(grant, "/metadata/name"))
        };
        self.awaits(&format!("a request of {}", tenant.reference()), 30, || find().is_some())?;
        Ok(format!("{PROVIDER_SPACE}/{}", find().context("a request stays")?))
    }

    pub(super) fn everybody_agrees(&mut self) -> Result<()> {
        self.chapter(3, "Everybody agrees, each under his own login, and nobody for another")?;
        let osaka = self.osaka.clone();
        let grant = self.grant(&osaka)?;
        let name = grant.rsplit('/').next().unwrap_or_default().to_owned();
        let patch = |login: &str, patch: &Value| {
            self.platform
                .world
                .patch(login, PROVIDER_SPACE, "accessgrant", &name, &patch.to_string())
        };
        let line = |reviewer: &str, org: &str| json!([{"op": "add", "path": "/spec/reviews", "value": [{"reviewer": reviewer, "org": format!("https://ror.org/{org}"), "decision": "approve"}]}]);
        let other = patch(BOARD_JICHI, &line(BOARD_PLATFORM, "04ksd4g47"));
        refused("a review in somebody else's name", &other, "only under the login it names")?;
        let organisation = patch(BOARD_JICHI, &line(BOARD_JICHI, "04ksd4g47"));
        refused("a review for an organisation of others", &organisation, "a group of this login")?;
        let changed = patch(
            PROVIDER,
            &json!([{"op": "replace", "path": "/spec/request/country", "value": "US"}]),
        );
        refused("a change of the request under review", &changed, "never change")?;
        let own = self
            .platform
            .dejima(osaka.lead, &["attest", "project", &osaka.reference(), "ethics"])?;
        if own.status.success() {
            bail!("a lead vouched for his own project");
        }
        says("refused: a lead vouches for his own ethics approval")?;

        let begun = Instant::now();
        self.agree(&osaka)?;
        says("the office vouches, two reviewers approve, the lead accepts the terms: nobody else was asked")?;
        self.mounted(&osaka)?;
        let source = digests(&self.platform.sources(INTAKE)?.join(PROVIDER_SPACE).join("ct-mr"))?;
        let agent = self.agent()?;
        self.files_inside(agent, source.len())?;
        took("from the first word to the data in the running machine", begun)?;
        self.shows(osaka.lead, &["get", "isolatedprojects", "-n", &osaka.space])?;
        self.shows(PROVIDER, &["get", "accessgrant", &name, "-n", PROVIDER_SPACE])?;
        let begun = Instant::now();
        let seen = digests_inside(agent, "/data/ct-mr")?;
        if seen != source {
            bail!(
                "the machine sees {} files, and not those of the source ({})",
                seen.len(),
                source.len()
            );
        }
        took(
            &format!(
                "in the machine: {} files at /data/ct-mr, each with the digest of its source",
                seen.len()
            ),
            begun,
        )?;
        writing_fails(agent)
    }

    /// Everybody says yes to a project's request.
    pub(super) fn agree(&self, tenant: &Tenant) -> Result<()> {
        let grant = self.grant(tenant)?;
        self.dejima(OFFICE, &["attest", "project", &tenant.reference(), "ethics"])?;
        for reviewer in [BOARD_JICHI, BOARD_PLATFORM] {
            self.dejima(reviewer, &["review", "approve", &grant])?;
        }
        let dataset = format!("{PROVIDER_SPACE}/ct-mr");
        self.dejima(tenant.lead, &["terms", "accept", &dataset, "--project", &tenant.reference()])
            .map(drop)
    }

    /// Waits until the platform says that a project's dataset is mounted.
    pub(super) fn mounted(&self, tenant: &Tenant) -> Result<()> {
        self.awaits(&format!("the dataset in {}", tenant.reference()), 60, || {
            text(&self.object(tenant), "/status/summary/datasets") == "1/1"
        })
    }

    pub(super) fn beside_each_other(&mut self, whole: bool) -> Result<()> {
        let kyoto = self.kyoto.clone();
        if !whole {
            self.platform.ready(&kyoto.space, kyoto.project, 120)?;
            return Ok(());
        }
        self.chapter(5, "A second tenant beside it; a third waits, and is told for what")?;
        let begun = Instant::now();
        self.tenant_space(&kyoto)?;
        self.create(&kyoto, &[])?;
        let host = self.platform.ready(&kyoto.space, kyoto.project, 120)?;
        took(&format!("{} is ready on {host}", kyoto.reference()), begun)?;
        let third = Tenant {
            project: "third",
            ..kyoto.clone()
        };
        self.create(&third, &[])?;
        let placed = || {
            self.platform
                .world
                .condition(&third.space, "isolatedproject", third.project, "Placed")
        };
        self.awaits("the third waits", 30, || placed().1 == "NoHost")?;
        says(&format!("the third waits: {}", placed().2))?;
        let words = ["delete", "isolatedproject", third.project, "-n", &third.space, "--timeout=30s"];
        self.platform.world.run(third.lead, &words).ok()?;
        self.shows(ADMIN, &["get", "hosts"])
    }
}
