//! A project to begin with: a getter that works, with tests, and a node to serve it.
//!
//! It is the example of its language under another name, so that what an author starts
//! from is what our own tests build. A project is whole: it has the interfaces, for Rust
//! the SDK too, and needs nothing of this repository.

mod files;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use self::files::File;
use super::manifest::Lang;

/// Name of the plugin in the examples, which use the word for nothing else.
const EXAMPLE: &str = "items";

/// The longest name: it becomes that of a file, a package, a group.
const NAME_MAX: usize = 64;

/// What other tools take for something else.
const RESERVED: [&str; 10] = [
    "app",
    "bindings",
    "cachecluster-plugin",
    "core",
    "getter",
    "main",
    "sdk",
    "std",
    "test",
    "wit",
];

/// Why there is no new project.
#[derive(Debug, Error)]
pub enum NewError {
    /// The name cannot be that of a package in every language.
    #[error(
        "`{0}` can be no plugin's name here: names are 1 to {NAME_MAX} lower-case letters, digits \
         and `-`, begin with a letter and end with none of `-`"
    )]
    Name(String),
    /// The name means something else to the tools of a language.
    #[error("the name `{0}` has a meaning of its own to the tools; choose another")]
    Reserved(String),
    /// There is something in the folder.
    #[error("{} is not empty; name another folder with --dir", .0.display())]
    NotEmpty(PathBuf),
    /// Something cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Writes a project for the plugin `name` in `lang` into `folder`, which is made if it is
/// not there.
///
/// # Errors
/// A name that does not fit, or a folder that has something in it: nothing is written.
pub fn new(name: &str, lang: Lang, folder: &Path) -> Result<(), NewError> {
    check(name)?;
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |error| NewError::Unwritable { path, error }
    };
    fs::create_dir_all(folder).map_err(unwritable(folder))?;
    if fs::read_dir(folder).map_err(unwritable(folder))?.next().is_some() {
        return Err(NewError::NotEmpty(folder.to_owned()));
    }
    for (path, text) in contents(lang) {
        let path = folder.join(path);
        write(&path, &named(text, path.starts_with(folder.join("sdk")), name))
            .map_err(unwritable(&path))?;
    }
    Ok(())
}

/// `text` with the plugin's name in the place of the example's.
fn named(text: &str, is_sdk: bool, name: &str) -> String {
    if is_sdk { text.to_owned() } else { text.replace(EXAMPLE, name) }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Never in the place of a file that somebody put there meanwhile.
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn contents(lang: Lang) -> Vec<File> {
    let (own, shared): (&[File], &[File]) = match lang {
        Lang::Rust => (&files::RUST, &files::SDK),
        Lang::C => (&files::C, &files::INTERFACES),
        Lang::Js => (&files::JS, &files::INTERFACES),
        Lang::Python => (&files::PYTHON, &files::INTERFACES),
        Lang::Go => (&files::GO, &files::INTERFACES),
    };
    own.iter().chain(shared).copied().collect()
}

fn check(name: &str) -> Result<(), NewError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(is_plain);
    if !fits {
        return Err(NewError::Name(name.to_owned()));
    }
    if RESERVED.contains(&name) {
        return Err(NewError::Reserved(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::{config::Config, workbench::project::Project};

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder")
    }

    #[test]
    fn a_project_has_its_name_everywhere() {
        for lang in Lang::ALL {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path().join("geo-ip");
            new("geo-ip", lang, &folder).expect("a project");
            let project = Project::open(&folder).expect("a project");
            assert_eq!((project.name().as_str(), project.warnings.len()), ("geo-ip", 0));
            assert_eq!(project.component, folder.join("geo-ip.wasm"));
            assert_eq!(project.manifest.expect("a manifest").plugin.lang, Some(lang));
            let settings = Config::load(&folder.join("cachecluster.toml"), std::iter::empty());
            let config = settings.expect("settings").config;
            assert_eq!(config.groups["geo-ip"].plugin, "geo-ip");
            for (path, _) in files_in(&folder) {
                let text = fs::read_to_string(folder.join(&path)).expect("text");
                let is_ours = !path.starts_with("sdk") && !path.starts_with("wit");
                assert!(!is_ours || !text.contains("items"), "{}: {text}", path.display());
            }
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("mine"), "mine").expect("written");
        let error = new("items", Lang::C, folder.path()).expect_err("refused");
        assert!(error.to_string().contains("not empty"), "{error}");
        assert_eq!(files_in(folder.path()).len(), 1);
    }

    #[test]
    fn names_fit_every_language() {
        for name in ["", "Items", "1st", "a_b", "a-", "-a", "ä", "a/b", "..", &"a".repeat(65)] {
            assert!(matches!(check(name), Err(NewError::Name(_))), "{name}");
        }
        assert!(matches!(check("std"), Err(NewError::Reserved(_))));
        for name in ["items", "geo-ip", "a1", &"a".repeat(64)] {
            check(name).expect(name);
        }
    }

    /// The tables of files are written by hand: nothing of an example is forgotten.
    #[test]
    fn a_project_has_every_file_of_its_example() {
        for lang in Lang::ALL {
            let example = repository().join("examples/plugins").join(lang.name());
            let listed: BTreeSet<_> = contents(lang).iter().map(|(path, _)| *path).collect();
            for (path, is_built) in files_in(&example) {
                let path = path.to_str().expect("text");
                assert!(is_built || listed.contains(path), "{} lacks {path}", lang.name());
            }
        }
        let sdk = repository().join("plugin-sdk/src");
        let listed: BTreeSet<_> = files::SDK.iter().map(|(path, _)| *path).collect();
        for (path, _) in files_in(&sdk) {
            let path = format!("sdk/src/{}", path.display());
            assert!(listed.contains(path.as_str()), "{path} is not in the project");
        }
    }

    #[test]
    fn the_sdk_of_a_project_is_built_as_our_own() {
        let workspace = fs::read_to_string(repository().join("Cargo.toml")).expect("a manifest");
        let wanted = ["wasip2 = ", "wit-bindgen = ", "rust-version = ", "edition = ", "license = "];
        for line in workspace.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key)))
        {
            assert!(include_str!("sdk.toml").contains(line), "{line}");
        }
    }

    /// Every file under `folder`, and whether a build made it.
    fn files_in(folder: &Path) -> Vec<(PathBuf, bool)> {
        let built = ["bindings", "node_modules", "target", "__pycache__", ".venv"];
        let built_files = ["items.wasm", "Cargo.lock", "package-lock.json"];
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
                if path.is_dir() {
                    if !built.contains(&name) {
                        folders.push(path);
                    }
                } else {
                    let is_built = built_files.contains(&name) || name == "Cargo.toml";
                    found.push((path.strip_prefix(folder).expect("within").to_owned(), is_built));
                }
            }
        }
        found
    }
}
