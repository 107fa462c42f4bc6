//! Reading the command line, and what is told of one that cannot be read.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Command, Parser};

/// The verb that always prints JSON.
const EMBED: &str = "embed";

/// A command line that cannot be read, or that asks for help or the version.
#[derive(Debug)]
pub(crate) struct WrongUsage {
    pub(crate) error: clap::Error,
    /// Whether standard output must hold one line of JSON, errors included.
    pub(crate) json: bool,
}

impl WrongUsage {
    /// Says what is wrong on one line, without the usage.
    pub(crate) fn message(&self) -> String {
        if self.error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return "the command line is not complete; with --help it tells what is expected".to_owned();
        }
        let rendered = self.error.render().to_string();
        let told = rendered.strip_prefix("error: ").unwrap_or(&rendered);
        let is_about = |part: &&str| !part.starts_with("Usage:") && !part.starts_with("For more information");
        let parts = told.split("\n\n").filter(is_about);
        let parts = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        parts
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Reads a command line.
pub(crate) fn parse<C: Parser>(arguments: Vec<OsString>) -> Result<C, WrongUsage> {
    let mut command = taking_negative_numbers(C::command());
    let read = command.try_get_matches_from_mut(&arguments);
    let read = read.and_then(|matches| C::from_arg_matches(&matches));
    read.map_err(|error| {
        command.build();
        let arguments = arguments
            .iter()
            .skip(1)
            .map(|argument| argument.to_string_lossy());
        WrongUsage {
            json: asks_for_json(&command, arguments.map(Into::into)),
            error: error.format(&mut command),
        }
    })
}

/// Lets a negative number be the value of an option, whose parser says what is expected instead; no option is
/// a number.
fn taking_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|option| {
        let takes = option.get_action().takes_values() && !option.is_positional();
        if takes {
            option.allow_negative_numbers(true)
        } else {
            option
        }
    });
    command.mut_subcommands(taking_negative_numbers)
}

/// Tells whether a command line that cannot be read asks for JSON: it has `--json`, not as the value of an
/// option and not behind `--`, or its verb always prints JSON.
fn asks_for_json(mut command: &Command, mut arguments: impl Iterator<Item = String>) -> bool {
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            return false;
        }
        if argument == "--json" || argument.starts_with("--json=") {
            return true;
        }
        if let Some(verb) = command.find_subcommand(&argument) {
            if verb.get_name() == EMBED {
                return true;
            }
            command = verb;
        } else if expects_value(command, &argument) {
            arguments.next();
        }
    }
    false
}

/// Tells whether the argument behind this one is the value of an option.
fn expects_value(command: &Command, argument: &str) -> bool {
    let takes = |is_it: &dyn Fn(&clap::Arg) -> bool| {
        let mut options = command.get_arguments().filter(|option| !option.is_positional());
        options.any(|option| is_it(option) && option.get_action().takes_values())
    };
    if let Some(name) = argument.strip_prefix("--") {
        return takes(&|option| option.get_long() == Some(name));
    }
    let Some(flags) = argument.strip_prefix('-') else {
        return false;
    };
    // What stands behind the first of them that takes a value is that value.
    let takes = |flag: char| takes(&|option| option.get_short() == Some(flag));
    let valued = flags.char_indices().find(|(_, flag)| takes(*flag));
    valued.is_some_and(|(place, flag)| place + flag.len_utf8() == flags.len())
}

/// Reads a whole number that is not negative.
pub(crate) fn whole_number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number = text
        .parse::<u64>()
        .ok()
        .and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("expected a whole number from 0 to {}, found '{text}'", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cli;
    use clap::CommandFactory;

    fn json(line: &str) -> bool {
        let mut command = Cli::command();
        command.build();
        asks_for_json(&command, line.split(' ').map(str::to_owned))
    }

    #[test]
    fn json_is_asked_for_anywhere_but_as_a_value_or_behind_two_dashes() {
        for line in [
            "run caption --json --bogus",
            "--json",
            "fly --json",
            "run --set a=b --json",
            "run -s a=b --json",
            "run -sa=b --json",
            "run -q --json",
            "run --set=a --json",
            "--seed 3 run --json",
            "run --bogus --json",
            "search --json",
            "bench decode --threads x --json",
            "embed",
            "--quiet embed --bogus",
            "run caption --json=yes",
        ] {
            assert!(json(line), "{line}");
        }
        for line in [
            "run caption",
            "run caption --set --json",
            "run caption -s --json",
            "run caption -qs --json",
            "--checkpoint --json run",
            "run caption -- --json",
            "run caption --set=--json",
            "run embed",
            "run caption --jsonl",
        ] {
            assert!(!json(line), "{line}");
        }
    }

    #[test]
    fn a_seed_is_any_number_of_64_bits() {
        assert_eq!(whole_number("18446744073709551615"), Ok(u64::MAX));
        for wrong in ["-1", "1.5", "", "18446744073709551616", "one"] {
            let told = whole_number::<u64>(wrong).unwrap_err();
            assert!(
                told.contains("a whole number from 0 to 18446744073709551615"),
                "{told}"
            );
        }
    }
}
