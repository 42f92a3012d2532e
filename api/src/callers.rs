//! Who asks, and what Kubernetes lets him do.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret as _, SecretString};

use crate::Window;
use crate::problem::Problem;

/// At most so many questions to Kubernetes at once for one caller.
const AT_ONCE: usize = 8;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The login.
    pub(crate) login: String,
    groups: Vec<String>,
    token: SecretString,
}

impl FromRequestParts<Window> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, window: &Window) -> Result<Self, Problem> {
        let unknown = || {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "send the bearer token that kubectl would send",
            )
        };
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty())
            .ok_or_else(unknown)?;
        let status = known(window, token).await?.ok_or_else(unknown)?;
        let user = status.user.ok_or_else(unknown)?;
        Ok(Self {
            login: user.username.ok_or_else(unknown)?,
            groups: user.groups.unwrap_or_default(),
            token: token.into(),
        })
    }
}

/// Whom Kubernetes knows by a token, if anybody.
async fn known(window: &Window, token: &str) -> Result<Option<TokenReviewStatus>, Problem> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: token.to_owned(),
            audiences: None,
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(window.client.clone());
    let answer = reviews
        .create(&PostParams::default(), &review)
        .await
        .map_err(|error| Problem::ours("cannot ask who is calling", &error))?;
    Ok(answer.status.filter(|status| status.authenticated == Some(true)))
}

impl Caller {
    /// Whether Kubernetes still knows this caller by his token, as the same.
    pub(crate) async fn is_still_known(&self, window: &Window) -> Result<bool, Problem> {
        let user = known(window, self.token.expose_secret()).await?.and_then(|status| status.user);
        Ok(user.is_some_and(|user| user.username.as_deref() == Some(self.login.as_str())))
    }

    /// Whether Kubernetes lets this caller ask for the consoles of a project.
    pub(crate) async fn may_enter(&self, window: &Window, namespace: &str, project: &str) -> Result<bool, Problem> {
        let attributes = ResourceAttributes {
            group: Some(dejima_crds::GROUP.to_owned()),
            resource: Some("isolatedprojects".to_owned()),
            subresource: Some("console".to_owned()),
            verb: Some("create".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(project.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        self.allowed(window, spec).await
    }

    /// Whether Kubernetes lets this caller do something with a resource of ours, in one namespace or anywhere.
    pub(crate) async fn may(&self, window: &Window, verb: &str, resource: &str, namespace: Option<&str>) -> Result<bool, Problem> {
        let attributes = ResourceAttributes {
            group: Some(dejima_crds::GROUP.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        self.allowed(window, spec).await
    }

    /// Whether Kubernetes lets this caller get a path that is no resource.
    pub(crate) async fn may_get_path(&self, window: &Window, path: &str) -> Result<bool, Problem> {
        let attributes = NonResourceAttributes {
            path: Some(path.to_owned()),
            verb: Some("get".to_owned()),
        };
        let spec = SubjectAccessReviewSpec {
            non_resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        self.allowed(window, spec).await
    }

    async fn allowed(&self, window: &Window, spec: SubjectAccessReviewSpec) -> Result<bool, Problem> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(self.login.clone()),
                groups: Some(self.groups.clone()),
                ..spec
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(window.client.clone());
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Problem::ours("cannot ask what you may do", &error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Which of these namespaces this caller may list a resource of ours in.
    pub(crate) async fn lists(&self, window: &Window, resource: &str, namespaces: BTreeSet<String>) -> Result<BTreeSet<String>, Problem> {
        if namespaces.is_empty() || self.may(window, "list", resource, None).await? {
            return Ok(namespaces);
        }
        let ask = |namespace: String| async move {
            let may = self.may(window, "list", resource, Some(&namespace)).await?;
            Ok(may.then_some(namespace))
        };
        let answers = futures::stream::iter(namespaces).map(ask).buffer_unordered(AT_ONCE);
        answers.try_filter_map(|found| async move { Ok(found) }).try_collect().await
    }

    /// The API server with this caller's own token: what he changes is changed by him.
    pub(crate) fn client(&self, window: &Window) -> Result<Client, Problem> {
        (window.of)(self.token.clone()).map_err(|error| Problem::ours("cannot speak with your token", &error))
    }
}
