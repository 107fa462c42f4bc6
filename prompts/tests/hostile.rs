//! Whatever a caller or a file holds, nothing panics, and no text of the caller becomes a special token or a
//! picture.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use multiway_prompts::{
    InputValue, Inputs, Prompt, PromptError, PromptPart, TaskFile, count_gaps, fill_gaps,
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

proptest! {
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
            ]),
            0..30,
        ),
    ) {
        let front = "---\ndescription: A case.\ninputs: {text: {type: text}, image: {type: image}}\n---\n";
        let file = format!("{front}{{{{ text }}}}{{{{ image }}}}{}", pieces.concat());
        if let Ok(task) = TaskFile::parse("any.task", file.as_bytes()) {
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
    let render = move || {
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
