//! The Jinja environment that prompts render in: what a template may call, and how far it may go.
//!
//! Filters, tests and functions are an allow list. There is no loader: the other templates are those that the
//! task file names, which were read with it. Fuel pays for every step and for every byte produced, and
//! recursion is limited.

use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, escape_formatter, filters,
    functions, tests as jinja_tests,
};

use crate::infill::{MAX_GAPS, gap_ranges};
use crate::markers::Markers;
use crate::methods;
use crate::suggest::quoted;

/// The steps that one rendering may take. A step is an instruction, or 64 bytes produced.
pub(crate) const MAX_FUEL: u64 = 100_000;

/// How deeply macros and blocks may nest.
const MAX_RECURSION: usize = 64;

/// The names of the filters that templates may use. `map` is not among them: it would let an input name a
/// filter.
pub(crate) const FILTERS: [&str; 31] = [
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "first",
    "float",
    "gaps",
    "int",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "title",
    "trim",
    "unique",
    "upper",
];

/// The names of the tests that templates may use after `is`.
pub(crate) const TESTS: [&str; 26] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lower",
    "lt",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// The names of the functions that templates may call; `special` is replaced before a template is compiled.
pub(crate) const FUNCTIONS: [&str; 5] = ["mask", "namespace", "range", "special", "zip"];

/// An error of ours, carried through minijinja.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A picture or a list stands where text is needed.
    NotText(String),
    /// The gaps of a text are not as they must be.
    Gaps(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(message) | Self::Gaps(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::InvalidOperation, fault.to_string()).with_source(fault)
    }
}

/// A picture, as templates see it: it can be written, and that is all.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) marker: char,
}

impl Object for Picture {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_char(f, self.marker)
    }
}

fn is_picture(value: &Value) -> bool {
    value.downcast_object_ref::<Picture>().is_some()
}

/// Remembers in the state of a rendering that `gaps` was used.
struct GapsUsed;

/// Makes the syntax of templates: a line that holds a tag alone leaves nothing behind.
pub(crate) fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
}

/// Makes the environment for one rendering.
pub(crate) fn environment<'a>(markers: &Arc<Markers>) -> Result<Environment<'a>, Error> {
    let mut env = Environment::empty();
    env.set_fuel(Some(MAX_FUEL));
    env.set_recursion_limit(MAX_RECURSION);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_debug(true);
    env.set_formatter(write_value);
    env.set_syntax(syntax()?);
    add_filters(&mut env);
    add_tests(&mut env);
    env.add_function("range", functions::range);
    env.add_function("namespace", functions::namespace);
    env.add_function("zip", methods::zip);
    env.set_unknown_method_callback(methods::call);
    let masks = Arc::clone(markers);
    env.add_function("mask", move |index: &Value| mask(&masks, index));
    let masks = Arc::clone(markers);
    env.add_filter("gaps", move |state: &mut State, text: &Value| {
        gaps(&masks, state, text)
    });
    Ok(env)
}

fn add_filters(env: &mut Environment) {
    add_text_filter(env, "capitalize", Value::from_function(filters::capitalize));
    add_text_filter(env, "float", Value::from_function(filters::float));
    add_text_filter(env, "int", Value::from_function(filters::int));
    add_text_filter(env, "lines", Value::from_function(filters::lines));
    add_text_filter(env, "lower", Value::from_function(filters::lower));
    add_text_filter(env, "replace", Value::from_function(filters::replace));
    add_text_filter(env, "split", Value::from_function(filters::split));
    add_text_filter(env, "title", Value::from_function(filters::title));
    add_text_filter(env, "trim", Value::from_function(filters::trim));
    add_text_filter(env, "upper", Value::from_function(filters::upper));
    env.add_filter("abs", filters::abs);
    env.add_filter("count", filters::length);
    env.add_filter("d", filters::default);
    env.add_filter("default", filters::default);
    env.add_filter("first", filters::first);
    env.add_filter("join", filters::join);
    env.add_filter("last", filters::last);
    env.add_filter("length", filters::length);
    env.add_filter("list", filters::list);
    env.add_filter("max", filters::max);
    env.add_filter("min", filters::min);
    env.add_filter("reject", filters::reject);
    env.add_filter("rejectattr", filters::rejectattr);
    env.add_filter("reverse", filters::reverse);
    env.add_filter("round", filters::round);
    env.add_filter("select", filters::select);
    env.add_filter("selectattr", filters::selectattr);
    env.add_filter("sort", filters::sort);
    env.add_filter("string", string);
    env.add_filter("unique", filters::unique);
}

/// Adds a filter that works on text, and says so when it is given a picture or a list.
fn add_text_filter(env: &mut Environment, name: &'static str, filter: Value) {
    env.add_filter(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
        let arguments: Vec<Value> = arguments.0.into_iter().map(ValueOrKwargs::into_value).collect();
        if let Some(value) = arguments.first() {
            require_text(value, &format!("the filter `{name}` works on text"))?;
        }
        filter.call(state, &arguments)
    });
}

fn add_tests(env: &mut Environment) {
    env.add_test("boolean", jinja_tests::is_boolean);
    env.add_test("defined", jinja_tests::is_defined);
    env.add_test("divisibleby", jinja_tests::is_divisibleby);
    env.add_test("endingwith", jinja_tests::is_endingwith);
    env.add_test("eq", jinja_tests::is_eq);
    env.add_test("even", jinja_tests::is_even);
    env.add_test("false", jinja_tests::is_false);
    env.add_test("float", jinja_tests::is_float);
    env.add_test("ge", jinja_tests::is_ge);
    env.add_test("gt", jinja_tests::is_gt);
    env.add_test("in", jinja_tests::is_in);
    env.add_test("integer", jinja_tests::is_integer);
    env.add_test("iterable", jinja_tests::is_iterable);
    env.add_test("le", jinja_tests::is_le);
    env.add_test("lower", jinja_tests::is_lower);
    env.add_test("lt", jinja_tests::is_lt);
    env.add_test("ne", jinja_tests::is_ne);
    env.add_test("none", jinja_tests::is_none);
    env.add_test("number", jinja_tests::is_number);
    env.add_test("odd", jinja_tests::is_odd);
    env.add_test("sequence", jinja_tests::is_sequence);
    env.add_test("startingwith", jinja_tests::is_startingwith);
    env.add_test("string", jinja_tests::is_string);
    env.add_test("true", jinja_tests::is_true);
    env.add_test("undefined", jinja_tests::is_undefined);
    env.add_test("upper", jinja_tests::is_upper);
}

/// Writes what `{{ }}` holds: text, numbers, booleans and pictures as they are, and nothing else.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::Undefined => {
            Ok(write!(out, "{value}")?)
        }
        ValueKind::Plain if is_picture(value) => Ok(write!(out, "{value}")?),
        // Carries an error of its own, which this returns.
        ValueKind::Invalid => escape_formatter(out, state, value),
        _ => require_text(value, "`{{ }}` writes text"),
    }
}

/// Writes any value as Python's `str` does: a list as `['a', 1]`, and `none` as `None`.
fn string(state: &State, value: &Value) -> Result<Value, Error> {
    if is_picture(value) || contains_picture(value) {
        require_text(
            value,
            "the filter `string` works on text, numbers, lists and mappings",
        )?;
    }
    methods::charge_written(state, value)?;
    filters::string(state, value)
}

/// Says what a value is and what to write instead, when it is not text.
pub(crate) fn require_text(value: &Value, rule: &str) -> Result<(), Error> {
    let found = match value.kind() {
        ValueKind::None => "and this is `none`".to_owned(),
        ValueKind::Seq | ValueKind::Iterable if contains_picture(value) => {
            "and this is a list of pictures: take one with `[0]`, or write `{% for image in images %}{{ image }}{% endfor %}`"
                .to_owned()
        }
        ValueKind::Seq | ValueKind::Iterable => "and this is a list: write `| join(\", \")`".to_owned(),
        ValueKind::Plain if is_picture(value) => "and this is a picture: write it as `{{ image }}`, without a filter".to_owned(),
        ValueKind::Map => "and this is a mapping or a macro: write `{{ name() }}` to call a macro".to_owned(),
        ValueKind::Plain | ValueKind::Bytes => format!("and this is a {}", value.kind()),
        _ => return Ok(()),
    };
    Err(Fault::NotText(format!("{rule}, {found}")).into())
}

fn contains_picture(value: &Value) -> bool {
    value
        .as_object()
        .and_then(|list| list.try_iter())
        .is_some_and(|mut items| items.next().is_some_and(|item| is_picture(&item)))
}

/// Returns the mask `<extra_id_N>`.
fn mask(markers: &Markers, index: &Value) -> Result<Value, Error> {
    let number = if index.kind() == ValueKind::Number {
        index.as_usize()
    } else {
        None
    };
    number
        .and_then(|index| markers.mask(index))
        .map(|mask| Value::from(mask.to_string()))
        .ok_or_else(|| {
            let last = MAX_GAPS - 1;
            let message = format!(
                "expected `mask(N)` with a whole number from 0 to {last}, found {}",
                quoted(&index.to_string())
            );
            Error::new(ErrorKind::InvalidOperation, message)
        })
}

/// Puts a mask into each gap of a text.
fn gaps(markers: &Markers, state: &mut State, text: &Value) -> Result<Value, Error> {
    require_text(text, "the filter `gaps` works on text")?;
    let Some(text) = text.as_str() else {
        let message = format!(
            "the filter `gaps` works on text, and this is {}",
            quoted(&text.to_string())
        );
        return Err(Fault::NotText(message).into());
    };
    if state.get_extension::<GapsUsed>().is_some() {
        let message = "`gaps` may be used once in a prompt, since its masks are counted from <extra_id_0>; keep its \
                       result with `{% set gapped = text | gaps %}` to write it again";
        return Err(Fault::Gaps(message.to_owned()).into());
    }
    state.get_or_insert_extension(GapsUsed);
    let mut masked = String::with_capacity(text.len());
    let mut position = 0;
    for (index, gap) in gap_ranges(text).enumerate() {
        let mask = markers
            .mask(index)
            .ok_or_else(|| Fault::Gaps(too_many_gaps(text)))?;
        masked.push_str(text.get(position..gap.start).unwrap_or_default());
        masked.push(mask);
        position = gap.end;
    }
    masked.push_str(text.get(position..).unwrap_or_default());
    Ok(Value::from(masked))
}

/// Says that a text has more gaps than there are masks.
pub(crate) fn too_many_gaps(text: &str) -> String {
    format!(
        "expected at most {MAX_GAPS} gaps (___) in the text, found {}",
        crate::infill::count_gaps(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment<'static> {
        let markers = Markers::choose([].into_iter(), [].into_iter(), [].into_iter()).unwrap();
        environment(&Arc::new(markers)).unwrap()
    }

    #[test]
    fn the_lists_of_filters_tests_and_functions_say_what_the_environment_has() {
        let env = env();
        for name in FILTERS {
            assert!(
                env.empty_state()
                    .apply_filter(name, &[])
                    .is_err_and(|e| e.kind() != ErrorKind::UnknownFilter),
                "{name}"
            );
        }
        for name in TESTS {
            assert!(
                env.empty_state()
                    .perform_test(name, &[])
                    .is_err_and(|e| e.kind() != ErrorKind::UnknownTest),
                "{name}"
            );
        }
        let globals: Vec<String> = env.globals().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(globals, ["mask", "namespace", "range", "zip"]);
        assert!(
            FUNCTIONS
                .iter()
                .all(|name| *name == "special" || globals.iter().any(|global| global == name))
        );
    }

    #[test]
    fn what_could_leave_the_sandbox_is_not_there() {
        for name in [
            "safe",
            "escape",
            "e",
            "format",
            "tojson",
            "urlencode",
            "map",
            "attr",
            "pprint",
            "indent",
            "special",
        ] {
            let error = env()
                .empty_state()
                .apply_filter(name, &[Value::from("x")])
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownFilter, "{name}");
        }
    }

    #[test]
    fn fuel_pays_for_bytes_as_well_as_for_steps() {
        let source = "{% set x = 'x' * 1000000 %}{% for i in range(9) %}{{ x }}{% endfor %}";
        let error = env().render_str(source, ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfFuel);
    }
}
