//! The functions by name. Their meaning is documented in `gillnet.plan.functions`, whose names these are.

use super::build::{refused, Typed};
use super::{cast, compare, logic, numeric, text, time};
use crate::Result;

type Build = fn(&str, Vec<Typed>) -> Result<Typed>;

/// Name, least and most arguments, and what compiles the call.
const FUNCTIONS: &[(&str, usize, usize, Build)] = &[
    ("add", 2, 2, numeric::arithmetic),
    ("sub", 2, 2, numeric::arithmetic),
    ("mul", 2, 2, numeric::multiply),
    ("div", 2, 2, numeric::float_binary),
    ("floor_div", 2, 2, numeric::arithmetic),
    ("mod", 2, 2, numeric::arithmetic),
    ("pow", 2, 2, numeric::float_binary),
    ("neg", 1, 1, numeric::unary),
    ("abs", 1, 1, numeric::unary),
    ("floor", 1, 1, numeric::whole),
    ("ceil", 1, 1, numeric::whole),
    ("round", 2, 2, numeric::round),
    ("sqrt", 1, 1, numeric::float_unary),
    ("exp", 1, 1, numeric::float_unary),
    ("log", 1, 1, numeric::float_unary),
    ("log1p", 1, 1, numeric::float_unary),
    ("clip_lower", 2, 2, numeric::choose),
    ("clip_upper", 2, 2, numeric::choose),
    ("min_horizontal", 1, MANY, numeric::choose),
    ("max_horizontal", 1, MANY, numeric::choose),
    ("eq", 2, 2, compare::compare),
    ("ne", 2, 2, compare::compare),
    ("lt", 2, 2, compare::compare),
    ("le", 2, 2, compare::compare),
    ("gt", 2, 2, compare::compare),
    ("ge", 2, 2, compare::compare),
    ("is_in", 1, MANY, compare::is_in),
    ("is_nan", 1, 1, compare::is_nan),
    ("and", 2, MANY, logic::connective),
    ("or", 2, MANY, logic::connective),
    ("not", 1, 1, logic::not),
    ("is_null", 1, 1, logic::nullity),
    ("is_not_null", 1, 1, logic::nullity),
    ("fill_null", 2, 2, logic::coalesce),
    ("coalesce", 1, MANY, logic::coalesce),
    ("cast", 2, 2, cast::call),
    ("len_bytes", 1, 1, text::length),
    ("len_chars", 1, 1, text::length),
    ("to_lowercase", 1, 1, text::letter_case),
    ("to_uppercase", 1, 1, text::letter_case),
    ("contains", 2, 2, text::search),
    ("starts_with", 2, 2, text::search),
    ("ends_with", 2, 2, text::search),
    ("slice", 2, 3, text::slice),
    ("concat_str", 2, MANY, text::concat),
    ("year", 1, 1, time::part),
    ("month", 1, 1, time::part),
    ("day", 1, 1, time::part),
    ("weekday", 1, 1, time::part),
    ("hour", 1, 1, time::part),
    ("minute", 1, 1, time::part),
    ("second", 1, 1, time::part),
    ("epoch", 2, 2, time::epoch),
];

/// Arguments that a call may have; more are a mistake in a generated plan.
const MANY: usize = 10_000;

/// The names of all functions, in the order of the documented table.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name)
}

/// Compile a call.
pub fn call(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let Some((_, least, most, build)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
        return refused(format!("unknown function {name:?}"));
    };
    if !(*least..=*most).contains(&arguments.len()) {
        return refused(format!("{name} does not take {} arguments", arguments.len()));
    }
    build(name, arguments)
}
