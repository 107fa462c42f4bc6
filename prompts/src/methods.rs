//! The methods of Python that templates may call on texts, lists and mappings.

use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls a method of Python: `text.split()`, `row.items()`, `labels.index("a")`.
///
/// There is no `format`, which could make a text of any size.
pub(crate) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), method, args) {
        (_, "format", _) => Err(Error::from(ErrorKind::UnknownMethod)),
        (ValueKind::Seq, "index", [item]) => index_of(state, value, item),
        (ValueKind::String, "join", [items]) => {
            charge_written(state, items)?;
            unknown_method_callback(state, value, method, args)
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

/// How deeply a value that is written may nest.
const MAX_DEPTH: usize = 64;

/// Pays for writing a value before it is written: a list may hold one long text many times, and a namespace
/// itself.
pub(crate) fn charge_written(state: &State, value: &Value) -> Result<(), Error> {
    let mut open = vec![(value.clone(), 0)];
    while let Some((value, depth)) = open.pop() {
        let bytes = value.as_str().map_or(0, str::len);
        state.consume_fuel(1 + bytes as u64 / 64)?;
        if depth > MAX_DEPTH {
            let message = format!("a list or a mapping of more than {MAX_DEPTH} levels cannot be written");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        let is_map = value.kind() == ValueKind::Map;
        if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            continue;
        }
        for item in value.try_iter()? {
            state.consume_fuel(1)?;
            if is_map {
                open.push((value.get_item(&item)?, depth + 1));
            }
            open.push((item, depth + 1));
        }
    }
    Ok(())
}

/// Finds the place of an item in a list, from 0.
fn index_of(state: &State, list: &Value, item: &Value) -> Result<Value, Error> {
    for (index, other) in list.try_iter()?.enumerate() {
        state.consume_fuel(1)?;
        if other == *item {
            return Ok(Value::from(index));
        }
    }
    let message = format!("{} is not in the list", crate::suggest::quoted(&item.to_string()));
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Pairs the items of lists, up to the end of the shortest.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature of a function of minijinja"
)]
pub(crate) fn zip(state: &State, lists: Rest<Value>) -> Result<Value, Error> {
    let mut lists = lists
        .0
        .iter()
        .map(Value::try_iter)
        .collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    while !lists.is_empty() {
        let row: Option<Vec<Value>> = lists.iter_mut().map(Iterator::next).collect();
        let Some(row) = row else { break };
        state.consume_fuel(1 + row.len() as u64)?;
        rows.push(Value::from(Tuple::new(row)));
    }
    Ok(Value::from(rows))
}
