//! Comparisons that refuse to compare unlike values.
//!
//! Rhai answers `"5" > 3` with false; a rule built on that never fires, and nobody is told. Here it
//! is an error. `()` may be compared by `==` and `!=` with anything: that is how a rule asks whether
//! something was measured.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map};

use super::error::a_kind;

type Verdict = Result<bool, Box<EvalAltResult>>;

/// Registers the six comparisons, and `not`, which is lost with Rhai's fast operators.
pub(super) fn register(engine: &mut Engine) {
    engine
        .register_fn("!", |bool: bool| !bool)
        .register_fn("==", |left: Dynamic, right: Dynamic| equal(&left, &right, "=="))
        .register_fn("!=", |left: Dynamic, right: Dynamic| {
            equal(&left, &right, "!=").map(|equal| !equal)
        })
        .register_fn("<", |left: Dynamic, right: Dynamic| {
            ordered(&left, &right, "<", Ordering::is_lt)
        })
        .register_fn("<=", |left: Dynamic, right: Dynamic| {
            ordered(&left, &right, "<=", Ordering::is_le)
        })
        .register_fn(">", |left: Dynamic, right: Dynamic| {
            ordered(&left, &right, ">", Ordering::is_gt)
        })
        .register_fn(">=", |left: Dynamic, right: Dynamic| {
            ordered(&left, &right, ">=", Ordering::is_ge)
        });
}

fn equal(left: &Dynamic, right: &Dynamic, operator: &str) -> Verdict {
    if left.is_unit() || right.is_unit() {
        return Ok(left.is_unit() && right.is_unit());
    }
    if let Some(order) = order(left, right) {
        return Ok(order.is_eq());
    }
    if let Some(same) = scalars_equal(left, right) {
        return Ok(same);
    }
    if let (Some(left), Some(right)) = (left.read_lock::<Array>(), right.read_lock::<Array>()) {
        return all_equal(left.iter().zip(right.iter()), left.len() == right.len(), operator);
    }
    if let (Some(left), Some(right)) = (left.read_lock::<Map>(), right.read_lock::<Map>()) {
        let same_keys = left.keys().eq(right.keys());
        return all_equal(left.values().zip(right.values()), same_keys, operator);
    }
    Err(unlike(left, right, operator).into())
}

fn all_equal<'a>(
    mut pairs: impl Iterator<Item = (&'a Dynamic, &'a Dynamic)>,
    same_shape: bool,
    operator: &str,
) -> Verdict {
    if !same_shape {
        return Ok(false);
    }
    pairs.try_fold(true, |same, (left, right)| Ok(same && equal(left, right, operator)?))
}

fn scalars_equal(left: &Dynamic, right: &Dynamic) -> Option<bool> {
    match (left.as_bool(), right.as_bool()) {
        (Ok(left), Ok(right)) => Some(left == right),
        // NaN has no order, but it may be compared.
        _ if is_number(left) && is_number(right) => Some(false),
        _ => None,
    }
}

fn ordered(
    left: &Dynamic,
    right: &Dynamic,
    operator: &str,
    holds: fn(Ordering) -> bool,
) -> Verdict {
    match order(left, right) {
        Some(order) => Ok(holds(order)),
        None if is_number(left) && is_number(right) => Ok(false),
        None => Err(unlike(left, right, operator).into()),
    }
}

/// The order of two numbers or two texts.
pub(super) fn order(left: &Dynamic, right: &Dynamic) -> Option<Ordering> {
    if let (Ok(left), Ok(right)) = (left.as_int(), right.as_int()) {
        return Some(left.cmp(&right));
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return left.partial_cmp(&right);
    }
    Some(text(left)?.cmp(&text(right)?))
}

fn is_number(value: &Dynamic) -> bool {
    value.is_int() || value.is_float()
}

/// A number as a float.
#[expect(clippy::cast_precision_loss, reason = "measurements beyond 2^53 may be compared roughly")]
pub(super) fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|int| int as f64))
}

/// A text, or a character as a text.
fn text(value: &Dynamic) -> Option<ImmutableString> {
    match value.read_lock::<ImmutableString>() {
        Some(text) => Some(text.clone()),
        None => value.as_char().ok().map(|char| char.to_string().into()),
    }
}

fn unlike(left: &Dynamic, right: &Dynamic, operator: &str) -> String {
    let (left, right) = (a_kind(left.type_name()), a_kind(right.type_name()));
    format!("`{operator}` cannot compare {left} with {right}")
}
