//! Durations and numbers that shape a run: written out, or computed from the parameters.

use serde_json::{Value, json};

use crate::kernel::Span;
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::tree::Node;

/// A duration or a number. It is known when the plan is made, at the latest.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting<T> {
    /// It is written out.
    Written(T),
    /// It follows from the parameters.
    Computed(Computed),
}

/// A setting that follows from the parameters: a template that names nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// The key that it stands under.
    pub key: &'static str,
    /// The template.
    pub template: Node,
    rule: Rule,
}

/// What a setting may come to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// A duration.
    Duration,
    /// A duration that is longer than nothing.
    PositiveDuration,
    /// A whole number of at least this.
    Count(u32),
    /// A number from the first to the second.
    Number(f64, f64),
}

/// A type that settings have.
pub trait Quantity: Copy + Default {
    #[doc(hidden)]
    fn of(value: &Value, computed: &Computed) -> Option<Self>;
}

impl Quantity for Span {
    fn of(value: &Value, computed: &Computed) -> Option<Self> {
        let span = Self::parse(value.as_str()?).ok()?;
        (computed.rule == Rule::Duration || !span.0.is_zero()).then_some(span)
    }
}

impl Quantity for u32 {
    fn of(value: &Value, computed: &Computed) -> Option<Self> {
        let Rule::Count(least) = computed.rule else { return None };
        Self::try_from(value.as_u64()?).ok().filter(|count| *count >= least)
    }
}

impl Quantity for f64 {
    fn of(value: &Value, computed: &Computed) -> Option<Self> {
        let Rule::Number(least, most) = computed.rule else { return None };
        value.as_f64().filter(|number| (least..=most).contains(number))
    }
}

impl Computed {
    /// The type that its expression must have.
    pub(in crate::workflow) fn schema(&self) -> Value {
        match self.rule {
            Rule::Duration | Rule::PositiveDuration => {
                json!({ "type": "string", "format": "duration" })
            }
            Rule::Count(_) => json!({ "type": "integer" }),
            Rule::Number(..) => json!({ "type": "number" }),
        }
    }

    /// What its template came to, or why that will not do.
    pub fn take<T: Quantity>(&self, value: &Value) -> Result<T, String> {
        T::of(value, self).ok_or_else(|| {
            let wanted = match self.rule {
                Rule::Duration => "a duration such as `30s`".to_owned(),
                Rule::PositiveDuration => {
                    "a duration such as `30s`, longer than nothing".to_owned()
                }
                Rule::Count(least) => format!("a whole number of at least {least}"),
                Rule::Number(least, most) => format!("a number from {least} to {most}"),
            };
            format!("it comes to `{value}`, but must be {wanted}")
        })
    }
}

impl<T> Setting<T> {
    /// The template, when it has one.
    pub const fn computed(&self) -> Option<&Computed> {
        match self {
            Self::Written(_) => None,
            Self::Computed(computed) => Some(computed),
        }
    }

    fn read(
        (map, key): (&Fields<'_>, &'static str),
        rule: Rule,
        written: impl FnOnce(&Node) -> Option<T>,
    ) -> Option<Self> {
        let node = map.get(key)?;
        if fields::has_expression(node) {
            return Some(Self::Computed(Computed { key, template: node.clone(), rule }));
        }
        written(node).map(Self::Written)
    }
}

impl Setting<Span> {
    /// A duration.
    pub(in crate::workflow) fn duration(
        map: &Fields<'_>,
        key: &'static str,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let written = |node: &Node| fields::duration(node, reporter).map(|found| found.value);
        Self::read((map, key), Rule::Duration, written)
    }

    /// A duration that is longer than nothing.
    pub(in crate::workflow) fn positive_duration(
        map: &Fields<'_>,
        key: &'static str,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let written = |node: &Node| fields::positive_duration(node, reporter).map(|f| f.value);
        Self::read((map, key), Rule::PositiveDuration, written)
    }
}

impl Setting<u32> {
    /// A whole number of at least `least`.
    pub(in crate::workflow) fn count(
        map: &Fields<'_>,
        key: &'static str,
        least: u32,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let written = |node: &Node| fields::count(node, least, reporter).map(|found| found.value);
        Self::read((map, key), Rule::Count(least), written)
    }
}

impl Setting<f64> {
    /// A number in a range, its ends included.
    pub(in crate::workflow) fn number(
        map: &Fields<'_>,
        key: &'static str,
        (least, most): (f64, f64),
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let written =
            |node: &Node| fields::number(node, (least, most), reporter).map(|found| found.value);
        Self::read((map, key), Rule::Number(least, most), written)
    }
}

/// The templates among some settings.
pub(super) fn computed<'s, T: 's>(
    settings: impl IntoIterator<Item = &'s Option<Setting<T>>>,
) -> impl Iterator<Item = &'s Computed> {
    settings.into_iter().flatten().filter_map(Setting::computed)
}
