//! Objects as Kubernetes has them, as far as Kubernetes lets the caller list them.

use std::collections::BTreeSet;
use std::fmt::Debug;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use dejima_crds::{AccessGrant, Attestation, Dataset, Host, IsolatedProject};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt as _};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;

/// Where to look.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Where {
    pub(crate) namespace: Option<String>,
}

/// What is found.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{K}List")]
pub(crate) struct List<K> {
    /// By namespace and name.
    pub(crate) items: Vec<K>,
}

type Asked = Result<Query<Where>, QueryRejection>;
type Found<K> = Result<Json<List<K>>, Problem>;

/// The namespaces of these that the caller may look into; asked for one, he is refused where he may not.
pub(crate) async fn readable(
    window: &Window,
    caller: &Caller,
    resource: &str,
    asked: Option<&str>,
    there: BTreeSet<String>,
) -> Result<BTreeSet<String>, Problem> {
    let Some(namespace) = asked else {
        return caller.lists(window, resource, there).await;
    };
    // Whether there is such a namespace plays no part.
    if caller.may(window, "list", resource, Some(namespace)).await? {
        Ok(BTreeSet::from([namespace.to_owned()]))
    } else {
        Err(Problem::refused(format!(
            "you may not list {resource} in the namespace {namespace}"
        )))
    }
}

/// Those of one kind, in one namespace or in all that the caller may look into.
async fn in_namespaces<K>(window: &Window, caller: &Caller, asked: Asked) -> Found<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let Query(asked) = asked?;
    let resource = K::plural(&());
    let failed = |error: kube::Error| Problem::ours("cannot list what you ask for", &error);
    let api: Api<K> = match &asked.namespace {
        Some(namespace) => {
            // Refused before anything is looked at.
            readable(window, caller, &resource, Some(namespace), BTreeSet::new()).await?;
            Api::namespaced(window.client.clone(), namespace)
        }
        None => Api::all(window.client.clone()),
    };
    let mut items = api.list(&ListParams::default()).await.map_err(failed)?.items;
    if asked.namespace.is_none() {
        let there = items.iter().filter_map(kube::ResourceExt::namespace).collect();
        let readable = caller.lists(window, &resource, there).await?;
        items.retain(|item| item.namespace().is_some_and(|namespace| readable.contains(&namespace)));
    }
    Ok(Json(List { items: shown(items) }))
}

/// Sorted, and without what only Kubernetes needs.
fn shown<K: Resource<DynamicType = ()>>(mut items: Vec<K>) -> Vec<K> {
    for item in &mut items {
        item.meta_mut().managed_fields = None;
    }
    items.sort_by_key(|item| (item.namespace(), item.name_any()));
    items
}

/// `GET /api/v1/projects`.
pub(crate) async fn projects(State(window): State<Window>, caller: Caller, asked: Asked) -> Found<IsolatedProject> {
    in_namespaces(&window, &caller, asked).await
}

/// `GET /api/v1/datasets`.
pub(crate) async fn datasets(State(window): State<Window>, caller: Caller, asked: Asked) -> Found<Dataset> {
    in_namespaces(&window, &caller, asked).await
}

/// `GET /api/v1/grants`.
pub(crate) async fn grants(State(window): State<Window>, caller: Caller, asked: Asked) -> Found<AccessGrant> {
    in_namespaces(&window, &caller, asked).await
}

/// `GET /api/v1/attestations`.
pub(crate) async fn attestations(State(window): State<Window>, caller: Caller, asked: Asked) -> Found<Attestation> {
    in_namespaces(&window, &caller, asked).await
}

/// `GET /api/v1/hosts`: hosts lie in no namespace.
pub(crate) async fn hosts(State(window): State<Window>, caller: Caller) -> Found<Host> {
    let items = everywhere::<Host>(&window, &caller).await?;
    Ok(Json(List { items }))
}

async fn everywhere<K>(window: &Window, caller: &Caller) -> Result<Vec<K>, Problem>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug,
{
    let resource = K::plural(&());
    if !caller.may(window, "list", &resource, None).await? {
        return Err(Problem::refused(format!("you may not list {resource}")));
    }
    let found = Api::<K>::all(window.client.clone()).list(&ListParams::default()).await;
    let found = found.map_err(|error| Problem::ours("cannot list what you ask for", &error))?;
    Ok(shown(found.items))
}
