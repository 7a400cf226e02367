//! What is there: tables, their policies, and roles that no policy holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request::{POLICY, Shared, Tenant, wrong};
use crate::kernel::{Bind, Failure, QualifiedName, SqlFile};
use crate::postgres::PgReader;
use crate::sql_file;

pub(in crate::tools) const ROW_SECURITY: SqlFile = sql_file!("shared/row_security");
pub(in crate::tools) const ROLES: SqlFile = sql_file!("shared/row_security_roles");

/// A policy of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(in crate::tools) struct Policy {
    /// Its name.
    pub(in crate::tools) name: String,
    /// Whether it lets rows through that another one would not.
    pub(in crate::tools) permissive: bool,
    /// Which rows are seen.
    #[serde(rename = "using")]
    pub(in crate::tools) using_expr: Option<String>,
    /// Which rows may be written.
    #[serde(rename = "check")]
    pub(in crate::tools) check_expr: Option<String>,
    /// What is said about it.
    pub(in crate::tools) comment: Option<String>,
}

/// A table as it is.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::tools) struct Table {
    /// As it was asked for.
    name: String,
    schema: Option<String>,
    relation: Option<String>,
    kind: Option<String>,
    /// Its owner.
    pub(in crate::tools) owner: Option<String>,
    /// Whether row level security is on.
    #[serde(default)]
    pub(in crate::tools) enabled: Option<bool>,
    /// Whether it holds the owner too.
    #[serde(default)]
    pub(in crate::tools) forced: Option<bool>,
    /// The type of the tenant column; `None`: there is none.
    pub(in crate::tools) column_type: Option<String>,
    /// Whether an index begins with the tenant column.
    pub(in crate::tools) indexed: bool,
    /// Its policies.
    pub(in crate::tools) policies: Vec<Policy>,
    /// Roles that may read, add, change and remove its rows.
    pub(in crate::tools) grantees: Vec<String>,
}

impl Table {
    /// Its name, as the catalogue has it.
    pub(in crate::tools) fn qualified(&self) -> QualifiedName {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        QualifiedName::new(part(&self.schema), part(&self.relation))
    }

    /// Whether row level security is on.
    pub(in crate::tools) fn is_enabled(&self) -> bool {
        self.enabled == Some(true)
    }

    /// Whether it holds the owner too.
    pub(in crate::tools) fn is_forced(&self) -> bool {
        self.forced == Some(true)
    }

    /// Our policy, when it is there as it should be.
    pub(in crate::tools) fn has_policy(&self, shared: &Shared) -> bool {
        let mark = shared.mark();
        let names_setting = |text: &Option<String>| {
            text.as_ref().is_some_and(|text| text.contains(&shared.setting))
        };
        self.policies.iter().any(|policy| {
            policy.name == POLICY
                && policy.comment.as_deref() == Some(mark.as_str())
                && names_setting(&policy.using_expr)
                && names_setting(&policy.check_expr)
        })
    }

    /// Policies that let rows through beside ours.
    pub(in crate::tools) fn leaks(&self) -> Vec<&str> {
        let others = self.policies.iter().filter(|one| one.permissive && one.name != POLICY);
        others.map(|policy| policy.name.as_str()).collect()
    }

    fn check(&self, shared: &Shared) -> Result<(), Failure> {
        if self.relation.is_none() {
            return Err(wrong(format!("there is no table `{}`", self.name)));
        }
        if !matches!(self.kind.as_deref(), Some("r" | "p")) {
            return Err(wrong(format!("`{}` is no table", self.name)));
        }
        if self.column_type.is_none() {
            let text = format!("`{}` has no column `{}`", self.name, shared.tenant_column);
            return Err(
                wrong(text).with_help("say with `tenant_column` which one tells tenants apart")
            );
        }
        let foreign = self.policies.iter().any(|policy| policy.name == POLICY);
        if foreign && !self.has_policy(shared) {
            let text = format!("`{}` has a policy `{POLICY}` that is another one", self.name);
            return Err(Failure::permanent("isolation::other_policy", text)
                .with_help("look at it, and drop or rename it first"));
        }
        Ok(())
    }
}

/// A role that row level security does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct Exempt {
    /// The role.
    pub(in crate::tools) role: String,
    /// Whether it is a superuser.
    pub(in crate::tools) superuser: bool,
    /// Whether it has `BYPASSRLS`.
    pub(in crate::tools) bypass: bool,
    /// Whether it can log in.
    pub(in crate::tools) login: bool,
}

impl Exempt {
    /// Why no policy holds it.
    pub(in crate::tools) const fn why(&self) -> &'static str {
        if self.superuser { "is a superuser" } else { "has BYPASSRLS" }
    }
}

/// All that is there.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Survey {
    /// The tables, in the order in which they were asked for.
    pub(in crate::tools) tables: Vec<Table>,
    /// The roles that no policy holds.
    pub(in crate::tools) exempt: Vec<Exempt>,
    /// Who looks.
    me: String,
}

impl Survey {
    /// Looks at the tables and roles; what cannot be isolated is a failure.
    pub(in crate::tools) async fn look(
        reader: &PgReader,
        shared: &Shared,
        tenants: &[Tenant],
    ) -> Result<Self, Failure> {
        let names = shared.names()?.iter().map(ToString::to_string).collect();
        let binds = [Bind::TextArray(names), Bind::Text(shared.tenant_column.clone())];
        let tables: Vec<Table> = reader.rows(&ROW_SECURITY, &binds).await?;
        for table in &tables {
            table.check(shared)?;
        }
        let (exempt, me) = exempt(reader, tenants).await?;
        Ok(Self { tables, exempt, me })
    }

    /// The role that no policy holds, when it is one.
    pub(in crate::tools) fn exempt(&self, role: &str) -> Option<&Exempt> {
        self.exempt.iter().find(|exempt| exempt.role == role)
    }

    /// Refuses tenants who would be tried as a role that no policy holds: ours.
    pub(in crate::tools) fn refuse_exempt_trial(&self, tenants: &[Tenant]) -> Result<(), Failure> {
        let (Some(tenant), Some(me)) =
            (tenants.iter().find(|tenant| tenant.role.is_none()), self.exempt(&self.me))
        else {
            return Ok(());
        };
        let text = format!(
            "tenant `{}` has no role of its own, and `{}`, who would try in its place, {}",
            tenant.id,
            self.me,
            me.why()
        );
        Err(Failure::permanent("isolation::exempt_tenant", text)
            .with_help("name a role for each tenant: `{ id, role }`"))
    }
}

/// The roles that no policy holds, and who asks. A tenant's own role must be there and be held.
async fn exempt(reader: &PgReader, tenants: &[Tenant]) -> Result<(Vec<Exempt>, String), Failure> {
    #[derive(Deserialize)]
    struct Row {
        asked: bool,
        mine: bool,
        #[serde(flatten)]
        role: Exempt,
    }
    let asked: Vec<String> = tenants.iter().filter_map(|tenant| tenant.role.clone()).collect();
    let rows: Vec<Row> = reader.rows(&ROLES, &[Bind::TextArray(asked.clone())]).await?;
    for role in &asked {
        let Some(row) = rows.iter().find(|row| row.asked && row.role.role == *role) else {
            return Err(wrong(format!("there is no role `{role}`"))
                .with_help("make it first; on Lakebase roles are made through the API"));
        };
        if row.role.superuser || row.role.bypass {
            let text = format!("no policy holds the role `{role}`: it {}", row.role.why());
            return Err(Failure::permanent("isolation::exempt_tenant", text));
        }
    }
    let me = rows.iter().find(|row| row.mine).map(|row| row.role.role.clone());
    let roles = rows.into_iter().map(|row| row.role);
    Ok((roles.filter(|role| role.superuser || role.bypass).collect(), me.unwrap_or_default()))
}
