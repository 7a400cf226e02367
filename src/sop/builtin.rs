//! Functions for people who run databases, and the list of all that a text can call.

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, NativeCallContext};

use super::compare::{number, order};
use super::error::a_kind;
use crate::kernel::{ByteSize, Span};

/// A function that expressions and scripts can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// How it is called.
    pub signature: &'static str,
    /// What it gives.
    pub gives: &'static str,
}

type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// The functions to know, for the documentation. Those of Rhai's standard packages that are not
/// listed (string and list surgery, trigonometry) can be called too.
pub fn builtins() -> &'static [Builtin] {
    BUILTINS
}

macro_rules! table {
    ($($name:literal, $signature:literal, $gives:literal;)*) => {
        const BUILTINS: &[Builtin] =
            &[$(Builtin { name: $name, signature: $signature, gives: $gives }),*];
    };
}

table! {
    "abs", "abs(number)", "the number without its sign";
    "all", "list.all(|item| condition)", "whether the condition holds for every item";
    "any", "list.any(|item| condition)", "whether the condition holds for some item";
    "bytes", "bytes(\"10GiB\")", "a size as a number of bytes";
    "ceiling", "float.ceiling()", "the next whole number, as a float";
    "contains", "list.contains(item), text.contains(part), map.contains(key)", "whether it is in there; also `item in list`";
    "duration", "duration(\"30m\")", "a length of time in seconds";
    "ends_with", "text.ends_with(part)", "whether the text ends so";
    "filter", "list.filter(|item| condition)", "the items for which the condition holds";
    "find", "list.find(|item| condition)", "the first such item, or `()`";
    "floor", "float.floor()", "the whole number below, as a float";
    "index_of", "list.index_of(item)", "the place of the item, or -1";
    "is_empty", "x.is_empty()", "whether a list, map or text has nothing in it";
    "join", "list.join(\", \")", "the items as one text";
    "keys", "map.keys()", "the names of its fields, sorted";
    "len", "x.len()", "how many items, fields or characters";
    "map", "list.map(|item| value)", "a list of the values";
    "max", "max(a, b), list.max()", "the greatest number or text; `()` for an empty list";
    "min", "min(a, b), list.min()", "the least number or text; `()` for an empty list";
    "parse_float", "parse_float(text)", "the number in a text";
    "parse_int", "parse_int(text)", "the whole number in a text";
    "percent", "percent(part, whole)", "the share in percent; 0.0 of nothing";
    "print", "print(x)", "shows a value beside the result";
    "push", "list.push(item)", "puts an item at the end";
    "reduce", "list.reduce(|sum, item| value, start)", "folds the items into one value";
    "round", "float.round(), round(number, digits)", "the number with that many decimal places";
    "rule", "rule(name, condition, why)", "the condition, which `explain` shows with the values that it saw";
    "show_bytes", "show_bytes(10737418240)", "`10.0 GiB`";
    "show_duration", "show_duration(5400)", "`1h 30m`";
    "sort_by", "list.sort_by(|a, b| a - b)", "sorts the list in place";
    "sorted_by", "list.sorted_by(|item| key)", "the items in the order of their keys, smallest first";
    "split", "text.split(\",\")", "the parts of a text";
    "starts_with", "text.starts_with(part)", "whether the text starts so";
    "sum", "list.sum()", "the sum of numbers; 0 for an empty list";
    "to_float", "int.to_float()", "the number as a float";
    "to_int", "float.to_int()", "the number without its fraction";
    "to_lower", "text.to_lower()", "the text in small letters";
    "to_string", "x.to_string()", "the value as a text";
    "to_upper", "text.to_upper()", "the text in capitals";
    "trim", "text.trim()", "cuts blanks off, in place";
    "type_of", "type_of(x)", "the kind of a value, as a text";
    "values", "map.values()", "the values of its fields";
}

/// Registers what Rhai's own packages lack.
pub(super) fn register(engine: &mut Engine) {
    quantities(engine);
    numbers(engine);
    lists(engine);
}

fn quantities(engine: &mut Engine) {
    engine.register_fn("duration", |text: &str| -> Fallible<f64> {
        Span::parse(text).map(|span| span.0.as_secs_f64()).map_err(|error| error.to_string().into())
    });
    engine.register_fn("bytes", |text: &str| -> Fallible<i64> {
        let size = ByteSize::parse(text).map_err(|error| error.to_string())?;
        i64::try_from(size.0).map_err(|_| format!("`{text}` is too large").into())
    });
    engine.register_fn("show_bytes", |size: Dynamic| -> Fallible<String> {
        let size = wanted_number(&size, "show_bytes")?;
        Ok(show_bytes(size))
    });
    engine.register_fn("show_duration", |seconds: Dynamic| -> Fallible<String> {
        let seconds = wanted_number(&seconds, "show_duration")?;
        let span = std::time::Duration::try_from_secs_f64(seconds.round())
            .map_err(|_| format!("{seconds} seconds are no length of time"))?;
        Ok(Span(span).to_string())
    });
}

fn show_bytes(size: f64) -> String {
    let mut rest = size;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter().peekable();
    while let Some(unit) = units.next() {
        if rest.abs() < 1024.0 || units.peek().is_none() {
            return if unit == "B" { format!("{rest:.0} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1024.0;
    }
    format!("{size} B")
}

fn numbers(engine: &mut Engine) {
    engine.register_fn("percent", |part: Dynamic, whole: Dynamic| -> Fallible<f64> {
        let (part, whole) = (wanted_number(&part, "percent")?, wanted_number(&whole, "percent")?);
        Ok(if whole == 0.0 { 0.0 } else { 100.0 * part / whole })
    });
    engine.register_fn("round", |number: Dynamic, digits: i64| -> Fallible<Dynamic> {
        if number.is_int() {
            return Ok(number);
        }
        let digits = i32::try_from(digits.clamp(0, 15)).unwrap_or(0);
        let scale = 10_f64.powi(digits);
        let number = wanted_number(&number, "round")?;
        Ok(Dynamic::from_float((number * scale).round() / scale))
    });
    engine.register_fn("round", |number: i64| number);
    engine.register_fn("max", |left: Dynamic, right: Dynamic| pick([left, right], "max", true));
    engine.register_fn("min", |left: Dynamic, right: Dynamic| pick([left, right], "min", false));
}

fn lists(engine: &mut Engine) {
    engine.register_fn("max", |list: Array| pick(list, "max", true));
    engine.register_fn("min", |list: Array| pick(list, "min", false));
    engine.register_fn("sum", |list: Array| sum(&list));
    engine.register_fn("any", |context: NativeCallContext<'_>, list: Array, condition: FnPtr| {
        any(&context, list, &condition)
    });
    engine.register_fn("sorted_by", |context: NativeCallContext<'_>, list: Array, key: FnPtr| {
        sorted_by(&context, list, &key)
    });
    engine.register_fn("join", |list: Array, between: &str| -> String {
        let items: Vec<String> = list.iter().map(ToString::to_string).collect();
        items.join(between)
    });
}

fn wanted_number(value: &Dynamic, function: &str) -> Fallible<f64> {
    number(value).ok_or_else(|| {
        format!("`{function}` works on numbers, and this is {}", a_kind(value.type_name())).into()
    })
}

fn pick(
    items: impl IntoIterator<Item = Dynamic>,
    function: &str,
    greatest: bool,
) -> Fallible<Dynamic> {
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else { return Ok(Dynamic::UNIT) };
    order(&best, &best).ok_or_else(|| not_comparable(function, &best))?;
    for item in items {
        let found = order(&item, &best).ok_or_else(|| not_comparable(function, &item))?;
        if if greatest { found.is_gt() } else { found.is_lt() } {
            best = item;
        }
    }
    Ok(best)
}

fn not_comparable(function: &str, item: &Dynamic) -> String {
    let kind = a_kind(item.type_name());
    format!("`{function}` compares numbers with numbers or texts with texts, and found {kind}")
}

fn sum(list: &Array) -> Fallible<Dynamic> {
    let whole = list.iter().try_fold(0_i64, |sum, item| {
        let item = item.as_int().ok()?;
        sum.checked_add(item)
    });
    if let Some(whole) = whole {
        return Ok(whole.into());
    }
    let sum = list.iter().try_fold(0.0, |sum, item| Ok(sum + wanted_number(item, "sum")?));
    sum.map(Dynamic::from_float)
}

fn any(context: &NativeCallContext<'_>, list: Array, condition: &FnPtr) -> Fallible<bool> {
    for item in list {
        if condition.call_within_context::<bool>(context, (item,))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sorted_by(context: &NativeCallContext<'_>, list: Array, key: &FnPtr) -> Fallible<Array> {
    let mut keyed = Vec::with_capacity(list.len());
    for item in list {
        let key: Dynamic = key.call_within_context(context, (item.clone(),))?;
        keyed.push((key, item));
    }
    if let Some((first, _)) = keyed.first() {
        let odd = keyed.iter().find(|(key, _)| order(first, key).is_none());
        if let Some((odd, _)) = odd {
            return Err(not_comparable("sorted_by", odd).into());
        }
    }
    keyed.sort_by(|(left, _), (right, _)| order(left, right).unwrap_or(std::cmp::Ordering::Equal));
    Ok(keyed.into_iter().map(|(_, item)| item).collect())
}
