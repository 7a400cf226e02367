//! One call of the API, taken apart.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::checks;
use super::error::ApiError;
use super::fields::Check;
use super::page::Page;

/// One call.
pub(super) struct Call {
    pub verb: String,
    pub path: String,
    /// The parts of the path, decoded.
    pub parts: Vec<String>,
    pub query: Vec<(String, String)>,
    pub body: Value,
    /// Who calls.
    pub principal: String,
}

impl Call {
    /// The parts of a path.
    pub(super) fn split(path: &str) -> Vec<String> {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        path.trim_matches('/').split('/').map(decode).collect()
    }

    /// A parameter of the query; empty is absent.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter that has to be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.parameter(name).ok_or_else(|| {
            let text =
                format!("Field '{name}' is required, expected non-default value (not \"\")!");
            ApiError::invalid(text)
        })
    }

    /// A parameter that is true or false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.parameter(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::invalid(format!(
                "Field '{name}' must be true or false, got '{other}'"
            ))),
        }
    }

    /// Which page of a list is asked for.
    pub(super) fn page(&self, most: usize) -> Result<Page, ApiError> {
        Page::read(self.parameter("page_size"), self.parameter("page_token"), most)
    }

    /// A field of the body, checked; null and empty text are absent.
    pub(super) fn field(&self, name: &str, check: Check) -> Result<Option<Value>, ApiError> {
        let found = self.body.get(name).filter(|value| !value.is_null() && *value != "");
        let checked = found.map(check).transpose();
        checked.map_err(|why| ApiError::invalid(format!("Field '{name}' {why}")))
    }

    /// Text of the body that has to be there.
    pub(super) fn text(&self, name: &str) -> Result<String, ApiError> {
        let found = self.field(name, checks::any_text)?;
        found.and_then(|it| it.as_str().map(str::to_owned)).ok_or_else(|| {
            let text =
                format!("Field '{name}' is required, expected non-default value (not \"\")!");
            ApiError::invalid(text)
        })
    }
}
