//! What is wanted: which tables, told apart by what. PURE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Ident, QualifiedName};

/// The policy's name on every table.
pub(in crate::tools) const POLICY: &str = "tenant_isolation";

/// Which tables are shared by tenants, and how a row tells whose it is.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct Shared {
    /// The tables, each as `schema.name`.
    pub(in crate::tools) tables: Vec<String>,
    /// The column that says whose a row is.
    #[serde(default = "tenant_id")]
    pub(in crate::tools) tenant_column: String,
    /// The setting that says who works: the application sets it for each transaction. Without it nobody
    /// sees a row.
    #[serde(default = "app_tenant_id")]
    pub(in crate::tools) setting: String,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct Tenant {
    /// Its value in the tenant column.
    pub(in crate::tools) id: String,
    /// The role that works for it and gets the privileges on the tables; `null`: none of its own.
    #[serde(default)]
    pub(in crate::tools) role: Option<String>,
}

fn tenant_id() -> String {
    "tenant_id".to_owned()
}

fn app_tenant_id() -> String {
    "app.tenant_id".to_owned()
}

impl Shared {
    /// The tables by their names.
    pub(in crate::tools) fn names(&self) -> Result<Vec<QualifiedName>, Failure> {
        if self.tables.is_empty() {
            return Err(wrong("`tables` is empty".to_owned()));
        }
        let name =
            |text: &String| QualifiedName::parse(text).map_err(|error| wrong(error.to_string()));
        let names = self.tables.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        self.check_setting()?;
        Ok(names)
    }

    /// A setting's name stands in a text of the policy: two words of letters, joined by a dot.
    fn check_setting(&self) -> Result<(), Failure> {
        let is_word = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let parts: Vec<_> = self.setting.split('.').collect();
        if parts.len() == 2 && parts.iter().all(|part| is_word(part)) {
            return Ok(());
        }
        Err(wrong(format!("`{}` is no setting of an application", self.setting))
            .with_help("call it like `app.tenant_id`: PostgreSQL's own have no dot"))
    }

    /// The tenant column, quoted.
    pub(in crate::tools) fn column(&self) -> Ident {
        Ident::new(&self.tenant_column)
    }

    /// The condition on a row of a table whose tenant column is of this type. The sub-select is worked
    /// out once per statement and leaves an index usable; an empty setting, which is what a session
    /// keeps after `set local`, counts as none.
    pub(in crate::tools) fn condition(&self, column_type: &str) -> String {
        format!(
            "{} = (select nullif(pg_catalog.current_setting('{}', true), ''))::{column_type}",
            self.column(),
            self.setting
        )
    }

    /// What the policy's comment says, by which it is found again as ours.
    pub(in crate::tools) fn mark(&self) -> String {
        format!("lakeops: {} is {}", self.tenant_column, self.setting)
    }
}

pub(in crate::tools) fn wrong(text: String) -> Failure {
    Failure::permanent("isolation::arguments", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(setting: &str) -> Shared {
        Shared {
            tables: vec!["public.orders".to_owned()],
            tenant_column: "tenant_id".to_owned(),
            setting: setting.to_owned(),
        }
    }

    #[test]
    fn a_setting_is_a_name_and_nothing_else() {
        assert!(shared("app.tenant_id").names().is_ok());
        for wrong in ["tenant_id", "app.", "app.a.b", "app.x', true) or true --", "role", ""] {
            assert_eq!(shared(wrong).names().unwrap_err().code, "isolation::arguments", "{wrong}");
        }
        let none = Shared { tables: Vec::new(), ..shared("app.tenant_id") };
        assert!(none.names().is_err());
    }
}
