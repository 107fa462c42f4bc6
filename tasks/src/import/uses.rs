//! What a template does with each column, from which follows the type of the input.

use std::collections::HashSet;

use indexmap::IndexMap;
use minijinja::Value;
use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Compare, CompareOpKind, Expr, Filter, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use multiway_prompts::InputKind;

use super::error::ImportError;

/// What is done with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is written.
    Written,
    /// It is text.
    Text,
    /// It is a whole number: an index, or compared with one.
    Integer,
    /// It may be anything.
    Any,
}

/// Filters of Jinja that work on text and give text.
const TEXT_FILTERS: [&str; 6] = ["capitalize", "lower", "replace", "title", "trim", "upper"];
/// Filters that give text or a number, whatever they are given.
const WRITABLE_FILTERS: [&str; 9] = [
    "abs",
    "count",
    "float",
    "int",
    "join",
    "length",
    "round",
    "string",
    "wordcount",
];
/// Methods of texts that give texts.
const TEXT_METHODS: [&str; 10] = [
    "capitalize",
    "join",
    "lower",
    "lstrip",
    "replace",
    "rstrip",
    "strip",
    "title",
    "upper",
    "zfill",
];
/// Other methods of texts.
const METHODS_OF_TEXTS: [&str; 8] = [
    "endswith",
    "find",
    "isdigit",
    "rfind",
    "split",
    "splitlines",
    "startswith",
    "isnumeric",
];
/// Methods of any other value.
const OTHER_METHODS: [&str; 6] = ["count", "get", "index", "items", "keys", "values"];
/// Methods that change a value, which templates of task files cannot.
const CHANGING: [&str; 9] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "remove",
    "setdefault",
    "sort",
    "update",
];

/// What a template does with its columns.
#[derive(Debug, Default)]
pub(super) struct Columns {
    uses: IndexMap<String, Vec<Use>>,
}

impl Columns {
    /// Adds what a template does, with the names that it is given beside its columns.
    pub(super) fn read(&mut self, source: &str, given: &[&str]) -> Result<(), ImportError> {
        let parsed = parse(source, "template", SyntaxConfig::default());
        let parsed = parsed.map_err(|error| ImportError::jinja(&error))?;
        let mut reader = Reader {
            columns: self,
            scopes: vec![given.iter().map(|name| (*name).to_owned()).collect()],
        };
        reader.statement(&parsed)
    }

    /// Lists the columns in the order of their first use.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.uses.keys().map(String::as_str)
    }

    /// Returns the type of an input that takes what the column is used as.
    pub(super) fn kind(&self, column: &str) -> InputKind {
        let Some(uses) = self.uses.get(column) else {
            return InputKind::Json;
        };
        let has = |wanted: Use| uses.contains(&wanted);
        match (has(Use::Any), has(Use::Text), has(Use::Integer)) {
            (false, false, true) => InputKind::Integer,
            (false, _, false) => InputKind::Text,
            _ => InputKind::Json,
        }
    }

    /// Tells whether an expression surely gives what `{{ }}` writes: text, a number or a boolean.
    pub(super) fn is_writable(&self, source: &str) -> bool {
        minijinja::machinery::parse_expr(source).is_ok_and(|expr| self.writes(&expr))
    }

    fn writes(&self, expr: &Expr<'_>) -> bool {
        match expr {
            Expr::Const(value) => is_writable(&value.value),
            Expr::Var(name) => self.uses.contains_key(name.id) && self.kind(name.id) != InputKind::Json,
            Expr::Filter(filter) => {
                TEXT_FILTERS.contains(&filter.name) || WRITABLE_FILTERS.contains(&filter.name)
            }
            Expr::Call(call) => match &call.expr {
                Expr::GetAttr(method) => TEXT_METHODS.contains(&method.name),
                _ => false,
            },
            Expr::GetItem(item) => matches!(&item.expr, Expr::Var(name) if name.id == "answer_choices"),
            Expr::GetAttr(item) => matches!(&item.expr, Expr::Var(name) if name.id == "loop"),
            Expr::BinOp(op) => matches!(op.op, BinOpKind::Concat),
            Expr::Compare(_) | Expr::Test(_) => true,
            Expr::IfExpr(either) => {
                self.writes(&either.true_expr)
                    && either.false_expr.as_ref().is_none_or(|other| self.writes(other))
            }
            _ => false,
        }
    }
}

fn is_writable(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::String | ValueKind::Number | ValueKind::Bool
    )
}

/// Walks over a template with the names that are set.
struct Reader<'c> {
    columns: &'c mut Columns,
    scopes: Vec<HashSet<String>>,
}

type Read = Result<(), ImportError>;

impl Reader<'_> {
    fn note(&mut self, name: &str, found: Use) {
        if self.scopes.iter().any(|scope| scope.contains(name)) {
            return;
        }
        self.columns.uses.entry(name.to_owned()).or_default().push(found);
    }

    /// Notes the names that an assignment or a loop sets.
    fn set(&mut self, target: &Expr<'_>) {
        match target {
            Expr::Var(name) => {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.insert(name.id.to_owned());
                }
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.set(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.set(item)),
            _ => {}
        }
    }

    fn statements(&mut self, statements: &[Stmt<'_>]) -> Read {
        statements
            .iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Read {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(output) => self.expr(&output.expr, Use::Written),
            Stmt::Set(set) => {
                self.expr(&set.expr, Use::Any)?;
                self.set(&set.target);
                Ok(())
            }
            Stmt::SetBlock(set) => {
                self.statements(&set.body)?;
                self.set(&set.target);
                Ok(())
            }
            Stmt::IfCond(cond) => {
                self.expr(&cond.expr, Use::Any)?;
                self.statements(&cond.true_body)?;
                self.statements(&cond.false_body)
            }
            Stmt::ForLoop(each) => {
                self.expr(&each.iter, Use::Any)?;
                self.scopes.push(HashSet::from(["loop".to_owned()]));
                self.set(&each.target);
                let inside = each
                    .filter_expr
                    .as_ref()
                    .map_or(Ok(()), |only| self.expr(only, Use::Any));
                let inside = inside.and_then(|()| self.statements(&each.body));
                self.scopes.pop();
                inside.and_then(|()| self.statements(&each.else_body))
            }
            Stmt::WithBlock(with) => {
                self.scopes.push(HashSet::new());
                for (target, value) in &with.assignments {
                    self.expr(value, Use::Any)?;
                    self.set(target);
                }
                let inside = self.statements(&with.body);
                self.scopes.pop();
                inside
            }
            Stmt::FilterBlock(block) => self.statements(&block.body),
            _ => Err(ImportError::Construct {
                what: "a tag such as `macro`, `include` or `block`".to_owned(),
            }),
        }
    }

    fn all(&mut self, exprs: &[Expr<'_>], found: Use) -> Read {
        exprs.iter().try_for_each(|expr| self.expr(expr, found))
    }

    fn expr(&mut self, expr: &Expr<'_>, found: Use) -> Read {
        match expr {
            Expr::Var(name) => {
                self.note(name.id, found);
                Ok(())
            }
            Expr::Const(_) => Ok(()),
            Expr::GetAttr(item) => self.expr(&item.expr, Use::Any),
            Expr::GetItem(item) => {
                self.expr(&item.expr, Use::Any)?;
                self.expr(&item.subscript_expr, subscript(&item.expr))
            }
            Expr::Slice(slice) => {
                self.expr(&slice.expr, Use::Any)?;
                let bounds = [&slice.start, &slice.stop, &slice.step];
                bounds
                    .into_iter()
                    .flatten()
                    .try_for_each(|bound| self.expr(bound, Use::Integer))
            }
            Expr::UnaryOp(op) => self.expr(&op.expr, Use::Any),
            Expr::BinOp(op) => self.binary(op.op, &op.left, &op.right),
            Expr::Compare(chain) => self.chain(chain),
            Expr::IfExpr(either) => {
                self.expr(&either.test_expr, Use::Any)?;
                self.expr(&either.true_expr, found)?;
                either
                    .false_expr
                    .as_ref()
                    .map_or(Ok(()), |other| self.expr(other, found))
            }
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => {
                self.expr(&test.expr, Use::Any)?;
                self.arguments(&test.args)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.all(&list.items, Use::Any),
            Expr::Tuple(tuple) => self.all(&tuple.items, Use::Any),
            Expr::Map(map) => {
                self.all(&map.keys, Use::Any)?;
                self.all(&map.values, Use::Any)
            }
        }
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Read {
        use BinOpKind as Op;
        let compared = match op {
            Op::Eq => Some(CompareOpKind::Eq),
            Op::Ne => Some(CompareOpKind::Ne),
            Op::In => Some(CompareOpKind::In),
            _ => None,
        };
        if let Some(op) = compared {
            return self.compared(left, op, right);
        }
        if matches!((op, constant(left)), (Op::Rem, Some(ValueKind::String))) {
            let what = "`%` that formats a text".to_owned();
            return Err(ImportError::Construct { what });
        }
        let found = |other: &Expr<'_>| match (op, constant(other)) {
            (Op::Concat, _) => Use::Written,
            (Op::Add, Some(ValueKind::String)) => Use::Text,
            _ => Use::Any,
        };
        self.expr(left, found(right))?;
        self.expr(right, found(left))
    }

    /// Reads `a < b <= c`.
    fn chain(&mut self, chain: &Compare<'_>) -> Read {
        let mut left = &chain.expr;
        for step in &chain.ops {
            self.compared(left, step.op, &step.expr)?;
            left = &step.expr;
        }
        Ok(())
    }

    fn compared(&mut self, left: &Expr<'_>, op: CompareOpKind, right: &Expr<'_>) -> Read {
        let is_equality = matches!(op, CompareOpKind::Eq | CompareOpKind::Ne);
        let found = |other: &Expr<'_>| match constant(other) {
            Some(ValueKind::String) if is_equality => Use::Text,
            Some(ValueKind::Number) if is_equality && is_integer(other) => Use::Integer,
            _ => Use::Any,
        };
        let member = match (op, right) {
            (CompareOpKind::In | CompareOpKind::NotIn, Expr::List(list)) if all_texts(&list.items) => {
                Use::Text
            }
            _ => found(right),
        };
        self.expr(left, member)?;
        self.expr(right, found(left))
    }

    fn filter(&mut self, filter: &Filter<'_>) -> Read {
        let found = if TEXT_FILTERS.contains(&filter.name) || filter.name == "split" {
            Use::Text
        } else {
            Use::Any
        };
        if let Some(expr) = &filter.expr {
            self.expr(expr, found)?;
        }
        self.arguments(&filter.args)
    }

    fn call(&mut self, call: &Call<'_>) -> Read {
        let found = match &call.expr {
            Expr::GetAttr(method) => {
                let name = method.name;
                let of_text = TEXT_METHODS.contains(&name) || METHODS_OF_TEXTS.contains(&name);
                if !of_text && !OTHER_METHODS.contains(&name) {
                    let changes = if CHANGING.contains(&name) {
                        ", which changes a value,"
                    } else {
                        ""
                    };
                    let what = format!("the method `{name}`{changes}");
                    return Err(ImportError::Construct { what });
                }
                self.expr(&method.expr, if of_text { Use::Text } else { Use::Any })?;
                Use::Any
            }
            Expr::Var(name) if name.id == "range" => Use::Integer,
            Expr::Var(name) if ["namespace", "zip"].contains(&name.id) => Use::Any,
            Expr::Var(name) => {
                let what = format!("the function `{}`", name.id);
                return Err(ImportError::Construct { what });
            }
            other => {
                self.expr(other, Use::Any)?;
                Use::Any
            }
        };
        call.args
            .iter()
            .try_for_each(|argument| self.argument(argument, found))
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Read {
        arguments
            .iter()
            .try_for_each(|argument| self.argument(argument, Use::Any))
    }

    fn argument(&mut self, argument: &CallArg<'_>, found: Use) -> Read {
        match argument {
            CallArg::Pos(expr)
            | CallArg::Kwarg(_, expr)
            | CallArg::PosSplat(expr)
            | CallArg::KwargSplat(expr) => self.expr(expr, found),
        }
    }
}

/// Says what an index of a value is: of a list a whole number, of a mapping a key.
fn subscript(of: &Expr<'_>) -> Use {
    match of {
        Expr::Var(name) if name.id == "answer_choices" => Use::Integer,
        Expr::List(_) | Expr::Tuple(_) => Use::Integer,
        Expr::Map(map) if all_texts(&map.keys) => Use::Text,
        _ => Use::Any,
    }
}

fn constant(expr: &Expr<'_>) -> Option<ValueKind> {
    match expr {
        Expr::Const(value) => Some(value.value.kind()),
        _ => None,
    }
}

fn is_integer(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::Const(value) if value.value.is_integer())
}

fn all_texts(exprs: &[Expr<'_>]) -> bool {
    exprs.iter().all(|expr| constant(expr) == Some(ValueKind::String))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(source: &str) -> InputKind {
        let mut columns = Columns::default();
        columns.read(source, &["answer_choices"]).unwrap();
        columns.kind("x")
    }

    #[test]
    fn the_type_of_an_input_is_what_a_column_is_used_as() {
        for (source, expected) in [
            ("{{ x }}", InputKind::Text),
            ("{{ x | lower }}{{ x.strip() }}", InputKind::Text),
            ("{% if x == 'a' %}{{ x }}{% endif %}", InputKind::Text),
            ("{{ answer_choices[x] }}{{ x }}", InputKind::Integer),
            ("{% if x == 0 %}{% endif %}", InputKind::Integer),
            ("{{ x.text[0] }}", InputKind::Json),
            ("{% for a in x %}{{ a }}{% endfor %}", InputKind::Json),
            ("{% if x %}{{ x }}{% endif %}", InputKind::Json),
            ("{{ {'a': 1}[x] }}", InputKind::Text),
        ] {
            assert_eq!(kind(source), expected, "{source}");
        }
    }

    #[test]
    fn names_that_are_set_are_no_columns() {
        let mut columns = Columns::default();
        let source = "{% set a = b %}{% for c in a %}{{ c }}{{ loop.index }}{% endfor %}{{ c }}";
        columns.read(source, &[]).unwrap();
        assert_eq!(columns.names().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn what_changes_values_is_refused() {
        for source in [
            "{{ x.append(1) }}",
            "{{ '%s' % x }}",
            "{{ lipsum() }}",
            "{% include x %}",
        ] {
            assert!(Columns::default().read(source, &[]).is_err(), "{source}");
        }
    }
}
