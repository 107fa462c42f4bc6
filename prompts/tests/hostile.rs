//! Whatever a caller or a file holds, nothing panics, and no text of the caller becomes a special token or a
//! picture.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io;

use multiway_prompts::{
    InputValue, Inputs, MAX_SHOTS, Prompt, PromptError, PromptErrorKind, PromptPart, Shot, SourceFile,
    SourceTask, TaskFile, TaskSource, count_gaps, fill_gaps,
};
use proptest::prelude::*;

/// Makes texts that try to be something else.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[<>/_a-z0-9{}%#|~ ]{0,12}",
        Just("<extra_id_0>".to_owned()),
        Just("</s>".to_owned()),
        Just("<pad>".to_owned()),
        Just("{{ image }}".to_owned()),
        Just("{{ special(\"</s>\") }}".to_owned()),
        Just("{% raw %}".to_owned()),
        Just("\0\u{1}\u{1a}".to_owned()),
        (0xF0000_u32..0xF00A0).prop_map(|code| char::from_u32(code).unwrap().to_string()),
        (0x10_0000_u32..=0x10_FFFF).prop_map(|code| char::from_u32(code).unwrap().to_string()),
        Just("\u{202e}\u{200d}\u{feff}\u{fffe}\u{fdd0}".to_owned()),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn task(body: &str) -> TaskFile {
    let front = "---
description: A case.
inputs:
  image: {type: image}
  text: {type: text}
  other: {type: text}
---
";
    TaskFile::parse("hostile.task", format!("{front}{body}").as_bytes()).unwrap()
}

fn inputs(text: &str, other: &str) -> Inputs {
    Inputs::from([
        ("image".to_owned(), InputValue::Image(7)),
        ("text".to_owned(), text.into()),
        ("other".to_owned(), other.into()),
    ])
}

fn render(task: &TaskFile, inputs: &Inputs) -> Result<Prompt, PromptError> {
    task.complete(inputs)?.render(&[])
}

/// Lists the parts that are not text.
fn skeleton(prompt: &Prompt) -> Vec<PromptPart> {
    prompt
        .parts
        .iter()
        .filter(|part| !matches!(part, PromptPart::Text(_)))
        .cloned()
        .collect()
}

fn special(token: &str) -> PromptPart {
    PromptPart::Special(token.to_owned())
}

/// Files by their names.
#[derive(Clone)]
struct Files(BTreeMap<String, String>);

impl Files {
    fn read(&self, name: &str) -> Option<SourceFile> {
        self.0.get(name).map(|text| SourceFile {
            origin: name.to_owned(),
            bytes: text.clone().into_bytes(),
        })
    }
}

impl TaskSource for Files {
    fn task(&self, name: &str) -> io::Result<Option<SourceTask<'_>>> {
        Ok(self.read(&format!("{name}.task")).map(|file| SourceTask {
            file,
            source: Box::new(self.clone()),
        }))
    }

    fn template(&self, path: &str) -> io::Result<Option<SourceFile>> {
        Ok(self.read(path))
    }
}

/// A task whose target, shots, blocks, macros and included files all write the caller's texts.
fn everywhere() -> TaskFile {
    let files = [
        (
            "base.task",
            "---\ndescription: Base.\ninputs: {image: {type: image}, text: {type: text}, other: {type: text}}\n---\n\
             {% block a %}{{ image }}<pad>{{ text }}{% endblock %}{% include \"part.jinja\" %}",
        ),
        ("part.jinja", "<unk>{{ other }}{{ special(\"</s>\") }}"),
        (
            "m.jinja",
            "{% macro say(t) %}<extra_id_1>{{ t }}<loc_7>{% endmacro %}",
        ),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let child = "---\nextends: base\ntarget: \"<extra_id_0>{{ answer }}{{ text }}</s>\"\nseparator: \"<extra_id_9>\"\n---\n\
                 {% import \"m.jinja\" as m %}{% block a %}{{ super() }}{{ m.say(other) }}{% endblock %}";
    TaskFile::parse_from("child.task", child.as_bytes(), &Files(files.into())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_web_of_imports_renders_or_is_refused(
        edges in proptest::collection::vec((0_usize..12, 0_usize..14, 0_usize..4), 0..40),
    ) {
        let mut files = BTreeMap::new();
        for (from, to, tag) in edges {
            let to = format!("{}{to}.jinja", ["", "a/", "../", "/"][if to > 11 { to - 10 } else { 0 }]);
            let tag = match tag {
                0 => format!("{{% include \"{to}\" %}}"),
                1 => format!("{{% import \"{to}\" as m{from} %}}"),
                2 => format!("{{% from \"{to}\" import x %}}"),
                _ => format!("{{% block b{from} %}}{{% include \"{to}\" %}}{{% endblock %}}"),
            };
            files.entry(format!("{from}.jinja")).or_insert_with(String::new).push_str(&tag);
        }
        let body = files.remove("0.jinja").unwrap_or_default();
        let file = format!("---\ndescription: A case.\n---\nhello{body}");
        if let Ok(task) = TaskFile::parse_from("any.task", file.as_bytes(), &Files(files)) {
            let _ = render(&task, &Inputs::new());
        }
    }

    #[test]
    fn any_web_of_tasks_that_extend_each_other_is_a_task_or_refused(
        parents in proptest::collection::vec((0_usize..10, 0_u8..3), 10),
    ) {
        let file = |(parent, body): &(usize, u8)| {
            let body = ["", "{% block a %}{{ super() }}x{% endblock %}", "{% block a %}y{% endblock %} z"][usize::from(*body)];
            format!("---\nextends: t{parent}\ndescription: x\n---\n{body}")
        };
        let mut files: BTreeMap<String, String> =
            parents.iter().enumerate().map(|(index, parent)| (format!("t{index}.task"), file(parent))).collect();
        files.insert("t0.task".to_owned(), "---\ndescription: Root.\n---\n{% block a %}root{% endblock %}".to_owned());
        let files = Files(files);
        for start in 0..parents.len() {
            let name = format!("t{start}.task");
            let parsed = TaskFile::parse_from(&name, files.0[&name].as_bytes(), &files);
            match parsed {
                Ok(task) => prop_assert!(!render(&task, &Inputs::new()).unwrap().text().is_empty()),
                Err(error) => {
                    let message = error.to_string();
                    prop_assert!(message.contains("circle") || message.contains("at most"), "{}", message);
                }
            }
        }
    }

    #[test]
    fn shots_beyond_the_limits_are_refused_before_they_are_rendered(count in 0_usize..200, length in 0_usize..40_000) {
        let task = TaskFile::parse(
            "many.task",
            b"---\ndescription: A case.\ninputs: {text: {type: text}}\n---\n{{ text }}{{ text }}",
        )
        .unwrap();
        let text = |length: usize| Inputs::from([("text".to_owned(), InputValue::Text("x".repeat(length)))]);
        let shot = Shot {
            inputs: text(length),
            target: Inputs::from([("target".to_owned(), "y".into())]),
        };
        let checked = text(1);
        let checked = task.complete(&checked).unwrap();
        let rendered = task.render_with_shots(&checked, &vec![shot; count], &[]);
        match rendered.as_ref().map_err(PromptError::kind) {
            Ok(prompt) => {
                prop_assert!(count <= MAX_SHOTS);
                prop_assert_eq!(prompt.text().len(), count * (2 * length + 2) + 2);
            }
            Err(PromptErrorKind::TooManyShots { .. }) => prop_assert!(count > MAX_SHOTS),
            Err(PromptErrorKind::OutputTooLong { .. }) => prop_assert!(count * (2 * length + 2) + 2 > 1024 * 1024),
            Err(other) => prop_assert!(false, "{}", other),
        }
        let list = "  - {target: a}\n".repeat(count * 30);
        let file = format!("---\ndescription: A case.\nfew_shot:\n{list}---\nhello");
        prop_assert_eq!(TaskFile::parse("many.task", file.as_bytes()).is_ok(), count * 30 <= MAX_SHOTS);
    }
}

proptest! {
    #[test]
    fn no_text_changes_the_special_tokens_of_targets_shots_blocks_and_imported_files(
        text in hostile_text(),
        other in hostile_text(),
        answer in hostile_text(),
    ) {
        let task = everywhere();
        let rendered = |text: &str, other: &str, answer: &str| {
            let shot = Shot {
                inputs: inputs(other, text),
                target: Inputs::from([("answer".to_owned(), answer.into())]),
            };
            let checked = inputs(text, other);
            let checked = task.complete(&checked).unwrap();
            let target = checked.render_target(&shot.target, &["<sep>"]).unwrap();
            (task.render_with_shots(&checked, &[shot.clone(), shot], &["<sep>"]).unwrap(), target)
        };
        let (prompt, target) = rendered(&text, &other, &answer);
        let (plain, plain_target) = rendered("a", "b", "c");
        prop_assert_eq!(skeleton(&prompt), skeleton(&plain));
        prop_assert_eq!(skeleton(&target), skeleton(&plain_target));
        prop_assert_eq!(target.text(), format!("{answer}{text}"));
        let shot = format!("{other}{text}{text}{answer}{other}");
        prop_assert_eq!(prompt.text(), format!("{shot}{shot}{text}{other}{other}"));
    }

    #[test]
    fn caller_text_passes_through_unchanged_and_stays_text(text in hostile_text(), other in hostile_text()) {
        let task = task(
            "{% set x %}<extra_id_1>{{ image }}{{ text }}{% endset %}{% macro m(t) %}</s>{{ t }}{% endmacro %}\
             {{ text }}{{ image }}{{ x }}{{ x ~ other }}{{ m(text) }}{{ special(\"<pad>\") ~ text }}<{{ other }}>",
        );
        let prompt = render(&task, &inputs(&text, &other)).unwrap();
        let image = PromptPart::Image(7);
        prop_assert_eq!(
            skeleton(&prompt),
            [
                image.clone(), special("<extra_id_1>"), image.clone(), special("<extra_id_1>"), image, special("</s>"),
                special("<pad>"),
            ]
        );
        let expected = format!("{text}{text}{text}{other}{text}{text}<{other}>");
        prop_assert_eq!(prompt.text(), expected);
    }

    #[test]
    fn no_filter_turns_caller_text_into_another_part(text in hostile_text(), other in hostile_text()) {
        let task = task(
            "{% set x %}{{ text }}{{ image }}</s>{% endset %}\
             {{ x | upper }}{{ x | reverse }}{{ x | replace(text, other) | trim(other) }}{{ x | title }}\
             {{ text | split(other) | join(other) }}{{ x | replace(other, text) | lower }}{{ text | reverse }}\
             {{ text[1:] ~ other[:1] }}{{ text | lines | join(text) }}",
        );
        let allowed = [PromptPart::Image(7), special("</s>")];
        match render(&task, &inputs(&text, &other)) {
            Ok(prompt) => prop_assert!(skeleton(&prompt).iter().all(|part| allowed.contains(part))),
            Err(error) => prop_assert!(error.to_string().contains("empty"), "{}", error),
        }
    }

    #[test]
    fn gaps_become_masks_and_filling_them_gives_back_the_text(text in hostile_text()) {
        let task = task("{{ text | gaps }}{{ image }}{{ other[:0] }}");
        let prompt = render(&task, &inputs(&text, "")).unwrap();
        let masks = (0..count_gaps(&text)).map(|index| special(&format!("<extra_id_{index}>")));
        prop_assert_eq!(skeleton(&prompt), masks.chain([PromptPart::Image(7)]).collect::<Vec<_>>());
        let spans = vec!["word".to_owned(); count_gaps(&text)];
        let filled: String = prompt
            .parts
            .iter()
            .map(|part| match part {
                PromptPart::Text(text) => text.as_str(),
                PromptPart::Special(_) => "word",
                PromptPart::Image(_) => "",
            })
            .collect();
        prop_assert_eq!(filled, fill_gaps(&text, &spans));
    }

    #[test]
    fn reading_any_bytes_gives_a_task_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = TaskFile::parse("any.task", &bytes);
        let _ = TaskFile::parse("any.task", &[b"---\n".as_slice(), &bytes, b"\n---\nhello"].concat());
        let _ = TaskFile::parse("any.task", &[b"---\ndescription: x\n---\n".as_slice(), &bytes].concat());
    }

    #[test]
    fn reading_and_rendering_any_mixture_of_jinja_gives_a_prompt_or_an_error(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                "{{", "}}", "{%", "%}", "{#", "#}", "-", "+", " ", "\n", "raw", "endraw", "if", "endif", "for i in range(9)",
                "endfor", "set x", "endset", "=", "text", "image", "special(\"</s>\")", "special", "mask(1)", "gaps", "|",
                "upper", "~", "(", ")", "[", "]", "{", "}", "'", "\"", "\\", "</s>", "<extra_id_0>", "1", ".", ",", "é",
                "macro m(a)", "endmacro", "m", "filter", "endfilter", "is", "not", "defined", "\u{F0000}",
                "import", "from", "include", "extends", "\"a.jinja\"", "as", "block b", "endblock", "super()", "self",
                "true", "required", "with context", "ignore missing", "{% import \"a.jinja\" as ", "{% from \"a.jinja\" import ",
                "{% include \"a.jinja\" ", "{% block b ", "{% endblock %}", "do", "call", "endcall", "with", "endwith",
            ]),
            0..30,
        ),
    ) {
        let front = "---\ndescription: A case.\ninputs: {text: {type: text}, image: {type: image}}\n---\n";
        let file = format!("{front}{{{{ text }}}}{{{{ image }}}}{}", pieces.concat());
        let files = Files(BTreeMap::from([("a.jinja".to_owned(), "{% macro m(a) %}{{ a }}{% endmacro %}".to_owned())]));
        if let Ok(task) = TaskFile::parse_from("any.task", file.as_bytes(), &files) {
            let inputs = Inputs::from([
                ("image".to_owned(), InputValue::Image(0)),
                ("text".to_owned(), "a ___ b".into()),
            ]);
            let _ = render(&task, &inputs);
        }
    }
}

#[test]
fn private_use_characters_of_every_plane_pass_through_a_prompt_with_pictures() {
    let text: String = ('\u{F0000}'..='\u{FFFFD}').collect();
    let task = task("{{ image }}{{ text }}{{ other }}</s>");
    let prompt = render(&task, &inputs(&text, "x")).unwrap();
    assert_eq!(prompt.text(), format!("{text}x"));
    assert_eq!(skeleton(&prompt), [PromptPart::Image(7), special("</s>")]);
}

/// Tasks that extend each other as far as they may, each writing its parent's block deep in other tags, and
/// at the end files that include each other as far as they may, and a macro that calls itself.
fn deepest_files() -> Files {
    let opened = "{% if true %}{% set x %}{% filter upper %}".repeat(4);
    let closed = "{% endfilter %}{% endset %}{{ x }}{% endif %}".repeat(4);
    let mut files = BTreeMap::new();
    for level in 0..7 {
        let text = format!(
            "---\nextends: t{}\ndescription: x\n---\n{{% block a %}}{opened}{{{{ super() }}}}{closed}{{% endblock %}}",
            level + 1
        );
        files.insert(format!("t{level}.task"), text);
    }
    files.insert(
        "t7.task".to_owned(),
        format!(
            "---\ndescription: x\n---\n{{% block a %}}{opened}{{% include \"1\" %}}{closed}{{% endblock %}}"
        ),
    );
    for index in 1..4 {
        files.insert(
            index.to_string(),
            format!("{opened}{{% include \"{}\" %}}{closed}", index + 1),
        );
    }
    let macros = "{% macro m(n) %}{% for i in [1] %}{{ m(n + 1) }}{% endfor %}{% endmacro %}";
    files.insert("4".to_owned(), format!("{macros}{opened}{{{{ m(0) }}}}{closed}"));
    Files(files)
}

#[test]
fn deep_nesting_of_every_kind_is_an_error_and_no_stack_overflow() {
    let bodies = [
        format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(16_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(60_000)),
        format!("{{{{ {} }}}}", "[".repeat(60_000)),
        format!("{{{{ 1{} }}}}", "|abs".repeat(15_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(30_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(30_000)),
        format!("{{{{ 1{} }}}}", "**1".repeat(20_000)),
        format!("{{{{ {} }}}}", "1 if 1 else ".repeat(5_000)),
        "{% if true %}".repeat(4_000),
        (0..4_000)
            .map(|index| format!("{{% block b{index} %}}"))
            .collect(),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(5_000)),
        "{% for i in [1] %}".repeat(3_000),
        format!("{}{}", "{% if true %}".repeat(120), "{% endif %}".repeat(120)),
        format!(
            "{}1{}",
            "{% for i in [1] %}".repeat(120),
            "{% endfor %}".repeat(120)
        ),
    ];
    let chains = [
        "|abs",
        "+1",
        ".a",
        "**1",
        " if 1 else 1",
        "[0]",
        "()",
        " and 1",
        " == 1",
        " is odd",
        "~1",
    ];
    let longest = chains.map(|link| {
        let links = 250
            / link
                .split_whitespace()
                .count()
                .max(if link.starts_with(['[', '(']) {
                    link.len()
                } else {
                    2
                });
        let expression = format!("{{{{ 1{} }}}}", link.repeat(links));
        let elifs = "{% elif false %}".repeat(32);
        let (opened, closed) = ("{% if true %}".repeat(15), "{% endif %}".repeat(15));
        format!("{opened}{{% if false %}}{elifs}{{% else %}}{expression}{{% endif %}}{closed}")
    });
    let nested = [
        format!("{{{{ {}true }}}}", "not ".repeat(250)),
        format!("{{{{ {}1 }}}}", "-".repeat(250)),
        format!("{{{{ {}1{} }}}}", "(1 + ".repeat(16), ")".repeat(16)),
        format!("{{{{ {}1{} }}}}", "[1, ".repeat(16), "][0]".repeat(16)),
        format!("{{{{ {}1{} }}}}", "(1 if 0 else ".repeat(16), ")".repeat(16)),
        format!(
            "{}{{{{ 1 }}}}{}",
            "{% set x %}{% filter upper %}".repeat(8),
            "{% endfilter %}{% endset %}".repeat(8)
        ),
        "{% macro m(n) %}{% for i in [1] %}{{ m(n + 1) }}{% endfor %}{% endmacro %}{{ m(0) }}".to_owned(),
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
    ];
    for body in &nested {
        let task = TaskFile::parse(
            "deep.task",
            format!("---\ndescription: A case.\n---\n{body}").as_bytes(),
        );
        assert!(task.is_ok(), "{body}: {task:?}");
    }
    let files = deepest_files();
    let deepest = TaskFile::parse_from("t0.task", files.0["t0.task"].as_bytes(), &files).unwrap();
    let render = move || {
        let refused = render(&deepest, &Inputs::new()).unwrap_err();
        assert_eq!(*refused.kind(), PromptErrorKind::TooDeep, "{refused}");
        for body in bodies.into_iter().chain(longest).chain(nested) {
            let file = format!("---\ndescription: A case.\n---\n{body}");
            if let Ok(task) = TaskFile::parse("deep.task", file.as_bytes()) {
                let _ = render(&task, &Inputs::new());
            }
        }
    };
    // A quarter of what threads have otherwise.
    std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(render)
        .unwrap()
        .join()
        .unwrap();
}
