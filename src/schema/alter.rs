//! The statements that change objects in place. PURE.

use super::create::{
    attribute, create_view, enable_trigger, identity, identity_word, number_words, option_text,
    owned_by, policy_expressions, policy_roles, regrant, replica_identity, sequence_numbers,
    set_comment, set_default,
};
use super::names::{literal, name, pair, relation};
use super::object::{Attribute, Body, Column, Domain, Object, ObjectId, Sequence, Table};
use crate::kernel::Ident;

/// What turns an object into another of the same identity. `retype` moves a column over to its type
/// again, whose definition is another one now.
pub(super) fn alter(id: &ObjectId, before: &Object, after: &Object, retype: bool) -> Vec<String> {
    let own = name(id);
    let mut done = match (&before.body, &after.body) {
        (Body::Enum { labels: old }, Body::Enum { labels: new }) => add_labels(&own, old, new),
        (Body::Domain(old), Body::Domain(new)) => alter_domain(&own, old, new),
        (Body::Composite { attributes: old }, Body::Composite { attributes: new }) => {
            alter_composite(&own, old, new)
        }
        (Body::Table(old), Body::Table(new)) => alter_table(&own, old, new),
        (Body::Column(old), Body::Column(new)) => alter_column(id, old, new, retype),
        (Body::Sequence(old), Body::Sequence(new)) => alter_sequence(&own, old, new),
        (same, other) if same == other => Vec::new(),
        (_, Body::Extension(extension)) => {
            vec![format!("alter extension {own} update to {}", literal(&extension.version))]
        }
        (_, Body::Default { expression }) => vec![set_default(id, expression)],
        (_, Body::Constraint(_)) => {
            let constraint = Ident::new(&id.name);
            vec![format!("alter table {} validate constraint {constraint}", relation(id))]
        }
        (_, Body::View(view)) => vec![create_view(&own, view, true)],
        (_, Body::Routine(routine)) => vec![routine.definition.trim_end().to_owned()],
        (_, Body::Trigger(trigger)) => vec![enable_trigger(id, &trigger.enabled)],
        (_, Body::Policy(policy)) => vec![format!(
            "alter policy {} on {} to {}{}",
            Ident::new(&id.name),
            relation(id),
            policy_roles(&policy.roles),
            policy_expressions(policy)
        )],
        _ => Vec::new(),
    };
    if before.comment != after.comment {
        done.push(set_comment(id, after, after.comment.as_deref()));
    }
    done.extend(regrant(id, after, &before.grants, &after.grants));
    done
}

fn add_labels(name: &str, old: &[String], new: &[String]) -> Vec<String> {
    let mut done = Vec::new();
    let mut previous: Option<&String> = None;
    for label in new {
        if !old.contains(label) {
            let place = match (previous, new.iter().find(|other| old.contains(other))) {
                (Some(before), _) => format!(" after {}", literal(before)),
                (None, Some(first)) => format!(" before {}", literal(first)),
                (None, None) => String::new(),
            };
            done.push(format!("alter type {name} add value {}{place}", literal(label)));
        }
        previous = Some(label);
    }
    done
}

fn alter_domain(name: &str, old: &Domain, new: &Domain) -> Vec<String> {
    let mut done = Vec::new();
    for (check, text) in &old.checks {
        if new.checks.get(check) != Some(text) {
            done.push(format!("alter domain {name} drop constraint {}", Ident::new(check)));
        }
    }
    if old.default != new.default {
        done.push(match &new.default {
            Some(default) => format!("alter domain {name} set default {default}"),
            None => format!("alter domain {name} drop default"),
        });
    }
    if old.not_null != new.not_null {
        let verb = if new.not_null { "set" } else { "drop" };
        done.push(format!("alter domain {name} {verb} not null"));
    }
    for (check, text) in &new.checks {
        if old.checks.get(check) != Some(text) {
            done.push(format!("alter domain {name} add constraint {} {text}", Ident::new(check)));
        }
    }
    done
}

fn alter_composite(name: &str, old: &[Attribute], new: &[Attribute]) -> Vec<String> {
    let dropped = old.iter().filter(|one| !new.contains(one));
    let dropped =
        dropped.map(|one| format!("alter type {name} drop attribute {}", Ident::new(&one.name)));
    let added = new.iter().filter(|one| !old.contains(one));
    let added = added.map(|one| format!("alter type {name} add attribute {}", attribute(one)));
    dropped.chain(added).collect()
}

fn alter_table(name: &str, old: &Table, new: &Table) -> Vec<String> {
    let mut done = Vec::new();
    let mut say = |what: String| done.push(format!("alter table {name} {what}"));
    let is_moved = (&old.partition_of, &old.bound) != (&new.partition_of, &new.bound);
    for parent in old.inherits.iter().filter(|parent| !new.inherits.contains(parent)) {
        say(format!("no inherit {}", pair(parent)));
    }
    for parent in new.inherits.iter().filter(|parent| !old.inherits.contains(parent)) {
        say(format!("inherit {}", pair(parent)));
    }
    if old.unlogged != new.unlogged {
        say(format!("set {}", if new.unlogged { "unlogged" } else { "logged" }));
    }
    let key = |option: &String| option.split('=').next().unwrap_or_default().to_owned();
    let kept: Vec<_> = new.options.iter().map(key).collect();
    let gone: Vec<_> = old.options.iter().map(key).filter(|one| !kept.contains(one)).collect();
    if !gone.is_empty() {
        say(format!("reset ({})", gone.join(", ")));
    }
    let set: Vec<_> = new.options.difference(&old.options).map(|one| option_text(one)).collect();
    if !set.is_empty() {
        say(format!("set ({})", set.join(", ")));
    }
    if old.row_security != new.row_security {
        let verb = if new.row_security { "enable" } else { "disable" };
        say(format!("{verb} row level security"));
    }
    if old.forced_row_security != new.forced_row_security {
        let verb = if new.forced_row_security { "force" } else { "no force" };
        say(format!("{verb} row level security"));
    }
    done.extend(replica_identity(name, &new.replica_identity, &old.replica_identity));
    if let (true, Some(parent)) = (is_moved, &old.partition_of) {
        done.push(format!("alter table {} detach partition {name}", pair(parent)));
    }
    if let (true, Some(parent), Some(bound)) = (is_moved, &new.partition_of, &new.bound) {
        done.push(format!("alter table {} attach partition {name} {bound}", pair(parent)));
    }
    done
}

fn alter_column(id: &ObjectId, old: &Column, new: &Column, retype: bool) -> Vec<String> {
    let mut done = Vec::new();
    let start = format!("alter table {} alter column {}", relation(id), Ident::new(&id.name));
    let mut say = |what: String| done.push(format!("{start} {what}"));
    if !old.generated.is_empty() && new.generated.is_empty() {
        say("drop expression".to_owned());
    }
    if !old.identity.is_empty() && new.identity.is_empty() {
        say("drop identity".to_owned());
    }
    if retype {
        let column = Ident::new(&id.name);
        let collation = new.collation.as_ref().map(|name| format!(" collate {name}"));
        let (kind, collation) = (&new.of_type, collation.unwrap_or_default());
        // A generated column has no values of its own to be cast.
        let cast = if new.generated.is_empty() {
            let through = if old.of_type == new.of_type { "::text" } else { cast(old, new) };
            format!(" using {column}{through}::{kind}")
        } else {
            String::new()
        };
        say(format!("type {kind}{collation}{cast}"));
    }
    if old.not_null != new.not_null {
        say(format!("{} not null", if new.not_null { "set" } else { "drop" }));
    }
    match (old.identity.is_empty(), new.identity.is_empty()) {
        (true, false) => say(format!("add {}", identity(new))),
        (false, false) => {
            if old.identity != new.identity {
                say(format!("set generated {}", identity_word(&new.identity)));
            }
            if let (true, Some(numbers)) = (old.sequence != new.sequence, &new.sequence) {
                let set: Vec<_> = number_words(numbers).map(|one| format!("set {one}")).into();
                say(set.join(" "));
            }
        }
        _ => {}
    }
    done
}

/// What stands between a column and the cast to its new type. Text leads everywhere, but many types
/// have shorter ways.
fn cast(old: &Column, new: &Column) -> &'static str {
    let is_plain = |kind: &str| {
        let base = kind.split('(').next().unwrap_or(kind).trim();
        [
            "smallint",
            "integer",
            "bigint",
            "numeric",
            "real",
            "double precision",
            "text",
            "character varying",
            "character",
            "date",
            "boolean",
        ]
        .contains(&base)
            || base.starts_with("timestamp")
    };
    if is_plain(&old.of_type) && is_plain(&new.of_type) { "" } else { "::text" }
}

fn alter_sequence(name: &str, old: &Sequence, new: &Sequence) -> Vec<String> {
    let mut done = Vec::new();
    if (&old.of_type, &old.numbers) != (&new.of_type, &new.numbers) {
        let numbers = sequence_numbers(&new.numbers);
        done.push(format!("alter sequence {name} as {} {numbers}", new.of_type));
    }
    if old.unlogged != new.unlogged {
        let word = if new.unlogged { "unlogged" } else { "logged" };
        done.push(format!("alter sequence {name} set {word}"));
    }
    if old.owned_by != new.owned_by {
        let owner = new.owned_by.as_ref().map_or_else(|| " owned by none".to_owned(), owned_by);
        done.push(format!("alter sequence {name}{owner}"));
    }
    done
}
