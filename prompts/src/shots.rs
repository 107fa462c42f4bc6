//! Few-shot examples: inputs and the answer that they should get, rendered before the prompt.

use crate::error::{PromptError, PromptErrorKind};
use crate::input::Inputs;

/// The most shots that one prompt may have.
pub const MAX_SHOTS: usize = 64;

/// Holds a few-shot example whose pictures are open.
///
/// # Examples
///
/// ```
/// use multiway_prompts::{InputValue, Inputs, Shot, TaskFile};
///
/// let file = b"---\ndescription: Translates.\ninputs: {text: {type: text}}\n---\n{{ text }} =>";
/// let task = TaskFile::parse("translate.task", file)?;
/// let shot = Shot {
///     inputs: Inputs::from([("text".to_owned(), "Katze".into())]),
///     target: Inputs::from([("target".to_owned(), " cat".into())]),
/// };
/// let inputs = task.complete(&Inputs::from([("text".to_owned(), "Hund".into())]))?;
/// assert_eq!(task.render_with_shots(&inputs, &[shot], &[])?.text(), "Katze => cat\nHund =>");
/// # Ok::<(), multiway_prompts::PromptError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shot {
    /// The inputs. Pictures are indices among those of the request, to which the pictures of shots belong.
    pub inputs: Inputs,
    /// What the target is made of: a value for each of
    /// [`TaskFile::target_fields`](crate::TaskFile::target_fields).
    pub target: Inputs,
}

/// Checks that there are not too many shots.
pub(crate) fn check_count(origin: &str, shots: &[Shot]) -> Result<(), PromptError> {
    if shots.len() <= MAX_SHOTS {
        return Ok(());
    }
    let (found, limit) = (shots.len(), MAX_SHOTS);
    Err(PromptErrorKind::TooManyShots { found, limit }.at(origin, None))
}

/// Says of an error in which shot it is, counted from 1.
pub(crate) fn in_shot(number: usize, error: &PromptError) -> PromptError {
    let kind = PromptErrorKind::Shot {
        number,
        error: Box::new(error.kind().clone()),
    };
    kind.at(error.origin(), error.line())
}
