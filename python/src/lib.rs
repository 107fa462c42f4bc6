//! The compiled half of the Python package `multiway`: one engine per checkpoint, its tasks, their answers.
//!
//! The interpreter's lock is held while Python objects are read and made, and by nothing else: pictures are
//! decoded, and answers awaited, without it. `multiway/_multiway.pyi` documents the interface.
//!
//! | module | contents |
//! |---|---|
//! | `engine` | the class `Engine` |
//! | `registry` | the engines of the process, one for each checkpoint |
//! | `call`, `pictures` | a task with its inputs, read from Python objects |
//! | `wait` | waiting without the interpreter's lock, which Ctrl-C ends |
//! | `stream` | the class `Stream` |
//! | `answer`, `vectors` | the classes of answers, and vectors as arrays of numpy |
//! | `failure` | errors as exceptions |

mod answer;
mod call;
mod engine;
mod failure;
mod pictures;
mod registry;
mod stream;
mod vectors;
mod wait;

/// The module.
#[pyo3::pymodule(gil_used = true)]
mod _multiway {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::answer::{PyAnswer, PyChoice, PyDecision, PyScore, PyUsage};
    #[pymodule_export]
    use crate::engine::PyEngine;
    #[pymodule_export]
    use crate::failure::{EngineError, InputError};
    #[pymodule_export]
    use crate::stream::PyStream;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
