//! How a verb can end, and the exit code and message that follow.

use std::io::{self, Write};
use std::process::ExitCode;

use multiway::task::TaskError;
use serde_json::json;

use super::usage::WrongUsage;

/// Exit code where something failed while running.
pub(crate) const EXIT_RUNTIME: u8 = 1;
/// Exit code where the command line or an input is wrong.
pub(crate) const EXIT_INPUT: u8 = 2;
/// Exit code after Ctrl-C: 128 + SIGINT, as shells say it.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Says why a verb did not finish.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input is wrong: another command line or file would work.
    Input(anyhow::Error),
    /// The input was fine, but the work failed.
    Runtime(anyhow::Error),
    /// A check failed, and the output reports it already.
    Reported,
    /// Ctrl-C.
    Interrupted,
    /// The reader closed standard output, which is not an error.
    ClosedPipe,
}

/// What every verb returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Makes a failure that another command line or file would avoid.
    pub(crate) fn input(error: impl Into<anyhow::Error>) -> Self {
        Self::Input(error.into())
    }

    /// Makes a failure that is no fault of the input.
    pub(crate) fn runtime(error: impl Into<anyhow::Error>) -> Self {
        Self::Runtime(error.into())
    }

    /// Makes a failure to write to standard output.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Runtime(anyhow::Error::new(error).context("cannot write to standard output")),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => EXIT_INPUT,
            Self::Runtime(_) | Self::Reported => EXIT_RUNTIME,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::ClosedPipe => 0,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Runtime(_) | Self::Reported => "runtime",
            Self::Interrupted | Self::ClosedPipe => "interrupted",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Input(error) | Self::Runtime(error) => chain(error),
            Self::Reported => "failed".to_owned(),
            Self::Interrupted | Self::ClosedPipe => "interrupted".to_owned(),
        }
    }
}

/// Sorts what a task says into what the input is to blame for, and what it is not.
pub(crate) fn task_failure(error: TaskError) -> Failure {
    if error.is_input() {
        Failure::input(error)
    } else {
        Failure::runtime(error)
    }
}

/// Joins an error and its causes, leaving out a cause that the message before it already tells.
fn chain(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    message
}

/// Reports how a verb ended, and gives the exit code.
pub(crate) fn report(outcome: Outcome, json: bool) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    if matches!(failure, Failure::ClosedPipe | Failure::Reported) {
        return ExitCode::from(failure.exit_code());
    }
    if json {
        print_json_error(failure.kind(), &failure.message(), failure.exit_code());
    }
    if !matches!(failure, Failure::Interrupted) {
        let _ = writeln!(io::stderr(), "error: {}", failure.message());
    }
    ExitCode::from(failure.exit_code())
}

/// Reports why a command line cannot be read, or shows the help or version that it asks for, and gives the
/// exit code.
pub(crate) fn report_usage(wrong: &WrongUsage) -> ExitCode {
    let is_error = wrong.error.use_stderr();
    if is_error && wrong.json {
        print_json_error("input", &wrong.message(), EXIT_INPUT);
    }
    // Only a closed pipe can make this fail, and then there is no reader for an error.
    let _ = wrong.error.print();
    ExitCode::from(if is_error { EXIT_INPUT } else { 0 })
}

fn print_json_error(kind: &str, message: &str, exit_code: u8) {
    let error = json!({"kind": kind, "message": message, "exit_code": exit_code});
    // Standard error still tells; a closed standard output cannot.
    let _ = writeln!(io::stdout(), "{}", json!({ "error": error }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_chain_does_not_repeat_what_was_said() {
        let inner = Err::<(), _>(io::Error::other("disk on fire"));
        let twice = inner
            .context("cannot read: disk on fire")
            .context("cannot start")
            .unwrap_err();
        assert_eq!(chain(&twice), "cannot start: cannot read: disk on fire");
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_any_other_write_failure_is() {
        assert_eq!(Failure::output(io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(
            Failure::output(io::ErrorKind::StorageFull.into()).exit_code(),
            EXIT_RUNTIME
        );
    }
}
