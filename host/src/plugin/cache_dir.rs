//! Where compiled components are kept between starts.
//!
//! A compiled component is machine code that runs outside the sandbox: whoever can
//! write to this directory owns the node. It is therefore used only when it belongs
//! to this user and to nobody else; otherwise components are compiled anew at each
//! start, which costs seconds and no safety.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use thiserror::Error;
use tracing::warn;
use wasmtime::{Cache, CacheConfig};

/// Disk that compiled components may take; the least used go first.
const BYTES_MAX: u64 = 512 << 20;

/// Why a directory is not used.
#[derive(Debug, Error)]
enum Unusable {
    #[error("no directory is named and there is no $CACHE_DIRECTORY, $XDG_CACHE_HOME or $HOME")]
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

/// The cache in `configured`, or in the first place the environment names; nothing
/// when there is no safe place.
pub(super) fn open(configured: &Path) -> Option<Cache> {
    let directory = choose(configured, |name| env::var_os(name).map(PathBuf::from));
    match directory.as_deref().ok_or(Unusable::Nowhere).and_then(open_at) {
        Ok(cache) => Some(cache),
        Err(reason) => {
            warn!(
                directory = %directory.unwrap_or_default().display(),
                %reason,
                "Compiled components are not kept; each start compiles them anew. \
                 Set wasm.cache_dir to a directory of this user alone."
            );
            None
        }
    }
}

fn choose(configured: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if !configured.as_os_str().is_empty() {
        return Some(configured.to_owned());
    }
    let named = |name| variable(name).filter(|path| path.is_absolute());
    named("CACHE_DIRECTORY")
        .or_else(|| named("XDG_CACHE_HOME").map(|base| base.join("cachecluster")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/cachecluster")))
}

fn open_at(directory: &Path) -> Result<Cache, Unusable> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let directory = directory.canonicalize()?;
    check(&directory)?;
    let mut config = CacheConfig::new();
    config.with_directory(directory).with_files_total_size_soft_limit(BYTES_MAX);
    Cache::new(config).map_err(Unusable::Cache)
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
        let directory = parent.path().join("a/b");
        open_at(&directory).expect("a cache");
        let mode = fs::metadata(&directory).expect("made").mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in [0o720, 0o702, 0o777] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("chmod");
            let error = open_at(directory.path()).map(drop).expect_err("refused");
            assert!(matches!(error, Unusable::Shared { .. }), "{error}");
        }
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(open_at(file.path()).is_err());
    }

    #[test]
    fn the_service_managers_directory_comes_before_the_users() {
        let environment = |name: &str| Some(PathBuf::from("/env").join(name));
        assert_eq!(choose(Path::new("/set"), environment), Some("/set".into()));
        assert_eq!(choose(Path::new(""), environment), Some("/env/CACHE_DIRECTORY".into()));
        let user = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/u"));
        assert_eq!(choose(Path::new(""), user), Some("/home/u/.cache/cachecluster".into()));
        assert_eq!(choose(Path::new(""), |_| Some("relative".into())), None);
    }
}
