//! Who asks, and what Kubernetes lets him do.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use crate::Window;
use crate::problem::Problem;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The login.
    pub(crate) login: String,
    groups: Vec<String>,
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
        let status = answer
            .status
            .filter(|status| status.authenticated == Some(true))
            .ok_or_else(unknown)?;
        let user = status.user.ok_or_else(unknown)?;
        Ok(Self {
            login: user.username.ok_or_else(unknown)?,
            groups: user.groups.unwrap_or_default(),
        })
    }
}

impl Caller {
    /// Whether Kubernetes lets this caller do something with a resource of ours, anywhere.
    pub(crate) async fn may(&self, window: &Window, verb: &str, resource: &str) -> Result<bool, Problem> {
        let attributes = ResourceAttributes {
            group: Some(dejima_crds::GROUP.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(self.login.clone()),
            groups: Some(self.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(window.client.clone());
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Problem::ours("cannot ask what you may do", &error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
