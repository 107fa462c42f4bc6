//! Reads a task file, the task files that it extends, and the files that their templates import.

use std::borrow::Cow;

use crate::encoding::text_of_file;
use crate::error::{PromptError, PromptErrorKind};
use crate::front_matter::{FrontMatter, MAX_FRONT_MATTER_BYTES, RawFrontMatter, is_task_name};
use crate::scan::BlockSite;
use crate::source::{TaskSource, path_fault};
use crate::suggest::{listing, quoted};
use crate::template::{BODY, MAX_BODY_BYTES, Template};
use crate::template_file::TemplateFile;

/// The most task files of one task: itself, what it extends, what that extends.
const MAX_LEVELS: usize = 8;

/// The most files that the templates of one task import.
const MAX_IMPORTS: usize = 32;

/// How deeply imports may nest; a rendering spends a part of its recursion limit on each.
const MAX_IMPORT_DEPTH: usize = 4;

/// The most bytes of all templates of one task together.
const MAX_TEMPLATE_BYTES: usize = 128 * 1024;

/// One task file of a task.
struct Level {
    origin: String,
    front_matter: RawFrontMatter,
    /// Its prompt and what that imports, or `None` where it has that of the task that it extends. What is
    /// wrong with it is said after what is wrong with the front matter.
    template: Result<Option<(TemplateFile, Vec<TemplateFile>)>, PromptError>,
}

/// Reads a task file, and gives its front matter and its template with all that it inherits.
pub(crate) fn load(
    origin: &str,
    bytes: &[u8],
    source: &dyn TaskSource,
) -> Result<(FrontMatter, Template), PromptError> {
    let mut loader = Loader::default();
    loader.read_task(origin, bytes, source)?;
    loader.finish()
}

#[derive(Default)]
struct Loader {
    levels: Vec<Level>,
    imports: usize,
    template_bytes: usize,
}

impl Loader {
    fn read_task(&mut self, origin: &str, bytes: &[u8], source: &dyn TaskSource) -> Result<(), PromptError> {
        check_size(
            origin,
            "file",
            bytes.len(),
            MAX_FRONT_MATTER_BYTES + MAX_BODY_BYTES,
        )?;
        let text = unix_lines(text_of_file(origin, bytes)?);
        let Sections {
            front_matter,
            body,
            lines_before,
        } = split(origin, &text)?;
        check_size(origin, "front matter", front_matter.len(), MAX_FRONT_MATTER_BYTES)?;
        check_size(origin, "body", body.len(), MAX_BODY_BYTES)?;
        let front_matter = RawFrontMatter::parse(origin, front_matter)?;
        let extends = front_matter.extends();
        let template = if !body.trim().is_empty() {
            self.read_body(origin, body, lines_before, source).map(Some)
        } else if extends.is_some() {
            Ok(None)
        } else {
            Err(PromptErrorKind::EmptyBody.at(origin, Some(lines_before + 1)))
        };
        self.levels.push(Level {
            origin: origin.to_owned(),
            front_matter,
            template,
        });
        match extends {
            Some((name, line)) => self.read_parent(origin, &name, line, source),
            None => Ok(()),
        }
    }

    /// Reads the prompt of a task file, and what it imports.
    fn read_body(
        &mut self,
        origin: &str,
        body: &str,
        lines_before: usize,
        source: &dyn TaskSource,
    ) -> Result<(TemplateFile, Vec<TemplateFile>), PromptError> {
        let name = format!("{BODY}{}", self.levels.len());
        let body = TemplateFile::parse(name, origin, body, lines_before)?;
        self.add_bytes(&body)?;
        let mut imported = Vec::new();
        self.read_imports(&body, source, &mut Vec::new(), &mut imported)?;
        Ok((body, imported))
    }

    /// Reads the task file that another one extends.
    fn read_parent(
        &mut self,
        origin: &str,
        name: &str,
        line: Option<usize>,
        source: &dyn TaskSource,
    ) -> Result<(), PromptError> {
        let fault = |message: String| {
            let key = "extends".to_owned();
            PromptErrorKind::Invalid { key, message }.at(origin, line)
        };
        if !is_task_name(name) {
            let message = "expected the name of a task (lower-case letters, digits, '-' and '_'), found";
            return Err(fault(format!("{message} {}", quoted(name))));
        }
        if self.levels.len() == MAX_LEVELS {
            let limit = MAX_LEVELS - 1;
            return Err(fault(format!(
                "expected at most {limit} tasks that extend each other"
            )));
        }
        let found = source.task(name);
        let found =
            found.map_err(|error| fault(format!("cannot read the task file of '{name}': {error}")))?;
        let Some(parent) = found else {
            return Err(fault(format!(
                "there is no task '{name}': it is looked for as '{name}.task' beside this file, and among the built-in \
                 tasks"
            )));
        };
        let origins: Vec<&str> = self.levels.iter().map(|level| level.origin.as_str()).collect();
        if let Some(start) = origins.iter().position(|seen| *seen == parent.file.origin) {
            let circle = origins.get(start..).unwrap_or_default().join(" -> ");
            let end = &parent.file.origin;
            return Err(fault(format!(
                "the tasks extend each other in a circle: {circle} -> {end}"
            )));
        }
        self.read_task(&parent.file.origin, &parent.file.bytes, &*parent.source)
    }

    /// Reads what a template imports, and what that imports; `path` leads from the body to the template.
    fn read_imports(
        &mut self,
        template: &TemplateFile,
        source: &dyn TaskSource,
        path: &mut Vec<String>,
        read: &mut Vec<TemplateFile>,
    ) -> Result<(), PromptError> {
        for site in &template.scan.imports {
            let Some(wanted) = &site.path else { continue };
            let fault = |message: String| template.syntax_error(site.line, message);
            if let Some(fault_found) = path_fault(wanted) {
                return Err(fault(format!(
                    "cannot use the file {}: {fault_found}",
                    quoted(wanted)
                )));
            }
            if let Some(start) = path.iter().position(|seen| seen == wanted) {
                let circle = path.get(start..).unwrap_or_default().join(" -> ");
                return Err(fault(format!(
                    "the files import each other in a circle: {circle} -> {wanted}"
                )));
            }
            let name = format!("{}/{wanted}", self.levels.len());
            if read.iter().any(|file| file.name == name) {
                continue;
            }
            if path.len() == MAX_IMPORT_DEPTH {
                return Err(fault(format!("expected imports at most {MAX_IMPORT_DEPTH} deep")));
            }
            self.imports += 1;
            if self.imports > MAX_IMPORTS {
                return Err(fault(format!("expected at most {MAX_IMPORTS} imported files")));
            }
            let found = source.template(wanted);
            let found = found.map_err(|error| fault(format!("cannot read the file '{wanted}': {error}")))?;
            let Some(found) = found else {
                return Err(fault(format!(
                    "there is no file '{wanted}' in the folder of the task file"
                )));
            };
            check_size(&found.origin, "file", found.bytes.len(), MAX_BODY_BYTES)?;
            let text = unix_lines(text_of_file(&found.origin, &found.bytes)?);
            let file = TemplateFile::parse(name, &found.origin, &text, 0)?;
            self.add_bytes(&file)?;
            path.push(wanted.clone());
            self.read_imports(&file, source, path, read)?;
            path.pop();
            read.push(file);
        }
        Ok(())
    }

    fn add_bytes(&mut self, template: &TemplateFile) -> Result<(), PromptError> {
        self.template_bytes += template.source.len();
        check_size(
            &template.origin,
            "prompt with all files",
            self.template_bytes,
            MAX_TEMPLATE_BYTES,
        )
    }

    /// Puts the levels together.
    fn finish(self) -> Result<(FrontMatter, Template), PromptError> {
        let origin = self
            .levels
            .first()
            .map(|level| level.origin.clone())
            .unwrap_or_default();
        let (front_matter, templates): (Vec<_>, Vec<_>) = self
            .levels
            .into_iter()
            .map(|level| ((level.origin, level.front_matter), level.template))
            .unzip();
        let front_matter = FrontMatter::check(front_matter)?;
        let mut bodies: Vec<TemplateFile> = Vec::new();
        let mut others = Vec::new();
        for template in templates {
            let Some((body, imported)) = template? else {
                continue;
            };
            if let Some(child) = bodies.last_mut() {
                // A body that writes text outside of blocks stands for itself.
                if !child.scan.only_blocks {
                    continue;
                }
                child.extends = Some(body.name.clone());
            }
            bodies.push(body);
            others.extend(imported);
        }
        check_blocks(&bodies)?;
        let mut bodies = bodies.into_iter();
        // The last task of a chain extends none, so that it has a body or there was an error.
        let body = bodies
            .next()
            .ok_or_else(|| PromptErrorKind::EmptyBody.at(&origin, Some(1)))?;
        others.extend(bodies);
        Ok((front_matter, Template::new(body, others)))
    }
}

/// Checks that the blocks of each body are blocks of the one that it extends.
fn check_blocks(bodies: &[TemplateFile]) -> Result<(), PromptError> {
    for (index, body) in bodies.iter().enumerate() {
        let parents = bodies.get(index + 1..).unwrap_or_default();
        if parents.is_empty() {
            continue;
        }
        let known: Vec<&str> = parents
            .iter()
            .flat_map(|parent| &parent.scan.block_sites)
            .map(|site| site.name.as_str())
            .collect();
        // A block inside of one that is overridden may be new.
        let is_unknown = |site: &&BlockSite| !site.is_nested && !known.contains(&site.name.as_str());
        if let Some(BlockSite { name, line, .. }) = body.scan.block_sites.iter().find(is_unknown) {
            let message = format!(
                "there is no block '{name}' in the prompt that is extended (blocks: {})",
                listing(&known)
            );
            return Err(body.syntax_error(*line, message));
        }
    }
    Ok(())
}

struct Sections<'t> {
    front_matter: &'t str,
    body: &'t str,
    lines_before: usize,
}

/// Cuts a file at its two `---` lines.
fn split<'t>(origin: &str, text: &'t str) -> Result<Sections<'t>, PromptError> {
    let first = text.lines().next().unwrap_or_default();
    let rest = text.strip_prefix(first).unwrap_or_default();
    if first.trim_end() != "---" {
        let found = first.to_owned();
        return Err(PromptErrorKind::NoFrontMatter { found }.at(origin, Some(1)));
    }
    let rest = rest.strip_prefix('\n').unwrap_or(rest);
    let mut offset = 0;
    for (index, line) in rest.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        if line.trim_end() == "---" {
            let front_matter = rest.get(..offset).unwrap_or_default();
            return Ok(Sections {
                front_matter,
                body: rest.get(end..).unwrap_or_default(),
                lines_before: index + 2,
            });
        }
        offset = end;
    }
    Err(PromptErrorKind::UnclosedFrontMatter.at(origin, None))
}

/// Writes the line endings of Windows as those of all others.
fn unix_lines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        Cow::Owned(text.replace("\r\n", "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

fn check_size(origin: &str, part: &'static str, bytes: usize, limit: usize) -> Result<(), PromptError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(PromptErrorKind::TooLarge { part, bytes, limit }.at(origin, None))
}
