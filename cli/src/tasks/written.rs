//! Task files that get a temperature, and keep all their other bytes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use multiway::prompt::OutputSpec;
use multiway::{Task, TaskLibrary};
use serde_json::{Value, json};

use super::output_text::{with_line, with_temperature};
use crate::failure::{Failure, Outcome};

/// The text of a task file, and where it goes with a temperature.
pub(super) struct TaskText {
    /// The text; `None` where a built-in task is to be extended.
    text: Option<String>,
    task: Value,
    name: String,
    output: OutputSpec,
    place: PathBuf,
    /// Whether the file is there and is replaced.
    in_place: bool,
}

impl TaskText {
    /// Reads the file of a task, and checks that a temperature can be written into it. `None` for a built-in
    /// task without a file to write to.
    pub(super) fn open(library: &TaskLibrary, task: &Task, out: Option<&Path>) -> Outcome<Option<Self>> {
        let own = task.folder().map(|_| Path::new(task.origin()));
        let Some(place) = out.or(own) else {
            return Ok(None);
        };
        let text = own.map(fs::read_to_string).transpose();
        let text = text
            .with_context(|| format!("cannot read '{}'", task.origin()))
            .map_err(Failure::Input)?;
        let in_place = out.is_none();
        if !in_place && place.exists() {
            return Err(Failure::Input(anyhow!(
                "'{}' is there already: remove it, or write elsewhere",
                place.display()
            )));
        }
        let opened = Self {
            text,
            task: json!(task.file()),
            name: task.name().to_owned(),
            output: task.file().output.clone(),
            place: place.to_owned(),
            in_place,
        };
        opened.with(library, 1.5)?;
        Ok(Some(opened))
    }

    /// Writes the file with a temperature, and returns where it is.
    pub(super) fn write(&self, library: &TaskLibrary, temperature: f64) -> Outcome<PathBuf> {
        let text = self.with(library, temperature)?;
        self.replace(text.as_bytes())
            .with_context(|| format!("cannot write '{}'", self.place.display()))
            .map_err(Failure::Runtime)?;
        Ok(self.place.clone())
    }

    /// Returns the text with a temperature, which was read again to see that nothing else is different.
    fn with(&self, library: &TaskLibrary, temperature: f64) -> Outcome<String> {
        let full = format!("output: {}", written_output(&self.output, temperature));
        let text = match &self.text {
            Some(text) => with_temperature(text, temperature).or_else(|| with_line(text, &full)),
            None => Some(format!("---\nextends: {}\n{full}\n---\n", self.name)),
        };
        let by_hand = || {
            Failure::Input(anyhow!(
                "cannot write a temperature into '{}': write `calibration: {{temperature: ..}}` into its `output` once, and calibrate again",
                self.place.display()
            ))
        };
        let text = text.ok_or_else(by_hand)?;
        let read = library.parse_file(&self.place, text.as_bytes());
        let read = json!(read.map_err(Failure::input)?.file());
        let mut wanted = self.task.clone();
        wanted["output"]["calibration"] = json!({"temperature": temperature});
        // A file of another name or place, and one that extends, is another in these.
        let own: &[&str] = match &self.text {
            Some(_) => &["name", "file"],
            None => &["name", "file", "extends", "version", "examples"],
        };
        let same = |key: &str| own.contains(&key) || read.get(key) == wanted.get(key);
        let keys = read.as_object().into_iter().chain(wanted.as_object()).flatten();
        if keys.into_iter().all(|(key, _)| same(key)) {
            Ok(text)
        } else {
            Err(by_hand())
        }
    }

    /// Writes a new file, or puts it in the place of the old one at once.
    fn replace(&self, bytes: &[u8]) -> anyhow::Result<()> {
        if !self.in_place {
            if let Some(folder) = self.place.parent() {
                fs::create_dir_all(folder)?;
            }
            File::options()
                .write(true)
                .create_new(true)
                .open(&self.place)?
                .write_all(bytes)?;
            return Ok(());
        }
        // A link stays one.
        let place = self.place.canonicalize()?;
        let current = fs::read(&place)?;
        let read = self.text.as_ref().is_some_and(|text| text.as_bytes() == current);
        ensure!(read, "it has changed since the data was read");
        let mut temporary = place.clone().into_os_string();
        temporary.push(".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::metadata(&place)?.permissions())?;
        file.sync_all()?;
        fs::rename(&temporary, &place)?;
        Ok(())
    }
}

/// Writes the `output` of a task with a temperature, for a file that inherits it.
fn written_output(output: &OutputSpec, temperature: f64) -> String {
    let mut fields = json!(output);
    fields["calibration"] = json!({"temperature": temperature});
    let fields = fields.as_object().into_iter().flatten();
    let fields: Vec<String> = fields.map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}
