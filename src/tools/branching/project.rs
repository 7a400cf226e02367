//! Making a project with its branches, or making what is missing of one. PURE.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::change::{called, seconds, undone_by};
use super::survey::Survey;
use crate::kernel::{ApiCall, ApiState, Change, Span};
use crate::lakebase::ProjectName;
use crate::lakebase::name::path_of;
use crate::lakebase::resource::Tag;

/// What a project is like. What is not said is left to the platform.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct Shape {
    /// What people call it; by default its id.
    #[serde(default)]
    pub(in crate::tools) display_name: Option<String>,
    /// The major version of PostgreSQL.
    #[serde(default)]
    #[schemars(range(min = 16))]
    pub(in crate::tools) pg_version: Option<u32>,
    /// How far back in time branches can begin (2 to 35 days).
    #[serde(default)]
    pub(in crate::tools) history_retention: Option<Span>,
    /// The least compute units of new computes.
    #[serde(default)]
    pub(in crate::tools) min_cu: Option<f64>,
    /// The most compute units of new computes.
    #[serde(default)]
    pub(in crate::tools) max_cu: Option<f64>,
    /// When new computes sleep.
    #[serde(default)]
    pub(in crate::tools) suspend_after: Option<Span>,
    /// Labels.
    #[serde(default)]
    pub(in crate::tools) tags: BTreeMap<String, String>,
    /// The budget policy that pays for it.
    #[serde(default)]
    pub(in crate::tools) budget_policy_id: Option<String>,
}

impl Shape {
    fn spec(&self, project: &str) -> Value {
        let mut spec = Map::new();
        let mut set = |name: &str, value: Value| spec.insert(name.to_owned(), value);
        set("display_name", json!(self.display_name.as_deref().unwrap_or(project)));
        if let Some(version) = self.pg_version {
            set("pg_version", json!(version));
        }
        if let Some(span) = self.history_retention {
            set("history_retention_duration", json!(seconds(span)));
        }
        if let Some(id) = &self.budget_policy_id {
            set("budget_policy_id", json!(id));
        }
        let mut endpoints = Map::new();
        if let Some(least) = self.min_cu {
            endpoints.insert("autoscaling_limit_min_cu".to_owned(), json!(least));
        }
        if let Some(most) = self.max_cu {
            endpoints.insert("autoscaling_limit_max_cu".to_owned(), json!(most));
        }
        if let Some(after) = self.suspend_after {
            endpoints.insert("suspend_timeout_duration".to_owned(), json!(seconds(after)));
        }
        if !endpoints.is_empty() {
            set("default_endpoint_settings", Value::Object(endpoints));
        }
        set("custom_tags", json!(tags(&self.tags)));
        Value::Object(spec)
    }

    /// Makes the project, or adopts it. One that was there is not deleted when that is undone.
    pub(in crate::tools) fn project(&self, project: &str, existing: Option<&Survey>) -> Change {
        let name = ProjectName::new(project);
        let mut shown = json!({ "name": name.to_string() });
        if let Some(version) = self.pg_version {
            shown["status"] = json!({ "pg_version": version });
        }
        let call = ApiCall::post(path_of("projects"))
            .query("project_id", project)
            .body(json!({ "spec": self.spec(project) }))
            .proof(ApiState::present(name.path(), shown));
        let why = if existing.is_some() { "it is there and is taken" } else { "it is to be made" };
        let mut change = called(format!("project {project}"), why, call);
        if existing.is_none() {
            change.inverse = undone_by(ApiCall::delete(name.path()).query("purge", "true"));
        }
        change
    }

    /// Adds the labels that a project which was there lacks.
    pub(in crate::tools) fn labels(&self, survey: &Survey) -> Option<Change> {
        let before = &survey.found.status.custom_tags;
        let mut all: BTreeMap<String, String> =
            before.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect();
        let known = all.clone();
        all.extend(self.tags.clone());
        if all == known {
            return None;
        }
        let name = ProjectName::new(survey.project.as_str());
        let set = |tags: &[Tag]| {
            ApiCall::patch(name.path())
                .query("update_mask", "spec.custom_tags")
                .body(json!({ "name": name.to_string(), "spec": { "custom_tags": tags } }))
                .proof(ApiState::present(name.path(), json!({ "status": { "custom_tags": tags } })))
        };
        let why = "its labels are to be complete".to_owned();
        let mut change = called(format!("project {}", survey.project), why, set(&tags(&all)));
        change.inverse = undone_by(set(before));
        Some(change)
    }
}

fn tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::survey;
    use super::*;
    use crate::kernel::{Inverse, Operation};

    fn sent(change: &Change) -> Value {
        match &change.operation {
            Operation::Api(call) => call.body.clone().unwrap()["spec"].clone(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn only_what_is_said_is_sent() {
        let spec = sent(&Shape::default().project("shop", None));
        assert_eq!(spec, json!({"display_name": "shop", "custom_tags": []}));
        let shape = Shape {
            pg_version: Some(17),
            max_cu: Some(4.0),
            suspend_after: Some(Span::from_secs(300)),
            ..Shape::default()
        };
        let spec = sent(&shape.project("shop", None));
        assert_eq!(spec["pg_version"], 17);
        let endpoints =
            json!({"autoscaling_limit_max_cu": 4.0, "suspend_timeout_duration": "300s"});
        assert_eq!(spec["default_endpoint_settings"], endpoints);
    }

    #[test]
    fn a_project_that_was_there_is_kept() {
        let there = survey(vec![]);
        assert_eq!(Shape::default().project("shop", Some(&there)).inverse, Inverse::Unneeded);
        assert!(matches!(Shape::default().project("shop", None).inverse, Inverse::By { .. }));
    }

    #[test]
    fn labels_are_added_and_none_is_lost() {
        let mut there = survey(vec![]);
        there.found.status.custom_tags = vec![Tag { key: "team".into(), value: "a".into() }];
        let shape = |tags: &[(&str, &str)]| Shape {
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Shape::default()
        };
        assert!(shape(&[("team", "a")]).labels(&there).is_none());
        let change = shape(&[("domain", "shop")]).labels(&there).unwrap();
        let tags = json!([{"key": "domain", "value": "shop"}, {"key": "team", "value": "a"}]);
        assert_eq!(sent(&change)["custom_tags"], tags);
    }
}
