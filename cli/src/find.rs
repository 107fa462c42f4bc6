//! Tasks by their names, or by the paths of their files.

use multiway::{Checkpoint, Task, TaskLibrary};

use super::failure::{Failure, Outcome};

/// Finds the task of a name, or reads the task file at a path.
pub(crate) fn find(library: &TaskLibrary, checkpoint: &Checkpoint, name: &str) -> Outcome<Task> {
    if !is_path(name) {
        return library.get(name).cloned().map_err(Failure::input);
    }
    let mut alone = TaskLibrary::for_model(checkpoint.config()).map_err(Failure::runtime)?;
    let name = alone.load_file(name).map_err(Failure::input)?;
    alone.get(&name).cloned().map_err(Failure::input)
}

/// Tells a path from the name of a task, which has neither dots nor separators.
fn is_path(name: &str) -> bool {
    name.contains(['/', '\\', '.'])
}
