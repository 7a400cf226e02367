//! The statements that make objects. PURE.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::names::{called, grant_object, literal, name, pair, relation};
use super::object::{
    Attribute, Body, Column, Domain, Grant, Kind, Numbers, Object, ObjectId, Policy, Sequence,
    Table, View,
};
use crate::kernel::{Ident, QualifiedName};

/// What makes an object. `inline` holds what stands inside a new table: columns with their defaults.
pub(super) fn create(
    id: &ObjectId,
    object: &Object,
    inline: &[(&ObjectId, &Object, Option<&str>)],
) -> Vec<String> {
    let name = name(id);
    let mut done = match &object.body {
        Body::Schema {} => vec![format!("create schema if not exists {name}")],
        Body::Extension(extension) => vec![format!(
            "create extension if not exists {name} with schema {} version {}",
            Ident::new(&extension.schema),
            literal(&extension.version)
        )],
        Body::Enum { labels } => vec![create_enum(&name, labels)],
        Body::Domain(domain) => vec![create_domain(&name, domain)],
        Body::Composite { attributes } => {
            let list: Vec<_> = attributes.iter().map(attribute).collect();
            vec![format!("create type {name} as ({})", list.join(", "))]
        }
        Body::Table(table) => create_table(&name, table, inline),
        Body::Column(column) => {
            let default = inline.first().and_then(|(_, _, default)| *default);
            vec![format!(
                "alter table {} add column {}",
                relation(id),
                column_definition(&id.name, column, default)
            )]
        }
        Body::Sequence(sequence) => vec![create_sequence(&name, sequence)],
        Body::Routine(routine) => vec![routine.definition.trim_end().to_owned()],
        Body::Default { expression } => vec![set_default(id, expression)],
        Body::Constraint(constraint) => vec![format!(
            "alter table {} add constraint {} {}",
            relation(id),
            Ident::new(&id.name),
            constraint.definition
        )],
        // The server writes `only` for the index of a partitioned table; ours is to reach the parts.
        Body::Index(index) => vec![index.definition.replacen(" ON ONLY ", " ON ", 1)],
        Body::View(view) => vec![create_view(&name, view, false)],
        Body::Text { definition } => vec![definition.trim_end_matches(';').to_owned()],
        Body::Trigger(trigger) => {
            let mut list = vec![trigger.definition.clone()];
            list.extend((trigger.enabled != "O").then(|| enable_trigger(id, &trigger.enabled)));
            list
        }
        Body::Policy(policy) => vec![create_policy(id, policy)],
    };
    let (comment, grants) = (object.comment.as_deref(), &object.grants);
    done.extend(comment.map(|text| set_comment(id, object, Some(text))));
    done.extend(regrant(id, object, &first_grants(id.kind), grants));
    for (column, of, _) in inline.iter().filter(|(column, ..)| *column != id) {
        done.extend(of.comment.as_deref().map(|text| set_comment(column, of, Some(text))));
        done.extend(regrant(column, of, &BTreeSet::new(), &of.grants));
    }
    done
}

/// What everybody may do with a new object.
fn first_grants(kind: Kind) -> BTreeSet<Grant> {
    let privilege = match kind {
        Kind::Routine => "EXECUTE",
        Kind::Type => "USAGE",
        _ => return BTreeSet::new(),
    };
    [Grant { grantee: None, privilege: privilege.to_owned(), grantable: false }].into()
}

/// What turns privileges into others.
pub(super) fn regrant(
    id: &ObjectId,
    object: &Object,
    before: &BTreeSet<Grant>,
    after: &BTreeSet<Grant>,
) -> Vec<String> {
    let of = grant_object(id, object);
    let column = if id.kind == Kind::Column {
        format!(" ({})", Ident::new(&id.name))
    } else {
        String::new()
    };
    let who = |grant: &Grant| match &grant.grantee {
        Some(role) => Ident::new(role).to_string(),
        None => "public".to_owned(),
    };
    let revoked = before.difference(after).map(|grant| {
        format!("revoke {}{column} on {of} from {}", grant.privilege.to_lowercase(), who(grant))
    });
    let granted = after.difference(before).map(|grant| {
        let more = if grant.grantable { " with grant option" } else { "" };
        let privilege = grant.privilege.to_lowercase();
        format!("grant {privilege}{column} on {of} to {}{more}", who(grant))
    });
    revoked.chain(granted).collect()
}

/// What sets or removes a comment.
pub(super) fn set_comment(id: &ObjectId, object: &Object, comment: Option<&str>) -> String {
    let text = comment.map_or_else(|| "null".to_owned(), literal);
    format!("comment on {} is {text}", called(id, object))
}

fn create_enum(name: &str, labels: &[String]) -> String {
    let labels: Vec<_> = labels.iter().map(|label| literal(label)).collect();
    format!("create type {name} as enum ({})", labels.join(", "))
}

fn create_domain(name: &str, domain: &Domain) -> String {
    let mut text = format!("create domain {name} as {}", domain.base);
    if let Some(collation) = &domain.collation {
        let _ = write!(text, " collate {collation}");
    }
    if let Some(default) = &domain.default {
        let _ = write!(text, " default {default}");
    }
    if domain.not_null {
        text.push_str(" not null");
    }
    for (name, check) in &domain.checks {
        let _ = write!(text, " constraint {} {check}", Ident::new(name));
    }
    text
}

/// An attribute of a composite type.
pub(super) fn attribute(attribute: &Attribute) -> String {
    let collation = attribute.collation.as_ref().map(|name| format!(" collate {name}"));
    let (name, collation) = (Ident::new(&attribute.name), collation.unwrap_or_default());
    format!("{name} {}{collation}", attribute.of_type)
}

fn create_table(
    name: &str,
    table: &Table,
    columns: &[(&ObjectId, &Object, Option<&str>)],
) -> Vec<String> {
    let unlogged = if table.unlogged { "unlogged " } else { "" };
    let definitions: Vec<_> = columns
        .iter()
        .filter_map(|(id, object, default)| match &object.body {
            Body::Column(column) => Some(column_definition(&id.name, column, *default)),
            _ => None,
        })
        .collect();
    let mut text = match (&table.partition_of, &table.bound) {
        (Some(parent), Some(bound)) => {
            format!("create {unlogged}table {name} partition of {} {bound}", pair(parent))
        }
        _ => format!("create {unlogged}table {name} (\n  {}\n)", definitions.join(",\n  ")),
    };
    if !table.inherits.is_empty() {
        let parents: Vec<_> = table.inherits.iter().map(pair).collect();
        let _ = write!(text, " inherits ({})", parents.join(", "));
    }
    if let Some(key) = &table.partition_key {
        let _ = write!(text, " partition by {key}");
    }
    text.push_str(&with_options(&table.options));
    let mut done = vec![text];
    done.extend(
        table.row_security.then(|| format!("alter table {name} enable row level security")),
    );
    done.extend(
        table.forced_row_security.then(|| format!("alter table {name} force row level security")),
    );
    done.extend(replica_identity(name, &table.replica_identity, "d"));
    done
}

/// What sets the replica identity, when it is not the present one.
pub(super) fn replica_identity(name: &str, identity: &str, present: &str) -> Option<String> {
    let word = match identity {
        "n" => "nothing",
        "f" => "full",
        _ => "default",
    };
    (identity != present).then(|| format!("alter table {name} replica identity {word}"))
}

/// ` with (fillfactor = '70')`, or nothing.
pub(super) fn with_options(options: &BTreeSet<String>) -> String {
    if options.is_empty() {
        return String::new();
    }
    let list: Vec<_> = options.iter().map(|option| option_text(option)).collect();
    format!(" with ({})", list.join(", "))
}

/// A storage parameter as it is set.
pub(super) fn option_text(option: &str) -> String {
    match option.split_once('=') {
        Some((name, value)) => format!("{name} = {}", literal(value)),
        None => option.to_owned(),
    }
}

/// A column as it is written in `create table` and `add column`.
fn column_definition(name: &str, column: &Column, default: Option<&str>) -> String {
    let mut text = format!("{} {}", Ident::new(name), column.of_type);
    if let Some(collation) = &column.collation {
        let _ = write!(text, " collate {collation}");
    }
    if let Some(expression) = &column.expression {
        let how = if column.generated == "v" { "virtual" } else { "stored" };
        let _ = write!(text, " generated always as ({expression}) {how}");
    }
    if let Some(default) = default {
        let _ = write!(text, " default {default}");
    }
    if column.not_null {
        text.push_str(" not null");
    }
    if !column.identity.is_empty() {
        let _ = write!(text, " {}", identity(column));
    }
    text
}

/// `generated always as identity (…)`
pub(super) fn identity(column: &Column) -> String {
    let numbers = column.sequence.as_ref().map(sequence_numbers).unwrap_or_default();
    format!("generated {} as identity ({})", identity_word(&column.identity), numbers)
}

/// When an identity column takes a value that it is given.
pub(super) fn identity_word(identity: &str) -> &'static str {
    if identity == "a" { "always" } else { "by default" }
}

/// The numbers of a sequence, one by one, as they are set.
pub(super) fn number_words(numbers: &Numbers) -> [String; 6] {
    let Numbers { start, minimum, maximum, increment, cache, cycle } = numbers;
    [
        format!("increment by {increment}"),
        format!("minvalue {minimum}"),
        format!("maxvalue {maximum}"),
        format!("start with {start}"),
        format!("cache {cache}"),
        if *cycle { "cycle" } else { "no cycle" }.to_owned(),
    ]
}

/// The numbers of a sequence as they are set together.
pub(super) fn sequence_numbers(numbers: &Numbers) -> String {
    number_words(numbers).join(" ")
}

fn create_sequence(name: &str, sequence: &Sequence) -> String {
    let unlogged = if sequence.unlogged { "unlogged " } else { "" };
    let numbers = sequence_numbers(&sequence.numbers);
    let owner = sequence.owned_by.as_ref().map(owned_by).unwrap_or_default();
    format!("create {unlogged}sequence {name} as {} {numbers}{owner}", sequence.of_type)
}

/// ` owned by schema.table.column`
pub(super) fn owned_by([schema, table, column]: &[String; 3]) -> String {
    format!(" owned by {}.{}", QualifiedName::new(schema, table), Ident::new(column))
}

/// What makes a view, or changes it in place.
pub(super) fn create_view(name: &str, view: &View, in_place: bool) -> String {
    let verb = match (view.materialized, in_place) {
        (true, _) => "create materialized view",
        (false, true) => "create or replace view",
        (false, false) => "create view",
    };
    let body = view.definition.trim().trim_end_matches(';');
    format!("{verb} {name}{} as\n{body}", with_options(&view.options))
}

/// What sets a default.
pub(super) fn set_default(id: &ObjectId, expression: &str) -> String {
    let column = Ident::new(&id.name);
    format!("alter table {} alter column {column} set default {expression}", relation(id))
}

/// What says when a trigger fires.
pub(super) fn enable_trigger(id: &ObjectId, enabled: &str) -> String {
    let word = match enabled {
        "D" => "disable",
        "R" => "enable replica",
        "A" => "enable always",
        _ => "enable",
    };
    format!("alter table {} {word} trigger {}", relation(id), Ident::new(&id.name))
}

/// The roles of a policy as they are written.
pub(super) fn policy_roles(roles: &[String]) -> String {
    let quoted = roles.iter().map(|role| match role.as_str() {
        "public" => "public".to_owned(),
        other => Ident::new(other).to_string(),
    });
    quoted.collect::<Vec<_>>().join(", ")
}

fn create_policy(id: &ObjectId, policy: &Policy) -> String {
    let kind = if policy.permissive { "permissive" } else { "restrictive" };
    let mut text = format!(
        "create policy {} on {} as {kind} for {} to {}",
        Ident::new(&id.name),
        relation(id),
        policy.command,
        policy_roles(&policy.roles)
    );
    text.push_str(&policy_expressions(policy));
    text
}

/// ` using (…) with check (…)`
pub(super) fn policy_expressions(policy: &Policy) -> String {
    let using = policy.using_expression.as_ref().map(|text| format!(" using ({text})"));
    let check = policy.check_expression.as_ref().map(|text| format!(" with check ({text})"));
    [using, check].into_iter().flatten().collect()
}
