//! The `output` of a task file as text: where its temperature is, or goes.

use std::ops::Range;

const KEY: &str = "output:";

/// Writes a temperature into the `output` of a task file, and leaves all other bytes as they are. `None`
/// where the file has no `output`, or one that is written in another way than files usually are.
pub(super) fn with_temperature(text: &str, temperature: f64) -> Option<String> {
    let (front_matter, rest) = text.split_at_checked(front_matter_end(text)?)?;
    let calibration = format!("{{temperature: {temperature}}}");
    let (line, value) = output_line(front_matter)?;
    let value = front_matter.get(value)?;
    let first = value.trim_start();
    let written = if first.starts_with('{') {
        let open = line.start + KEY.len() + value.len() - first.len();
        in_flow(front_matter, open, &calibration)
    } else if first.is_empty() || first.starts_with('#') {
        in_block(front_matter, line.end, &calibration)
    } else {
        None
    };
    Some(written? + rest)
}

/// Writes a line at the end of front matter, for a file that inherits its `output`. `None` where it has one.
pub(super) fn with_line(text: &str, line: &str) -> Option<String> {
    let (front_matter, rest) = text.split_at_checked(front_matter_end(text)?)?;
    if output_line(front_matter).is_some() {
        return None;
    }
    let ending = ending(front_matter);
    Some(format!("{front_matter}{line}{ending}{rest}"))
}

/// Finds where the line is that ends front matter.
fn front_matter_end(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut marks = 0;
    for line in text.split_inclusive('\n') {
        marks += usize::from(line.trim_start_matches('\u{feff}').trim_end() == "---");
        if marks == 2 {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// Finds the line of `output` in front matter, with its ending, and what stands behind the colon.
fn output_line(front_matter: &str) -> Option<(Range<usize>, Range<usize>)> {
    let mut at = 0;
    for line in front_matter.split_inclusive('\n') {
        if line.starts_with(KEY) {
            let value = at + KEY.len()..at + line.trim_end().len();
            return Some((at..at + line.len(), value));
        }
        at += line.len();
    }
    None
}

/// Returns what ends the lines of a text.
fn ending(text: &str) -> &'static str {
    if text.ends_with("\r\n") { "\r\n" } else { "\n" }
}

/// Writes into a mapping in braces, whose first one is at `open`.
fn in_flow(text: &str, open: usize, calibration: &str) -> Option<String> {
    let close = closing(text, open)?;
    if let Some(old) = value_in_flow(text, open..close) {
        return Some(replaced(text, old, calibration));
    }
    let inner = text.get(open + 1..close)?.trim_end();
    let comma = if inner.ends_with(',') { "" } else { "," };
    let end = open + 1 + inner.len();
    Some(replaced(
        text,
        end..end,
        &format!("{comma} calibration: {calibration}"),
    ))
}

/// Finds the braces that are the value of `calibration` in a mapping in braces.
fn value_in_flow(text: &str, mapping: Range<usize>) -> Option<Range<usize>> {
    const KEY: &str = "calibration:";
    let mut position = mapping.start + 1;
    while position < mapping.end {
        let rest = text.get(position..mapping.end)?;
        if rest.starts_with(KEY) {
            let behind = rest.get(KEY.len()..)?;
            let value = behind.trim_start();
            let start = position + rest.len() - value.len();
            return value
                .starts_with('{')
                .then(|| closing(text, start))
                .flatten()
                .map(|end| start..end + 1);
        }
        position = skipped(text, position)?;
    }
    None
}

/// Finds the brace or bracket that closes the one at `open`.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut position = open + 1;
    while let Some(next) = text.get(position..)?.chars().next() {
        if matches!(next, '}' | ']') {
            return Some(position);
        }
        position = skipped(text, position)?;
    }
    None
}

/// Returns the place behind a character, or behind all that it opens: a quoted text, or a nested list or
/// mapping.
fn skipped(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let first = rest.chars().next()?;
    let is_opening = |quote: char| {
        // Within a word a quote is a letter like others.
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        first == quote && before.is_none_or(|before| before.is_whitespace() || "{[,:".contains(before))
    };
    if is_opening('"') {
        return behind_quoted(rest, '"', '\\').map(|length| at + length);
    }
    if is_opening('\'') {
        return behind_quoted(rest, '\'', '\'').map(|length| at + length);
    }
    if matches!(first, '{' | '[') {
        return closing(text, at).map(|end| end + 1);
    }
    Some(at + first.len_utf8())
}

/// Returns the length of a text in quotes, in which `escape` takes away the meaning of the next character.
fn behind_quoted(text: &str, quote: char, escape: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        let is_escape =
            letter == escape && (escape != quote || letters.peek().is_some_and(|(_, next)| *next == quote));
        if is_escape {
            letters.next();
        } else if letter == quote {
            return Some(at + quote.len_utf8());
        }
    }
    None
}

/// Writes into a mapping of lines that are indented, the first of which starts at `start`.
fn in_block(text: &str, start: usize, calibration: &str) -> Option<String> {
    let mut at = start;
    let mut indent = None;
    for line in text.get(start..)?.split_inclusive('\n') {
        let bare = line.trim_start_matches(' ');
        let spaces = line.len() - bare.len();
        let is_text = !bare.trim().is_empty() && !bare.starts_with('#');
        if is_text && spaces == 0 {
            break;
        }
        if is_text && spaces == *indent.get_or_insert(spaces) && bare.starts_with("calibration:") {
            let value = bare.strip_prefix("calibration:")?;
            let trimmed = value.trim_start_matches(' ');
            if !trimmed.starts_with('{') {
                return None;
            }
            let open = at + line.len() - trimmed.len();
            return Some(replaced(text, open..closing(text, open)? + 1, calibration));
        }
        at += line.len();
    }
    let ending = ending(text.get(..start)?);
    let line = format!("{}calibration: {calibration}{ending}", " ".repeat(indent?));
    Some(replaced(text, start..start, &line))
}

fn replaced(text: &str, range: Range<usize>, new: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range, new);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the output becomes `expected`, and that nothing else changes.
    fn check(output: &str, expected: &str) {
        for ending in ["\n", "\r\n"] {
            let file = |output: &str| {
                let text = format!(
                    "---\ndescription: 'output: {{kind: x}}'\n{output}\n# end\nmetrics: [accuracy]\n---\noutput: {{}} --- {{{{ text }}}}"
                );
                text.replace('\n', ending)
            };
            let found = with_temperature(&file(output), 1.5);
            assert_eq!(found, Some(file(expected)), "{output}");
        }
    }

    #[test]
    fn a_temperature_is_added_to_an_output_in_braces() {
        check(
            "output: {kind: predicate}",
            "output: {kind: predicate, calibration: {temperature: 1.5}}",
        );
        check(
            "output: {kind: choice, choices: [\"a}\", 'it''s }', b's], }  # a comment",
            "output: {kind: choice, choices: [\"a}\", 'it''s }', b's], calibration: {temperature: 1.5} }  # a comment",
        );
        check(
            "output: {kind: choice,\n  choices: [a, b]\n}",
            "output: {kind: choice,\n  choices: [a, b], calibration: {temperature: 1.5}\n}",
        );
    }

    #[test]
    fn a_temperature_takes_the_place_of_the_one_that_is_there() {
        check(
            "output: {kind: choice, choices: [calibration], calibration: {temperature: 3}, method: likelihood}",
            "output: {kind: choice, choices: [calibration], calibration: {temperature: 1.5}, method: likelihood}",
        );
        check(
            "output:\n  kind: predicate # yes or no\n  calibration: {temperature: 3} # fitted",
            "output:\n  kind: predicate # yes or no\n  calibration: {temperature: 1.5} # fitted",
        );
    }

    #[test]
    fn a_temperature_is_a_line_of_an_output_of_lines() {
        check(
            "output: # what it answers\n\n    kind: level\n    levels: [low, high]",
            "output: # what it answers\n    calibration: {temperature: 1.5}\n\n    kind: level\n    levels: [low, high]",
        );
    }

    #[test]
    fn what_is_written_in_another_way_is_left_alone() {
        for output in [
            "inputs: {}",
            "output: &anchor {kind: predicate}",
            "output: {kind: predicate",
            "output:\n  kind: predicate\n  calibration:\n    temperature: 3",
            "output:",
        ] {
            let file = format!("---\n{output}\n---\noutput: {{kind: predicate}}");
            assert_eq!(with_temperature(&file, 1.5), None, "{output}");
        }
        assert_eq!(with_temperature("", 1.5), None);
    }

    #[test]
    fn a_file_that_inherits_its_output_gets_a_line_of_its_own() {
        let file = "---\r\nextends: match\r\n---\r\noutput: ---\r\n";
        let expected = "---\r\nextends: match\r\noutput: {}\r\n---\r\noutput: ---\r\n";
        assert_eq!(with_line(file, "output: {}").as_deref(), Some(expected));
        assert_eq!(with_line(expected, "output: {}"), None);
    }
}
