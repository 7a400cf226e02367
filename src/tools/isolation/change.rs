//! Makes what is missing. PURE.

use serde::{Deserialize, Serialize};

use super::request::{POLICY, Shared, Tenant};
use super::survey::{Exempt, Survey, Table};
use crate::kernel::{Change, Ident, Inverse, Operation, Query, Recovery, Risk, SqlStatement};

/// What `report` needs to know of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::tools) struct Facts {
    /// The table.
    pub(in crate::tools) table: String,
    /// Roles that no policy holds.
    pub(in crate::tools) exempt: Vec<Exempt>,
    /// What weakens the isolation, or makes it slow.
    pub(in crate::tools) warnings: Vec<String>,
}

/// Statements, and those that undo them in reverse order.
#[derive(Default)]
struct Script {
    forth: Vec<SqlStatement>,
    back: Vec<SqlStatement>,
}

impl Script {
    fn add(&mut self, forth: String, back: String) {
        self.forth.push(SqlStatement::new(forth));
        self.back.insert(0, SqlStatement::new(back));
    }
}

/// One change for each table that lacks something, in one transaction.
pub(in crate::tools) fn changes(
    survey: &Survey,
    shared: &Shared,
    tenants: &[Tenant],
) -> Vec<Change> {
    survey.tables.iter().filter_map(|table| of_table(table, survey, shared, tenants)).collect()
}

fn of_table(table: &Table, survey: &Survey, shared: &Shared, tenants: &[Tenant]) -> Option<Change> {
    let name = table.qualified();
    let mut script = Script::default();
    if !table.has_policy(shared) {
        let condition = shared.condition(table.column_type.as_deref()?);
        script.add(
            format!(
                "create policy {POLICY} on {name} as permissive for all to public\n \
                 using ({condition})\n with check ({condition})"
            ),
            format!("drop policy {POLICY} on {name}"),
        );
        script.forth.push(SqlStatement::new(format!(
            "comment on policy {POLICY} on {name} is '{}'",
            shared.mark().replace('\'', "''")
        )));
    }
    if !table.is_enabled() {
        script.add(
            format!("alter table {name} enable row level security"),
            format!("alter table {name} disable row level security"),
        );
    }
    if !table.is_forced() {
        script.add(
            format!("alter table {name} force row level security"),
            format!("alter table {name} no force row level security"),
        );
    }
    let roles = tenants.iter().filter_map(|tenant| tenant.role.as_ref());
    for role in roles.filter(|role| !table.grantees.contains(role)) {
        let role = Ident::new(role.as_str());
        script
            .forth
            .push(SqlStatement::new(format!("grant usage on schema {} to {role}", name.schema)));
        script.add(
            format!("grant select, insert, update, delete on {name} to {role}"),
            format!("revoke select, insert, update, delete on {name} from {role}"),
        );
    }
    if script.forth.is_empty() {
        return None;
    }
    let warnings = warnings(table, survey, shared);
    let why = std::iter::once("rows of one tenant are not to be seen by another".to_owned());
    let why: Vec<String> = why.chain(warnings.iter().cloned()).collect();
    let mut change = Change::new(
        name.plain(),
        why.join("; "),
        Operation::Transaction { statements: script.forth },
    );
    change.risk = Risk::High;
    change.recovery = Recovery::Transactional;
    change.inverse = Inverse::By {
        operation: Operation::Transaction { statements: script.back },
        recovery: Recovery::Transactional,
    };
    change.guard = Some(Query::new(format!(
        "select pg_catalog.to_regclass('{}') is not null as there",
        name.to_string().replace('\'', "''")
    )));
    let facts = Facts { table: name.plain(), exempt: survey.exempt.clone(), warnings };
    change.facts = serde_json::to_value(facts).unwrap_or_default();
    Some(change)
}

/// What weakens the isolation of a table, or makes it slow.
pub(in crate::tools) fn warnings(table: &Table, survey: &Survey, shared: &Shared) -> Vec<String> {
    let mut warnings = Vec::new();
    let leaks = table.leaks();
    if !leaks.is_empty() {
        warnings.push(format!("other policies let rows through as well: {}", leaks.join(", ")));
    }
    let logins = survey.exempt.iter().filter(|role| role.login);
    let logins: Vec<_> = logins.map(|role| role.role.as_str()).collect();
    if !logins.is_empty() {
        warnings.push(format!("no policy holds {}", logins.join(", ")));
    }
    if !table.indexed {
        warnings.push(format!("no index begins with `{}`", shared.tenant_column));
    }
    warnings
}
