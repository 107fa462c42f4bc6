//! Which variables of the environment say where a hub and its cache are, read as `huggingface_hub` reads
//! them, so that what one tool fetched the other finds.
//!
//! Source: `huggingface_hub` 0.36, `constants.py` and `utils/_auth.py`; Python's `os.path.expanduser` and
//! `expandvars`. A variable that is empty counts as not set, where that library would take the folder that it
//! runs in.

use std::fs;
use std::path::{Path, PathBuf};

/// Looks variables and home folders up.
pub(super) struct Environment<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The home folder of a user, of the current one where the name is empty.
    pub(super) home: &'a dyn Fn(&str) -> Option<String>,
}

impl Environment<'_> {
    fn set(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn is_true(&self, names: &[&str]) -> bool {
        let value = names.iter().find_map(|name| self.set(name));
        let is_true = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        value.is_some_and(is_true)
    }

    /// Finds a file or folder in the one for whatever is about the hub.
    fn in_home(&self, name: &str) -> Option<PathBuf> {
        let home = match self.set("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => match self.set("XDG_CACHE_HOME") {
                Some(caches) => Path::new(&caches).join("huggingface"),
                None => Path::new(&(self.home)("")?).join(".cache/huggingface"),
            },
        };
        // Variables are replaced in the home, and once more in what is in it.
        let home = self.expanded(home.to_str()?);
        Some(self.expanded(home.join(name).to_str()?))
    }

    /// Finds the folder of what was fetched.
    pub(super) fn cache(&self) -> Option<PathBuf> {
        let names = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
        match names.iter().find_map(|name| self.set(name)) {
            Some(named) => Some(self.expanded(&named)),
            None => self.in_home("hub"),
        }
    }

    /// Reads the token that a user has for the hub.
    pub(super) fn token(&self) -> Option<String> {
        if self.is_true(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) {
            return None;
        }
        let clean = |token: String| {
            let token = token.replace(['\r', '\n'], "").trim().to_owned();
            Some(token).filter(|token| !token.is_empty())
        };
        let names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
        let token = names.iter().find_map(|name| self.set(name)).and_then(clean);
        token.or_else(|| {
            let path = match self.set("HF_TOKEN_PATH") {
                Some(path) => self.expanded(&path),
                None => self.in_home("token")?,
            };
            clean(fs::read_to_string(path).ok()?)
        })
    }

    /// Returns the address of the hub, where it is not the usual one.
    pub(super) fn endpoint(&self) -> Option<String> {
        self.set("HF_ENDPOINT")
    }

    /// Says whether only what was fetched may be used.
    pub(super) fn is_offline(&self) -> bool {
        self.is_true(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
    }

    fn expanded(&self, path: &str) -> PathBuf {
        PathBuf::from(self.with_variables(&self.with_home(path)))
    }

    /// Replaces `~` and `~USER` at the beginning; what is not known stays.
    fn with_home(&self, path: &str) -> String {
        let Some(rest) = path.strip_prefix('~') else {
            return path.to_owned();
        };
        let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match (self.home)(user) {
            Some(home) => match format!("{}{rest}", home.trim_end_matches('/')) {
                path if path.is_empty() => "/".to_owned(),
                path => path,
            },
            None => path.to_owned(),
        }
    }

    /// Replaces `$NAME` and `${NAME}`, but not in what is put there; what is not known stays.
    fn with_variables(&self, path: &str) -> String {
        let (mut done, mut rest) = (String::new(), path);
        while let Some((before, behind)) = rest.split_once('$') {
            done.push_str(before);
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let length = behind.find(|c| !is_name(c)).unwrap_or(behind.len());
            let braced = behind.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let (name, after) = braced.unwrap_or_else(|| behind.split_at(length));
            let written = behind.strip_suffix(after).unwrap_or_default();
            match (self.variable)(name).filter(|_| !written.is_empty()) {
                Some(value) => done.push_str(&value),
                None => {
                    done.push('$');
                    done.push_str(written);
                }
            }
            rest = after;
        }
        done + rest
    }
}

/// Finds the home folder of a user, of the current one where the name is empty.
pub(super) fn home(user: &str) -> Option<String> {
    if user.is_empty() {
        return Some(std::env::home_dir()?.to_str()?.to_owned());
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = users.find(|fields| fields.first() == Some(&user))?;
    found.get(5).map(|home| (*home).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    /// Asks with some variables set, and `/home/me` as the home folder.
    fn ask<T>(variables: Variables, question: impl Fn(&Environment) -> T) -> T {
        question(&Environment {
            variable: &|name| {
                let found = variables.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| (*value).to_owned())
            },
            home: &|user| match user {
                "" => Some("/home/me".to_owned()),
                "ada" => Some("/home/ada/".to_owned()),
                _ => None,
            },
        })
    }

    /// Right is what `huggingface_hub` 0.36.2 has as `constants.HF_HUB_CACHE` with these variables.
    #[test]
    fn the_cache_is_where_huggingface_hub_keeps_it() {
        let cases: [(Variables, &str); 18] = [
            (&[], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "~/c")], "/home/me/c/huggingface/hub"),
            (&[("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/home/me/h/hub"),
            (&[("HF_HOME", "~")], "/home/me/hub"),
            (&[("HF_HOME", "~ada/h")], "/home/ada/h/hub"),
            (&[("HF_HOME", "~nobody-here/h")], "~nobody-here/h/hub"),
            (&[("HF_HOME", "$S/h"), ("S", "/scratch")], "/scratch/h/hub"),
            (
                &[("HF_HOME", "${S}h/$T$"), ("S", "/s"), ("T", "$S")],
                "/sh//s$/hub",
            ),
            (&[("HF_HOME", "/a/$UNSET/${UNSET}/b")], "/a/$UNSET/${UNSET}/b/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (&[("HUGGINGFACE_HUB_CACHE", "~/$U"), ("U", "u")], "/home/me/u"),
            (
                &[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/new",
            ),
            (&[("HF_HUB_CACHE", "~/new")], "/home/me/new"),
            (&[("HF_HUB_CACHE", "/a/$U/b"), ("U", "u")], "/a/u/b"),
            (
                &[("HF_HUB_CACHE", ""), ("HF_HOME", "")],
                "/home/me/.cache/huggingface/hub",
            ),
        ];
        for (variables, expected) in cases {
            let found = ask(variables, |environment| environment.cache());
            assert_eq!(found, Some(PathBuf::from(expected)), "{variables:?}");
        }
    }

    #[test]
    fn a_token_is_found_where_huggingface_hub_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let [home, other] = ["token", "other"].map(|name| folder.path().join(name));
        fs::write(&home, "of home\r\n").unwrap();
        fs::write(&other, " other \n").unwrap();
        let (folder, other) = (folder.path().to_str().unwrap(), other.to_str().unwrap());
        let in_home = ("HF_HOME", folder);
        let cases: [(Variables, Option<&str>); 8] = [
            (&[in_home], Some("of home")),
            (&[in_home, ("HF_TOKEN", " \n")], Some("of home")),
            // The cache elsewhere moves no token.
            (&[in_home, ("HF_HUB_CACHE", "/elsewhere")], Some("of home")),
            (&[in_home, ("HF_TOKEN_PATH", other)], Some("other")),
            (&[in_home, ("HUGGING_FACE_HUB_TOKEN", "old")], Some("old")),
            (
                &[in_home, ("HUGGING_FACE_HUB_TOKEN", "old"), ("HF_TOKEN", "new\n")],
                Some("new"),
            ),
            (&[in_home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
            (&[("HF_HOME", "/nowhere")], None),
        ];
        for (variables, expected) in cases {
            let found = ask(variables, |environment| environment.token());
            assert_eq!(found.as_deref(), expected, "{variables:?}");
        }
    }

    #[test]
    fn downloads_are_switched_off_by_either_name() {
        let cases: [(Variables, bool); 6] = [
            (&[], false),
            (&[("HF_HUB_OFFLINE", "1")], true),
            (&[("HF_HUB_OFFLINE", "yes")], true),
            (&[("TRANSFORMERS_OFFLINE", "True")], true),
            (&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")], false),
            (&[("HF_HUB_OFFLINE", "2")], false),
        ];
        for (variables, expected) in cases {
            assert_eq!(
                ask(variables, |environment| environment.is_offline()),
                expected,
                "{variables:?}"
            );
        }
    }
}
