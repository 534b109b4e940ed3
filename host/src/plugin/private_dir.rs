//! Directories that must be this user's alone: whoever can write to them decides what
//! the node runs.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why a directory is not used.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    #[error("no directory is named, and the environment names none")]
    Nowhere,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a directory")]
    NotADirectory,
    #[error("it belongs to user {owner}, not to this process's user {user}")]
    Foreign { owner: u32, user: u32 },
    #[error("others may write to it (mode {mode:03o}); chmod 700 it")]
    Shared { mode: u32 },
    #[error("{0}")]
    Cache(wasmtime::Error),
}

/// What names a directory when the settings do not.
pub(super) struct Places {
    /// The variable of the service manager: the directory itself.
    pub(super) service: &'static str,
    /// The variable of the user's session: the folder that it is in.
    pub(super) session: &'static str,
    /// The same folder, where only `$HOME` is known.
    pub(super) home: &'static str,
}

impl Places {
    /// `configured`, or the first place that the environment names.
    pub(super) fn choose(&self, configured: &Path) -> Option<PathBuf> {
        self.choose_from(configured, |name| env::var_os(name).map(PathBuf::from))
    }

    pub(super) fn choose_from(
        &self,
        configured: &Path,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Option<PathBuf> {
        if !configured.as_os_str().is_empty() {
            return Some(configured.to_owned());
        }
        let named = |name| variable(name).filter(|path| path.is_absolute());
        named(self.service)
            .or_else(|| named(self.session).map(|base| base.join("cachecluster")))
            .or_else(|| named("HOME").map(|home| home.join(self.home).join("cachecluster")))
    }
}

/// `directory`, made if it is missing, once it is known to be safe.
pub(super) fn open(directory: &Path) -> Result<PathBuf, Unusable> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let directory = directory.canonicalize()?;
    check(&directory)?;
    Ok(directory)
}

fn check(directory: &Path) -> Result<(), Unusable> {
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() {
        return Err(Unusable::NotADirectory);
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(Unusable::Foreign { owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(Unusable::Shared { mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_directory_is_made_for_this_user_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = open(&parent.path().join("a/b")).expect("a directory");
        let mode = fs::metadata(&directory).expect("made").mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in [0o720, 0o702, 0o777] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("chmod");
            let error = open(directory.path()).expect_err("refused");
            assert!(matches!(error, Unusable::Shared { .. }), "{error}");
        }
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(open(file.path()).is_err());
    }

    #[test]
    fn the_service_managers_directory_comes_before_the_users() {
        let places =
            Places { service: "CACHE_DIRECTORY", session: "XDG_CACHE_HOME", home: ".cache" };
        let environment = |name: &str| Some(PathBuf::from("/env").join(name));
        assert_eq!(places.choose_from(Path::new("/set"), environment), Some("/set".into()));
        let found = places.choose_from(Path::new(""), environment);
        assert_eq!(found, Some("/env/CACHE_DIRECTORY".into()));
        let user = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/u"));
        let found = places.choose_from(Path::new(""), user);
        assert_eq!(found, Some("/home/u/.cache/cachecluster".into()));
        assert_eq!(places.choose_from(Path::new(""), |_| Some("relative".into())), None);
    }
}
