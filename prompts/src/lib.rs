//! Task files and prompt templates: typed front matter, a sandboxed Jinja body, prompt parts.
//!
//! A task is one file. Its front matter says what the task takes and what it answers, its body is the prompt:
//!
//! ```
//! use multiway_prompts::{InputValue, Inputs, PromptPart, TaskFile};
//!
//! let file = r#"---
//! description: Says what is in a picture, in the language you ask for.
//! inputs:
//!   image: {type: image}
//!   language: {type: choice, default: English, choices: [English, German]}
//! output: {kind: text}
//! decode: {prefix: "<extra_id_0>", max_new_tokens: 24}
//! ---
//! {{ image }}Caption in {{ language }}: <extra_id_0>
//! "#;
//! let task = TaskFile::parse("caption.task", file.as_bytes())?;
//! let inputs = Inputs::from([("image".to_owned(), InputValue::Image(0))]);
//!
//! let prompt = task.complete(&inputs)?.render(&[])?;
//! assert_eq!(
//!     prompt.parts,
//!     [
//!         PromptPart::Image(0),
//!         PromptPart::Text("Caption in English: ".into()),
//!         PromptPart::Special("<extra_id_0>".into()),
//!     ]
//! );
//! # Ok::<(), multiway_prompts::PromptError>(())
//! ```
//!
//! # Front matter
//!
//! YAML between two lines `---`, the first of which is the first line of the file.
//!
//! | key | value |
//! |---|---|
//! | `description` | what the task does, in a sentence |
//! | `version` | a whole number from 1, or a text such as `"1.2.0"` |
//! | `extends` | the name of a task whose keys and prompt this one takes over, see [`TaskSource`] |
//! | `name` | lower-case letters, digits, `-`, `_`; without it, the stem of the file's name |
//! | `inputs` | the inputs by name, each with a `type` (`text`, `integer`, `number`, `boolean`, `choice`, `list`, `box`, `image`, `images`, `json`) and perhaps `description`, `default`, `choices` (of a choice), `min` and `max` (numbers, or the count of a list or of images), `max_length` (text, or each item of a list), `unit` (of a box) |
//! | `output` | `kind: text`, `choice`, `predicate`, `level`, `labels`, `number`, `boxes`, `points`, `polygons`, `grounded`, `table`, `score`, `embedding`, `patches` or `json`, and the options of that kind: see [`OutputSpec`] |
//! | `decode` | `prefix` (special tokens); any field of [`SamplingOptions`], such as `max_new_tokens`, `temperature`, `beams` or `stop`; for text also `regex`, what the answer matches as a whole, or `lark`, the grammar that it is derived from |
//! | `target` | a template of what the model should write, see [`TaskFile::render_target`] |
//! | `few_shot`, `separator` | examples that are rendered before the prompt, see [`TaskFile::render_with_shots`], and what stands between them |
//! | `preprocessing` | [`Preprocessing`] by the name of the model family |
//! | `metadata` | texts and lists of texts, by free names |
//! | `metrics` | the names of [`Metric::ALL`] |
//! | `languages` | BCP 47 tags |
//! | `examples` | `inputs`, with pictures as paths from the task file, and the `output` that they should get |
//!
//! # Body
//!
//! A [Jinja](https://docs.rs/minijinja/latest/minijinja/syntax/) template. A line that holds only a `{% tag
//! %}` or a `{# comment #}` leaves nothing behind: the white space before the tag and the newline after it
//! are dropped. The last newline of the file is dropped too. `{{ }}` writes text, numbers and booleans
//! (`True`, `False`, as Jinja does); a list needs `| join(", ")`, and `none` is an error.
//!
//! - **Pictures.** `{{ image }}`, `{{ images[0] }}`, or a loop over `images`.
//! - **Special tokens.** `<extra_id_N>`, `<loc_N>`, `</s>`, `<pad>` and `<unk>` are special where they stand
//!   in the body outside of `{{ }}` and `{% %}`, raw blocks included. Inside, write `special("</s>")`, or
//!   `mask(2)` for `<extra_id_2>`; a string such as `{{ "</s>" }}` is plain text. So are the special tokens
//!   that a checkpoint has beside these (`<sep>`, `<2de>`, `[CLS]`), when the task is run on it
//!   ([`CheckedInputs::render`]).
//! - **Gaps.** `{{ text | gaps }}` puts `<extra_id_0>`, `<extra_id_1>`, ... in place of each `___` of a text;
//!   with `output: {kind: text, fill: text}`, [`fill_gaps`] puts the answers there.
//!
//! # What a caller cannot do
//!
//! A caller's text stays text, whatever it contains and whatever the template does with it: see
//! [`PromptPart`]. While a template renders, a picture or a special token is a single character that occurs
//! in no text of the caller, chosen anew for each prompt. Rendering is bounded in steps, depth and size,
//! reads no file, and calls nothing but filters and methods on allow lists. What a template imports is read
//! when the task file is read, by paths that are written in it.
//!
//! # Modules
//!
//! | module | holds |
//! |---|---|
//! | `task_file` | [`TaskFile`]: checking inputs, and rendering |
//! | `loader`, `source` | reading a task file, what it extends and what it imports: [`TaskSource`] |
//! | `checked_inputs` | [`CheckedInputs`]: what a prompt is rendered with |
//! | `front_matter` | YAML into raw structs, raw structs into checked ones |
//! | `schema`, `field_names` | [`task_file_schema`]: the JSON Schema of front matter |
//! | `json_value` | inputs that are JSON, bounded |
//! | `input`, `output`, `spec`, `metric` | what front matter declares: [`InputSpec`], [`OutputSpec`], [`DecodeSpec`], [`Example`], [`Metric`] |
//! | `sampling` | sampling parameters in layers: [`SamplingOptions`] |
//! | `template`, `template_file`, `sandbox`, `render_error` | the Jinja environment, and its errors in our words |
//! | `methods` | the methods of Python that templates may call |
//! | `computed_choices` | answers to choose from that a template computes |
//! | `target`, `shots` | what the model should write, and few-shot examples: [`Shot`] |
//! | `scan`, `special` | where special tokens, names and filters stand in a template |
//! | `markers`, `prompt` | from rendered text to [`PromptPart`]s |
//! | `infill`, `patches` | gaps of a text, and patches of a picture: [`PatchRange`] |
//! | `error`, `suggest` | [`PromptError`] and its [`PromptErrorKind`], [`InputError`], "did you mean" |

mod checked_inputs;
mod computed_choices;
mod encoding;
mod error;
mod field_names;
mod front_matter;
mod infill;
mod input;
mod json_value;
mod loader;
mod markers;
mod methods;
mod metric;
mod output;
mod patches;
mod prompt;
mod render_error;
mod sampling;
mod sandbox;
mod scan;
mod schema;
mod shots;
mod source;
mod spec;
mod special;
mod suggest;
mod target;
mod task_file;
mod template;
mod template_file;

pub use checked_inputs::CheckedInputs;
pub use encoding::text_of_file;
pub use error::{InputError, PromptError, PromptErrorKind};
pub use infill::{MAX_GAPS, count_gaps, fill_gaps};
pub use input::{BoxUnit, InputKind, InputSpec, InputValue, Inputs};
pub use metric::{Compared, Metric};
pub use output::{
    Calibration, ChoiceMethod, ChoiceSpec, Choices, GroundingDialect, LabelsSpec, LevelSpec, LocationDialect,
    LocationSpec, Normalization, NumberLanguage, NumberSpec, OutputSpec, PredicateSpec, Ranking,
};
pub use patches::{NoPatches, PatchRange};
pub use prompt::{Prompt, PromptPart};
pub use sampling::{EarlyStopping, ParameterError, SamplingLists, SamplingOptions};
pub use schema::task_file_schema;
pub use shots::{MAX_SHOTS, Shot};
pub use source::{SourceFile, SourceTask, TaskSource};
pub use spec::{DecodeSpec, Example, ExampleInput, FewShot, ImageFit, MetadataValue, Preprocessing};
pub use special::{is_special_form, special_name_at_start};
pub use target::MAX_INPUT_BYTES;
pub use task_file::TaskFile;
