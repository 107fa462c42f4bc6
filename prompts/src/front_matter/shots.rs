//! The `target` of a task, which is the text that the model should write, and the `few_shot` examples that
//! show it.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::examples::given_inputs;
use super::problem::{Fault, Problem, line};
use crate::input::{InputSpec, InputValue, Inputs};
use crate::output::OutputSpec;
use crate::shots::MAX_SHOTS;
use crate::spec::FewShot;
use crate::suggest::{listing, quoted};
use crate::target::{ANSWER_CHOICES, DEFAULT_FIELD, DEFAULT_TARGET};
use crate::template::Template;

/// What stands between two shots, and between the last one and the prompt.
const DEFAULT_SEPARATOR: &str = "\n";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShot {
    #[serde(default)]
    inputs: IndexMap<Spanned<String>, serde_json::Value>,
    target: Option<Spanned<serde_json::Value>>,
}

/// Reads the template of the target, and the names that it uses and that are no inputs.
pub(super) fn check_target(
    origin: &str,
    raw: Option<Spanned<String>>,
    inputs: &IndexMap<String, InputSpec>,
    output: &OutputSpec,
) -> Result<(Template, Vec<String>), Fault> {
    let Some(raw) = raw else {
        return Ok((
            Template::parse(origin, DEFAULT_TARGET, 0)?,
            vec![DEFAULT_FIELD.to_owned()],
        ));
    };
    if output.is_encoded() {
        let message = format!(
            "an answer of kind {} is not written: remove `target`",
            output.kind()
        );
        return Err(Problem::new(&raw, "target", message).into());
    }
    if raw.value.trim().is_empty() {
        let message = "expected a template of what the model should write, such as `{{ answer }}`";
        return Err(Problem::new(&raw, "target", message).into());
    }
    let template = Template::parse(origin, &raw.value, line(&raw).unwrap_or_default())?;
    let mut fields = template.variables()?;
    let is_picture = |name: &&String| inputs.get(*name).is_some_and(|spec| spec.kind.is_picture());
    if let Some(picture) = fields.iter().find(is_picture) {
        let message = format!("the model writes text alone: remove the picture '{picture}'");
        return Err(Problem::new(&raw, "target", message).into());
    }
    let known = |name: &str| name == ANSWER_CHOICES && output.has_answer_choices();
    fields.retain(|name| !inputs.contains_key(name) && !known(name));
    Ok((template, fields))
}

/// Reads what stands between shots: text, and special tokens.
pub(super) fn check_separator(origin: &str, raw: Option<Spanned<String>>) -> Result<Template, Fault> {
    let text = raw.as_ref().map_or(DEFAULT_SEPARATOR, |raw| raw.value.as_str());
    if let Some(raw) = &raw
        && ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
    {
        let message = "expected text and special tokens, without `{{ }}`, `{% %}` and `{# #}`";
        return Err(Problem::new(raw, "separator", message).into());
    }
    let line = raw.as_ref().and_then(line).unwrap_or_default();
    // Jinja drops the last newline of a template.
    Ok(Template::parse(origin, &format!("{text}\n"), line)?)
}

/// Reads the few-shot examples.
pub(super) fn check_shots(
    raw: Option<Vec<Spanned<RawShot>>>,
    inputs: &IndexMap<String, InputSpec>,
    output: &OutputSpec,
    fields: &[String],
) -> Result<Vec<FewShot>, Problem> {
    let raw = raw.unwrap_or_default();
    let is_filled = matches!(output, OutputSpec::Text { fill: Some(_) });
    if let Some(shot) = raw.first().filter(|_| is_filled || output.is_encoded()) {
        let message = "it goes with answers that are written after the prompt: remove `few_shot`";
        return Err(Problem::new(shot, "few_shot", message));
    }
    if let Some(shot) = raw.get(MAX_SHOTS) {
        let message = format!("expected at most {MAX_SHOTS} shots, found {}", raw.len());
        return Err(Problem::new(shot, "few_shot", message));
    }
    raw.into_iter()
        .enumerate()
        .map(|(index, shot)| {
            let key = format!("few_shot[{index}]");
            let inputs = given_inputs(&key, line(&shot), &shot.value.inputs, inputs)?;
            let target = target_fields(&format!("{key}.target"), &shot, fields)?;
            Ok(FewShot { inputs, target })
        })
        .collect()
}

/// Reads what the target of a shot is made of: one value where the target has one field, else a mapping.
fn target_fields(key: &str, shot: &Spanned<RawShot>, fields: &[String]) -> Result<Inputs, Problem> {
    let expected = match fields {
        [] => "nothing, since the target is made of inputs alone".to_owned(),
        [field] => format!("the value of '{field}'"),
        _ => format!("a mapping of the fields of the target: {}", listing(fields)),
    };
    let wrong = |found: String| format!("expected {expected}, found {found}");
    let Some(target) = &shot.value.target else {
        return match fields {
            [] => Ok(Inputs::new()),
            _ => Err(Problem::new(shot, key, wrong("nothing".to_owned()))),
        };
    };
    let mistaken = || Problem::new(target, key, wrong(quoted(&target.value.to_string())));
    match (&target.value, fields) {
        (serde_json::Value::Object(map), _) => {
            let names_fit = map.len() == fields.len() && fields.iter().all(|field| map.contains_key(field));
            if !names_fit || fields.is_empty() {
                return Err(mistaken());
            }
            map.iter()
                .map(|(name, value)| Some((name.clone(), field_value(value)?)))
                .collect::<Option<_>>()
                .ok_or_else(mistaken)
        }
        (value, [field]) => {
            let value = field_value(value).ok_or_else(mistaken)?;
            Ok(Inputs::from([(field.clone(), value)]))
        }
        _ => Err(mistaken()),
    }
}

fn field_value(value: &serde_json::Value) -> Option<InputValue> {
    match value {
        serde_json::Value::String(text) => Some(InputValue::Text(text.clone())),
        serde_json::Value::Bool(value) => Some(InputValue::Boolean(*value)),
        serde_json::Value::Number(number) => {
            let whole = number.as_i64().map(InputValue::Integer);
            whole.or_else(|| number.as_f64().map(InputValue::Number))
        }
        serde_json::Value::Array(items) => {
            let text = |item: &serde_json::Value| item.as_str().map(str::to_owned);
            let texts = items.iter().map(text).collect::<Option<_>>();
            Some(texts.map_or_else(|| InputValue::Json(value.clone()), InputValue::List))
        }
        serde_json::Value::Object(_) => Some(InputValue::Json(value.clone())),
        serde_json::Value::Null => None,
    }
}
