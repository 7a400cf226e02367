//! Tries the isolation as the tenants. PURE.
//!
//! A check that could not have failed proves nothing: where a tenant has no rows, what another does to
//! them is not measured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Shared, Tenant};
use super::survey::{Survey, Table};
use crate::kernel::{Bind, Change, Ident, Inverse, Operation, Risk, SqlStatement};
use crate::tools::tool::Settled;

/// PostgreSQL's word for a row that a policy refuses.
const REFUSED: &str = "42501";

/// What an experiment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Check {
    /// A tenant sees its own rows and no others, and changes and removes none of another.
    Reach,
    /// A tenant adds a row for another; it must be refused.
    Insert,
    /// A tenant hands its own rows over to another; it must be refused.
    HandOver,
    /// Who says no tenant sees nothing.
    Nobody,
    /// The table's owner, working for a tenant, sees no row of another.
    Owner,
}

/// One experiment, known again when it is reported.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    check: Check,
    table: String,
    tenant: Option<String>,
    other: Option<String>,
    /// Why no policy holds who tries.
    #[serde(default)]
    exempt: Option<String>,
}

/// What a check showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Broken,
    /// It could not be seen.
    NotMeasured,
}

/// A check with what it showed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct Shown {
    /// What was tried.
    pub(in crate::tools) check: Check,
    /// On which table.
    pub(in crate::tools) table: String,
    /// As which tenant.
    pub(in crate::tools) tenant: Option<String>,
    /// What it showed.
    pub(in crate::tools) verdict: Verdict,
    /// What was seen.
    pub(in crate::tools) seen: String,
}

/// The experiments on a table.
pub(in crate::tools) fn experiments(
    table: &Table,
    survey: &Survey,
    (shared, tenants): (&Shared, &[Tenant]),
) -> Vec<Change> {
    let exempt = table.owner.as_deref().and_then(|owner| survey.exempt(owner));
    let exempt = exempt.map(|owner| format!("the owner `{}` {}", owner.role, owner.why()));
    let lab =
        Lab { table, exempt, shared, name: table.qualified().to_string(), column: shared.column() };
    let mut changes = Vec::new();
    for (tenant, other) in tenants.iter().zip(tenants.iter().cycle().skip(1)) {
        changes.push(lab.reach(tenant, other));
        changes.push(lab.insert(tenant, other));
        changes.push(lab.hand_over(tenant, other));
    }
    changes.push(lab.nobody(tenants));
    changes.extend(tenants.first().map(|tenant| lab.owner(tenant)));
    changes
}

struct Lab<'a> {
    table: &'a Table,
    /// Why no policy holds the owner.
    exempt: Option<String>,
    shared: &'a Shared,
    name: String,
    column: Ident,
}

impl Lab<'_> {
    fn change(
        &self,
        (check, tenant, other): (Check, Option<&Tenant>, Option<&Tenant>),
        role: Option<&str>,
        statements: Vec<SqlStatement>,
    ) -> Change {
        let id = |tenant: Option<&Tenant>| tenant.map(|tenant| tenant.id.clone());
        let facts = Facts {
            check,
            table: self.table.qualified().plain(),
            tenant: id(tenant),
            other: id(other),
            exempt: self.exempt.clone().filter(|_| check == Check::Owner),
        };
        let setting = id(tenant).map(|id| (self.shared.setting.clone(), id));
        let operation = Operation::SqlExperiment {
            role: role.map(Ident::new),
            settings: setting.into_iter().collect(),
            statements,
        };
        let who = tenant.map_or("nobody", |tenant| tenant.id.as_str());
        let why = format!("tried as {who}, and rolled back");
        let mut change = Change::new(&facts.table, why, operation);
        change.risk = Risk::Low;
        change.inverse = Inverse::Unneeded;
        change.facts = serde_json::to_value(facts).unwrap_or_default();
        change
    }

    fn count(&self, tenant: &Tenant) -> SqlStatement {
        let Self { name, column, .. } = self;
        SqlStatement::with_binds(
            format!(
                "select count(*) filter (where {column}::text = $1) as own,\n       \
                 count(*) filter (where {column}::text is distinct from $1) as others\n  from {name}"
            ),
            vec![Bind::Text(tenant.id.clone())],
        )
    }

    fn reach(&self, tenant: &Tenant, other: &Tenant) -> Change {
        let Self { name, column, .. } = self;
        let theirs = || vec![Bind::Text(other.id.clone())];
        let statements = vec![
            self.count(tenant),
            SqlStatement::with_binds(
                format!("update {name} set {column} = {column} where {column}::text = $1"),
                theirs(),
            ),
            SqlStatement::with_binds(
                format!("delete from {name} where {column}::text = $1"),
                theirs(),
            ),
        ];
        self.change((Check::Reach, Some(tenant), Some(other)), tenant.role.as_deref(), statements)
    }

    /// Adds a copy of an own row under the other's name. The policy is asked before any unique index.
    fn insert(&self, tenant: &Tenant, other: &Tenant) -> Change {
        let Self { name, column, .. } = self;
        let statement = SqlStatement::with_binds(
            format!(
                "insert into {name}\nselect (jsonb_populate_record(r, jsonb_build_object($2, $3))).*\n  \
                 from {name} as r\n where r.{column}::text = $1\n limit 1"
            ),
            [&tenant.id, &self.shared.tenant_column, &other.id]
                .map(|text| Bind::Text(text.clone()))
                .into(),
        );
        let what = (Check::Insert, Some(tenant), Some(other));
        self.change(what, tenant.role.as_deref(), vec![statement])
    }

    fn hand_over(&self, tenant: &Tenant, other: &Tenant) -> Change {
        let Self { name, column, .. } = self;
        let kind = self.table.column_type.as_deref().unwrap_or("text");
        let statement = SqlStatement::with_binds(
            format!("update {name} set {column} = $2::text::{kind} where {column}::text = $1"),
            [&tenant.id, &other.id].map(|text| Bind::Text(text.clone())).into(),
        );
        let what = (Check::HandOver, Some(tenant), Some(other));
        self.change(what, tenant.role.as_deref(), vec![statement])
    }

    fn nobody(&self, tenants: &[Tenant]) -> Change {
        let role = tenants.iter().find_map(|tenant| tenant.role.as_deref());
        let statement = SqlStatement::new(format!("select count(*) as others from {}", self.name));
        self.change((Check::Nobody, None, None), role, vec![statement])
    }

    fn owner(&self, tenant: &Tenant) -> Change {
        let what = (Check::Owner, Some(tenant), None);
        self.change(what, self.table.owner.as_deref(), vec![self.count(tenant)])
    }
}

/// What the experiments showed.
pub(in crate::tools) fn judge(settled: &[Settled<'_>]) -> Vec<Shown> {
    let told: Vec<(Facts, Vec<Value>)> = settled
        .iter()
        .filter_map(|one| {
            let facts = serde_json::from_value(one.change.facts.clone()).ok()?;
            let seen = one.receipt().and_then(|receipt| receipt.result.as_array().cloned());
            Some((facts, seen.unwrap_or_default()))
        })
        .collect();
    // How many rows a tenant has, as it sees them itself.
    let mut owned: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (facts, seen) in told.iter().filter(|(facts, _)| facts.check == Check::Reach) {
        if let Some(tenant) = &facts.tenant {
            owned.insert((&facts.table, tenant), number(seen.first(), "own").unwrap_or_default());
        }
    }
    let rows_of = |facts: &Facts, tenant: &Option<String>| {
        let tenant = tenant.as_deref().unwrap_or_default();
        owned.get(&(facts.table.as_str(), tenant)).copied().unwrap_or_default()
    };
    told.iter()
        .map(|(facts, seen)| {
            let (mine, theirs) = (rows_of(facts, &facts.tenant), rows_of(facts, &facts.other));
            let (verdict, text) = match (facts.check, &facts.exempt) {
                (Check::Reach, _) => reach(seen, theirs),
                (Check::Insert | Check::HandOver, _) => refusal(seen, mine),
                // It sees every row, and is reported as a role that does: what it sees says nothing about
                // the policy.
                (Check::Owner, Some(why)) => {
                    (Verdict::NotMeasured, format!("{why}: no policy holds it"))
                }
                (Check::Nobody | Check::Owner, _) => {
                    unseen(seen, owned.values().any(|rows| *rows > 0))
                }
            };
            let Facts { check, table, tenant, .. } = facts.clone();
            Shown { check, table, tenant, verdict, seen: text }
        })
        .collect()
}

fn number(seen: Option<&Value>, column: &str) -> Option<u64> {
    seen?["returned"][0][column].as_u64()
}

fn error(seen: &[Value]) -> Option<String> {
    let failed = seen.iter().find(|one| one["sqlstate"].is_string())?;
    Some(failed["error"].as_str().unwrap_or_default().to_owned())
}

fn reach(seen: &[Value], theirs: u64) -> (Verdict, String) {
    let rows = |place: usize| seen.get(place).and_then(|one| one["rows"].as_u64());
    let (Some(others), Some(changed), Some(removed)) =
        (number(seen.first(), "others"), rows(1), rows(2))
    else {
        let why = error(seen).unwrap_or_else(|| "it was not tried".to_owned());
        return (Verdict::NotMeasured, why);
    };
    let text = format!("{others} rows of others seen, {changed} changed, {removed} removed");
    match others + changed + removed {
        0 if theirs == 0 => (Verdict::NotMeasured, "the other tenant has no row".to_owned()),
        0 => (Verdict::Holds, text),
        _ => (Verdict::Broken, text),
    }
}

fn refusal(seen: &[Value], mine: u64) -> (Verdict, String) {
    match seen.first() {
        Some(one) if one["sqlstate"] == REFUSED => (Verdict::Holds, "it was refused".to_owned()),
        Some(one) if one["sqlstate"].is_string() => {
            (Verdict::NotMeasured, error(seen).unwrap_or_default())
        }
        Some(one) if one["rows"].as_u64() > Some(0) => {
            (Verdict::Broken, format!("{} rows went to another tenant", one["rows"]))
        }
        _ if mine == 0 => (Verdict::NotMeasured, "the tenant has no row".to_owned()),
        _ => (Verdict::NotMeasured, "no row was written".to_owned()),
    }
}

fn unseen(seen: &[Value], has_rows: bool) -> (Verdict, String) {
    match number(seen.first(), "others") {
        Some(0) if !has_rows => (Verdict::NotMeasured, "no tenant has a row".to_owned()),
        Some(0) => (Verdict::Holds, "no row of others is seen".to_owned()),
        Some(others) => (Verdict::Broken, format!("{others} rows of others are seen")),
        None => {
            (Verdict::NotMeasured, error(seen).unwrap_or_else(|| "it was not tried".to_owned()))
        }
    }
}
