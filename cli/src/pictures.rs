//! Pictures from files and from standard input.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use multiway::ImageProcessor;
use multiway::image::{ImageError, ProcessedImage};

use super::failure::{Failure, Outcome};

/// Reads pictures in the order in which they are named; `-` is standard input.
pub(crate) fn open_all(processor: &ImageProcessor, paths: &[PathBuf]) -> Outcome<Vec<ProcessedImage>> {
    if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(Failure::Input(anyhow!(
            "standard input holds one picture: `--image -` may be given once"
        )));
    }
    paths
        .iter()
        .map(|path| open(processor, path).map_err(Failure::Input))
        .collect()
}

/// The names of standard input. Opened as a file, it would be refused where it is a socket, and read anew
/// where it is a regular file.
const STDIN: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Tells whether a path stands for standard input.
fn is_stdin(path: &Path) -> bool {
    STDIN.iter().any(|name| path == Path::new(name))
}

fn open(processor: &ImageProcessor, path: &Path) -> anyhow::Result<ProcessedImage> {
    if is_stdin(path) {
        return read_stdin(processor).context("cannot use standard input as a picture");
    }
    processor.open(path).map_err(|error| anyhow!("picture {error}"))
}

/// Reads a picture from a file, for a caller that names the file itself.
pub(crate) fn open_unnamed(
    processor: &ImageProcessor,
    path: &Path,
) -> Result<ProcessedImage, Box<ImageError>> {
    processor.open(path).map_err(|error| match error {
        ImageError::File { source, .. } => source,
        other => Box::new(other),
    })
}

fn read_stdin(processor: &ImageProcessor) -> anyhow::Result<ProcessedImage> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!("it is a terminal; pipe a picture in: `cat cat.png | multiway run caption --image -`");
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed lets the processor tell that there are too many.
    stdin
        .lock()
        .take(processor.limits().max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(processor.process(&bytes)?)
}
