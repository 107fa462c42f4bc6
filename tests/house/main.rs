//! What rustfmt and clippy cannot hold together on stable Rust: the groups of imports, the width of comments,
//! that the files of a crate do not import each other in a circle, and that ARCHITECTURE.md tells the truth.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod architecture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CRATES: [&str; 12] = [
    "src",
    "cli/src",
    "data/src",
    "index/src",
    "jobs/src",
    "model/src",
    "prompts/src",
    "python/src",
    "runtime/src",
    "server/src",
    "tasks/src",
    "training/src",
];
/// Circles that stay: a type and its builder name each other, and so do a tokenizer and its stream of text.
const CIRCLES: [(&str, &[&str]); 2] = [
    ("runtime/src", &["engine", "engine::builder"]),
    ("runtime/src", &["tokenizer", "tokenizer::decode"]),
];
/// Columns that a comment may fill.
const WIDTH: usize = 110;

/// Lists the Rust files below a folder, by their paths in it.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(folder, &mut files);
    files.sort();
    files
}

/// Lists all Rust files of the repository.
fn all_files() -> Vec<PathBuf> {
    let beside = [
        "index/benches",
        "model/benches",
        "runtime/benches",
        "training/examples",
        "fuzz/fuzz_targets",
        "tests",
        "examples",
        "cli/tests",
        "data/tests",
        "index/tests",
        "model/tests",
        "prompts/tests",
        "runtime/tests",
        "server/benches",
        "server/tests",
        "tasks/tests",
    ];
    let folders = CRATES.iter().chain(&beside);
    folders
        .flat_map(|folder| rust_files(&Path::new(ROOT).join(folder)))
        .collect()
}

#[test]
fn comments_end_within_the_width_of_the_code() {
    let mut wide = Vec::new();
    for path in all_files() {
        let text = fs::read_to_string(&path).unwrap();
        let mut in_example = false;
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else {
                in_example = false;
                continue;
            };
            let comment = comment.trim_start_matches(['/', '!', ' ']);
            in_example ^= comment.starts_with("```");
            // Programs, addresses and rows of tables are not wrapped.
            let is_prose = !in_example && !comment.contains("://") && !comment.starts_with('|');
            if is_prose && line.chars().count() > WIDTH {
                wide.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert_eq!(wide, [""; 0], "comments wider than {WIDTH} columns");
}

/// Where an import comes from: the standard library, another crate, or this one (the modules `below` too).
fn origin(import: &str, below: &[&str]) -> usize {
    match import.split([':', ';']).next().unwrap_or_default() {
        "std" | "core" | "alloc" => 0,
        "crate" | "self" | "super" => 2,
        name if below.contains(&name) => 2,
        _ => 1,
    }
}

#[test]
fn imports_stand_in_groups_std_first_and_our_own_last() {
    let mut wrong = Vec::new();
    for path in all_files() {
        let text = fs::read_to_string(&path).unwrap();
        let below: Vec<_> = text
            .lines()
            .filter_map(|line| line.rsplit_once("mod ")?.1.strip_suffix(';'))
            .collect();
        let is_import = |line: &str| line.starts_with("use ") || line.starts_with("pub");
        let mut lines = text
            .lines()
            .skip_while(|line| !line.starts_with("use "))
            .take_while(|line| is_import(line) || !line.starts_with(|c: char| c.is_ascii_lowercase()));
        let (mut last, mut opens_group) = (0, true);
        let is_wrong = lines.any(|line| {
            let Some(import) = line.strip_prefix("use ") else {
                opens_group |= line.is_empty();
                return false;
            };
            let origin = origin(import, &below);
            let fits = if std::mem::take(&mut opens_group) {
                origin >= last
            } else {
                origin == last
            };
            last = origin;
            !fits
        });
        if is_wrong {
            wrong.push(path.display().to_string());
        }
    }
    assert_eq!(
        wrong, [""; 0],
        "imports: std, other crates, our own, with an empty line between"
    );
}

/// The path of a module in its crate.
type Module = Vec<String>;

/// What a file imports and defines.
#[derive(Default)]
struct Source {
    /// Names that the file defines.
    defined: BTreeSet<String>,
    /// Names that it imports or re-exports, with their paths as written.
    imported: BTreeMap<String, Vec<String>>,
    /// Paths that make it depend on others; re-exports alone do not.
    used: Vec<Vec<String>>,
}

impl Source {
    fn import(&mut self, tree: &syn::UseTree, path: &[String], is_public: bool) {
        let mut add = |name: &syn::Ident, last: &syn::Ident| {
            let path = [path, &[last.to_string()]].concat();
            if !is_public {
                self.used.push(path.clone());
            }
            self.imported.insert(name.to_string(), path);
        };
        match tree {
            syn::UseTree::Path(part) => {
                self.import(&part.tree, &[path, &[part.ident.to_string()]].concat(), is_public);
            }
            syn::UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| self.import(tree, path, is_public));
            }
            syn::UseTree::Name(name) => add(&name.ident, &name.ident),
            syn::UseTree::Rename(rename) => add(&rename.rename, &rename.ident),
            syn::UseTree::Glob(_) => self.used.push(path.to_vec()),
        }
    }
}

/// Tells whether something is compiled for tests alone: `#[cfg(test)]`, `#[cfg(all(test, ..))]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut tests = false;
        let read = attribute.path().is_ident("cfg")
            && attribute
                .parse_nested_meta(|meta| {
                    tests |= meta.path.is_ident("test");
                    if meta.path.is_ident("all") {
                        meta.parse_nested_meta(|part| {
                            tests |= part.path.is_ident("test");
                            Ok(())
                        })?;
                    }
                    Ok(())
                })
                .is_ok();
        read && tests
    })
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (name, attributes) = match item {
            syn::Item::Const(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Enum(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
            syn::Item::Macro(item) => (item.ident.as_ref(), &item.attrs),
            syn::Item::Mod(item) => (None, &item.attrs),
            syn::Item::Static(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Struct(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Trait(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Type(item) => (Some(&item.ident), &item.attrs),
            syn::Item::Impl(item) => (None, &item.attrs),
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            self.defined.extend(name.map(ToString::to_string));
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.import(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.used.push(
                path.segments
                    .iter()
                    .map(|segment| segment.ident.to_string())
                    .collect(),
            );
        }
        visit::visit_path(self, path);
    }
}

/// The files of a crate, by their modules.
struct Crate(BTreeMap<Module, Source>);

impl Crate {
    fn read(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for path in rust_files(folder) {
            let name = path.strip_prefix(folder).unwrap().with_extension("");
            let mut module: Module = name
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if module.iter().any(|part| part.ends_with("tests")) {
                continue;
            }
            if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                module.pop();
            }
            let mut source = Source::default();
            source.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
            files.insert(module, source);
        }
        Self(files)
    }

    /// Finds the file in which a path of `from` is defined, through re-exports; none where it is of another
    /// crate.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            name if self
                .0
                .contains_key(&[from.as_slice(), &[name.to_owned()]].concat()) =>
            {
                rest = path;
                from.clone()
            }
            name => {
                let imported = self.0.get(from)?.imported.get(name)?;
                let path = [imported, rest].concat();
                return (depth < 8).then(|| self.resolve(from, &path, depth + 1))?;
            }
        };
        while let Some((name, behind)) = rest.split_first() {
            if name == "super" {
                module.pop();
            } else {
                let inner = [module.as_slice(), std::slice::from_ref(name)].concat();
                if !self.0.contains_key(&inner) {
                    break;
                }
                module = inner;
            }
            rest = behind;
        }
        match rest.first() {
            Some(name) if !self.0.get(&module)?.defined.contains(name) => {
                let again = self.0.get(&module)?.imported.contains_key(name) && depth < 8;
                again
                    .then(|| self.resolve(&module, rest, depth + 1))?
                    .or(Some(module))
            }
            _ => Some(module),
        }
    }

    /// Lists what each file depends on.
    fn dependencies(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of_file = |(module, source): (&_, &Source)| -> BTreeSet<Module> {
            let found = source
                .used
                .iter()
                .filter_map(|path| self.resolve(module, path, 0));
            found.filter(|found| found != module).collect()
        };
        self.0
            .iter()
            .map(|(module, source)| (module, of_file((module, source))))
            .collect()
    }

    /// Lists the files from which a chain of imports leads back to themselves.
    fn in_circles(&self) -> Vec<String> {
        let dependencies = self.dependencies();
        let leads_back = |start: &Module| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
            while let Some(module) = open.pop() {
                for next in &dependencies[module] {
                    if next == start {
                        return true;
                    }
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            false
        };
        let circular = dependencies.keys().filter(|module| leads_back(module));
        circular.map(|module| module.join("::")).collect()
    }
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let mut imports = 0;
    for folder in CRATES {
        let files = Crate::read(&Path::new(ROOT).join(folder));
        imports += files.dependencies().values().map(BTreeSet::len).sum::<usize>();
        let allowed = CIRCLES.iter().filter(|(of, _)| *of == folder);
        let allowed: Vec<_> = allowed.flat_map(|(_, files)| *files).collect();
        let found = files.in_circles();
        let found: Vec<_> = found
            .iter()
            .filter(|file| !allowed.contains(&&file.as_str()))
            .collect();
        assert!(
            found.is_empty(),
            "{folder}: these files import each other in a circle: {found:?}"
        );
    }
    assert!(imports > 500, "{imports} imports were found");
}
