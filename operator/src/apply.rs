//! Writes to the API server: each with the resource version it was planned from, each through the gate.

use dejima_crds::names;
use dejima_plan::effect::{Effect, through};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Context;
use crate::pass::{Error, Pass, failed};
use crate::seen::Memory;

/// The namespace of the platform's own objects.
pub const SYSTEM: &str = "dejima-system";
const MEMORY: &str = "dejima-admission";

/// The name under which an object's effects are known: kind and names, no UIDs.
fn effect_name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let kind = K::kind(&()).to_lowercase();
    // Plans and requests are named by UIDs; where they stand says enough.
    let name = if kind == "hostplan" || kind == "accessgrant" {
        String::new()
    } else {
        format!("/{}", object.name_any())
    };
    match object.namespace() {
        Some(namespace) => format!("{kind}/{namespace}{name}"),
        None => format!("{kind}{name}"),
    }
}

/// Merges a patch into an object, if it is still the one that was planned from.
pub async fn patch<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    mut change: serde_json::Value,
    status: bool,
    verb: &'static str,
) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    if let (Some(version), Some(fields)) = (object.resource_version(), change.as_object_mut()) {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".to_owned(), version.into());
        }
    }
    let name = object.name_any();
    let parameters = PatchParams {
        field_manager: Some(names::OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    let effect = Effect::new(effect_name(object), verb);
    through(context.gate.as_ref(), effect, async {
        let patch = Patch::Merge(&change);
        let written = if status {
            api.patch_status(&name, &parameters, &patch).await
        } else {
            api.patch(&name, &parameters, &patch).await
        };
        written.map_err(failed("write", &name))
    })
    .await
}

/// Puts our finalizer on an object, or takes it off.
pub async fn finalize<K>(context: &Context, pass: &Pass<'_>, object: &K, put_on: bool) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let others = object
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != names::FINALIZER)
        .cloned();
    let finalizers: Vec<String> = others.chain(put_on.then(|| names::FINALIZER.to_owned())).collect();
    let api = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let verb = if put_on { "finalize" } else { "unfinalize" };
    let written = patch(context, &api, object, json!({"metadata": {"finalizers": finalizers}}), false, verb).await?;
    pass.watched.wrote(&written);
    Ok(written)
}

/// Fails where an object is not any more as we have it: before something is made for it that somebody would have to end. A write
/// on the object itself is refused where our copy is old; what is made beside it would stand.
pub async fn confirm<K>(context: &Context, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let api: Api<K> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let found = api.get_metadata_opt(&name).await.map_err(failed("read", &name))?;
    let same = found.is_some_and(|found| (found.uid(), found.resource_version()) == (object.uid(), object.resource_version()));
    if same { Ok(()) } else { Err(Error::Old(name)) }
}

/// Replaces the status of an object whole, if the object is still the one that was planned from.
pub async fn replace_status<K>(context: &Context, api: &Api<K>, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let name = object.name_any();
    let parameters = PostParams {
        field_manager: Some(names::OPERATOR.to_owned()),
        ..PostParams::default()
    };
    let effect = Effect::new(format!("{}/status", effect_name(object)), "write");
    through(context.gate.as_ref(), effect, async {
        api.replace_status(&name, &parameters, object)
            .await
            .map_err(failed("write the status of", &name))
    })
    .await
}

/// Makes an object; one that is there already is as good.
pub async fn create<K>(context: &Context, api: &Api<K>, object: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let name = object.name_any();
    let parameters = PostParams {
        field_manager: Some(names::OPERATOR.to_owned()),
        ..PostParams::default()
    };
    let effect = Effect::new(effect_name(object), "create");
    through(context.gate.as_ref(), effect, async {
        match api.create(&parameters, object).await {
            Ok(made) => Ok(Some(made)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(failed("create", &name)(error)),
        }
    })
    .await
}

/// Replaces an object whole, if it is still the one that was planned from.
pub async fn replace<K>(context: &Context, api: &Api<K>, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let name = object.name_any();
    let parameters = PostParams {
        field_manager: Some(names::OPERATOR.to_owned()),
        ..PostParams::default()
    };
    let effect = Effect::new(effect_name(object), "replace");
    through(context.gate.as_ref(), effect, async {
        api.replace(&name, &parameters, object).await.map_err(failed("replace", &name))
    })
    .await
}

/// Deletes an object, if it is still the one of this UID; one that is gone already is as good.
pub async fn delete<K>(context: &Context, api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let name = object.name_any();
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let effect = Effect::new(effect_name(object), "delete");
    through(context.gate.as_ref(), effect, async {
        match api.delete(&name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(failed("delete", &name)(error)),
        }
    })
    .await
}

/// Says what a ConfigMap of ours holds, whoever wrote it before. Its effect has a name of its own, since ours may bear UIDs.
pub async fn config_map(context: &Context, namespace: &str, wanted: &ConfigMap, effect: &str, verb: &'static str) -> Result<(), Error> {
    let name = wanted.name_any();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let parameters = PatchParams::apply(names::OPERATOR).force();
    through(context.gate.as_ref(), Effect::new(effect, verb), async {
        api.patch(&name, &parameters, &Patch::Apply(wanted))
            .await
            .map(drop)
            .map_err(failed("write", &name))
    })
    .await
}

/// What is remembered of admission. That it cannot be read is no memory of nothing: who forgets takes for new what was in a gap.
pub async fn read_memory(context: &Context) -> Result<Memory, Error> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), SYSTEM);
    let found = api.get_opt(MEMORY).await.map_err(failed("read", MEMORY))?;
    let mut data = found.and_then(|found| found.data).unwrap_or_default();
    let labels = data.remove("labels").map(|text| serde_json::from_str(&text)).transpose();
    Ok(Memory {
        stamp: data.remove("stamp"),
        labels: labels
            .map_err(|cause| failed("read", MEMORY)(kube::Error::SerdeError(cause)))?
            .unwrap_or_default(),
    })
}

/// Remembers it.
pub async fn write_memory(context: &Context, memory: &Memory) -> Result<(), Error> {
    let labels = serde_json::to_string(&memory.labels).map_err(|cause| failed("write", MEMORY)(kube::Error::SerdeError(cause)))?;
    let stamp = memory.stamp.clone().map(|stamp| ("stamp".to_owned(), stamp));
    let wanted = ConfigMap {
        metadata: ObjectMeta {
            name: Some(MEMORY.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(stamp.into_iter().chain([("labels".to_owned(), labels)]).collect()),
        ..ConfigMap::default()
    };
    config_map(context, SYSTEM, &wanted, "admission", "remember").await
}
