//! Calls of a workspace's REST API as data: what is sent, and what is so once it happened.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The HTTP verbs that change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiVerb {
    /// Makes a resource, or asks for an action.
    Post,
    /// Changes the fields that `update_mask` names.
    Patch,
    /// Replaces.
    Put,
    /// Removes.
    Delete,
}

impl ApiVerb {
    /// The verb as HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// What is so at a path of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ApiState {
    /// A GET answers a resource that contains these fields: objects as subsets, lists element by
    /// element, `null` for a field that is absent.
    Present {
        /// The path, absolute on the host; it may carry a query.
        path: String,
        /// What the resource contains.
        fields: Value,
    },
    /// A GET answers that there is nothing, or a resource that is deleted.
    Absent {
        /// The path, absolute on the host.
        path: String,
    },
    /// It cannot be seen from outside.
    Unseen,
}

impl ApiState {
    /// A resource that contains `fields`.
    pub fn present(path: impl Into<String>, fields: Value) -> Self {
        Self::Present { path: path.into(), fields }
    }

    /// No resource.
    pub fn absent(path: impl Into<String>) -> Self {
        Self::Absent { path: path.into() }
    }
}

impl fmt::Display for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present { path, fields } => write!(f, "{path} contains {fields}"),
            Self::Absent { path } => write!(f, "{path} is gone"),
            Self::Unseen => f.write_str("cannot be seen"),
        }
    }
}

/// A call of the workspace's REST API that changes something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiCall {
    /// The verb.
    pub verb: ApiVerb,
    /// The path, absolute on the host: `/api/2.0/postgres/projects`.
    pub path: String,
    /// The query: `project_id` to `shop`, `update_mask` to `spec.is_protected`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// The resource itself, never wrapped. A text may be `secret:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// What is so once it happened: looked at before (then nothing is sent), after a crash, and read
    /// back afterwards.
    pub proof: ApiState,
    /// What must be so immediately before; otherwise the change is moot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<ApiState>,
}

impl ApiCall {
    /// Makes a resource or asks for an action.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(ApiVerb::Post, path)
    }

    /// Changes a resource.
    pub fn patch(path: impl Into<String>) -> Self {
        Self::new(ApiVerb::Patch, path)
    }

    /// Replaces a resource.
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(ApiVerb::Put, path)
    }

    /// Removes a resource; the proof is that its path answers nothing.
    pub fn delete(path: impl Into<String>) -> Self {
        let path = path.into();
        Self { proof: ApiState::absent(path.clone()), ..Self::new(ApiVerb::Delete, path) }
    }

    fn new(verb: ApiVerb, path: impl Into<String>) -> Self {
        Self {
            verb,
            path: path.into(),
            query: BTreeMap::new(),
            body: None,
            proof: ApiState::Unseen,
            only_if: None,
        }
    }

    /// The same call with a parameter of the query.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.insert(name.into(), value.into());
        self
    }

    /// The same call with a body.
    #[must_use]
    pub fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The same call, proven by a state.
    #[must_use]
    pub fn proof(self, proof: ApiState) -> Self {
        Self { proof, ..self }
    }

    /// The same call, moot unless a state holds.
    #[must_use]
    pub fn only_if(self, state: ApiState) -> Self {
        Self { only_if: Some(state), ..self }
    }

    /// Whether it makes a resource below its path: one that is there already and is otherwise is then
    /// somebody else's. A call that may replace what is there makes no such demand.
    pub fn creates(&self) -> bool {
        let ApiState::Present { path, .. } = &self.proof else { return false };
        let below = path.strip_prefix(self.path.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let replaces = self.query.get("replace_existing").is_some_and(|value| value == "true");
        self.verb == ApiVerb::Post && below && !replaces
    }

    /// The path with its query, encoded.
    pub fn path_and_query(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let query =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        format!("{}?{query}", self.path)
    }
}

impl fmt::Display for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.as_str(), self.path)?;
        for (place, (name, value)) in self.query.iter().enumerate() {
            write!(f, "{}{name}={value}", if place == 0 { '?' } else { '&' })?;
        }
        match &self.body {
            Some(body) => write!(f, " {body}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BRANCHES: &str = "/api/2.0/postgres/projects/shop/branches";

    #[test]
    fn calls_read_well() {
        let call = ApiCall::post(BRANCHES).query("branch_id", "dev a").body(json!({"spec": {}}));
        assert_eq!(call.to_string(), format!("POST {BRANCHES}?branch_id=dev a {{\"spec\":{{}}}}"));
        assert_eq!(call.path_and_query(), format!("{BRANCHES}?branch_id=dev+a"));
        let delete = ApiCall::delete(format!("{BRANCHES}/dev"));
        assert_eq!(delete.proof, ApiState::absent(format!("{BRANCHES}/dev")));
    }

    #[test]
    fn only_what_lies_below_is_created() {
        let child = ApiState::present(format!("{BRANCHES}/dev"), json!({}));
        let call = ApiCall::post(BRANCHES).proof(child.clone());
        assert!(call.creates());
        assert!(!call.query("replace_existing", "true").creates());
        assert!(!ApiCall::patch(format!("{BRANCHES}/dev")).proof(child.clone()).creates());
        assert!(!ApiCall::post(format!("{BRANCHES}/dev/undelete")).proof(child).creates());
    }

    #[test]
    fn calls_survive_the_journal() {
        let call = ApiCall::patch(format!("{BRANCHES}/dev"))
            .query("update_mask", "spec.is_protected")
            .body(json!({"spec": {"is_protected": true}}))
            .proof(ApiState::present(
                format!("{BRANCHES}/dev"),
                json!({"status": {"is_protected": true}}),
            ))
            .only_if(ApiState::present(format!("{BRANCHES}/dev"), json!({"uid": "br-1"})));
        let text = serde_json::to_string(&call).unwrap();
        assert_eq!(serde_json::from_str::<ApiCall>(&text).unwrap(), call);
    }
}
