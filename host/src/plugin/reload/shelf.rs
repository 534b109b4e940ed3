//! The last good version of each plugin, kept on disk: a node that restarts in the
//! middle of a bad rollout comes up with it.
//!
//! What is kept is the portable component, never machine code, beside a small file
//! with its digest and the digests in quarantine. A component is checked against its
//! digest when it is taken from the shelf. Everything is written beside its place and
//! renamed into it, so that a node that is killed leaves the old or the new and
//! nothing in between.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tracing::warn;

use super::quarantine::Quarantine;
use crate::plugin::{
    component::{self, Source},
    private_dir::{self, Places, Unusable},
};

/// Where the directory is when the settings do not say.
const PLACES: Places =
    Places { service: "STATE_DIRECTORY", session: "XDG_STATE_HOME", home: ".local/state" };

/// The small file.
const NOTE: &str = "note.json";
/// Bytes of the small file: a few digests.
const NOTE_MAX: u64 = 64 << 10;

/// Where the last good versions of a node's plugins are.
#[derive(Debug)]
pub(in crate::plugin) struct Shelf(Option<PathBuf>);

/// The place of one plugin. Plugins of one name from different files are apart, since
/// several nodes of one user share the directory.
#[derive(Clone, Debug)]
pub(in crate::plugin) struct Place {
    pub(in crate::plugin) directory: Option<PathBuf>,
    /// Held from reading the note to writing it: a version that has passed is kept on
    /// one thread while another may be taken back on the next.
    turn: Arc<Mutex<()>>,
}

/// What is known about a plugin from before.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    /// The file the component came from, for whoever looks into the directory.
    source: String,
    good: Option<String>,
    quarantined: Vec<String>,
}

/// The directory for what this user's nodes keep over restarts, `configured` or named by the
/// environment; made if it is missing. `None` where there is no safe one.
pub(crate) fn state_directory(configured: &Path) -> Option<PathBuf> {
    private_dir::open(&PLACES.choose(configured)?).ok()
}

impl Shelf {
    /// The shelf in `configured`, or in the first place the environment names. Where
    /// there is no safe place, nothing is kept, and the operator is told.
    pub(in crate::plugin) fn open(configured: &Path) -> Self {
        let directory = PLACES.choose(configured);
        match directory.as_deref().ok_or(Unusable::Nowhere).and_then(private_dir::open) {
            Ok(directory) => Self(Some(directory)),
            Err(reason) => {
                warn!(
                    directory = %directory.unwrap_or_default().display(),
                    %reason,
                    "The last good version of a plugin is not kept: a restart while a plugin's \
                     file is bad would fail. Set wasm.data_dir to a directory of this user alone."
                );
                Self(None)
            }
        }
    }

    /// A shelf on which nothing is kept.
    pub(in crate::plugin) fn nowhere() -> Self {
        Self(None)
    }

    /// The place of the plugin `name` from the file `source`.
    pub(in crate::plugin) fn place(&self, name: &str, source: &Path) -> Place {
        let directory = self.0.as_ref().map(|directory| {
            let source = std::path::absolute(source).unwrap_or_else(|_| source.to_owned());
            let digest = component::digest(source.as_os_str().as_encoded_bytes());
            let mark: String = digest.chars().skip("sha256:".len()).take(12).collect();
            // A name of the configuration may have any character.
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
            let name: String = name.chars().take(64).map(plain).collect();
            directory.join("plugins").join(format!("{name}-{mark}"))
        });
        Place { directory, turn: Arc::default() }
    }
}

impl Place {
    /// A place where nothing is and nothing is kept.
    pub(super) fn nowhere() -> Self {
        Self { directory: None, turn: Arc::default() }
    }

    /// The last good version, if one is kept and whole.
    pub(in crate::plugin) fn good(&self) -> Option<Source> {
        let directory = self.directory.as_ref()?;
        let digest = self.note().good?;
        let source = component::open(&directory.join(file_name(&digest)?)).ok()?;
        (source.digest == digest).then_some(source)
    }

    /// The versions that were taken back.
    pub(in crate::plugin) fn quarantine(&self) -> Quarantine {
        Quarantine::from_digests(self.note().quarantined)
    }

    /// Whether `digest` is the last good version.
    pub(in crate::plugin) fn is_good(&self, digest: &str) -> bool {
        self.note().good.as_deref() == Some(digest)
    }

    /// Keeps `bytes` with this `digest` as the last good version from `source`.
    pub(in crate::plugin) fn keep(&self, source: &Path, digest: &str, bytes: &[u8]) {
        self.write(|directory| {
            let Some(file) = file_name(digest) else { return Ok(()) };
            put(directory, &file, bytes)?;
            let note = Note {
                source: source.display().to_string(),
                good: Some(digest.to_owned()),
                ..self.note()
            };
            put_note(directory, &note)?;
            remove_others(directory, &file)
        });
    }

    /// Keeps what is in quarantine by the time that it is written.
    pub(in crate::plugin) fn keep_quarantine(&self, digests: impl FnOnce() -> Vec<String>) {
        self.write(|directory| {
            let note = Note { quarantined: digests(), ..self.note() };
            put_note(directory, &note)
        });
    }

    fn write(&self, write: impl FnOnce(&Path) -> io::Result<()>) {
        let Some(directory) = self.directory.as_deref() else { return };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = fs::create_dir_all(directory).and_then(|()| write(directory));
        if let Err(error) = written {
            warn!(
                directory = %directory.display(),
                %error,
                "The last good version of a plugin could not be kept."
            );
        }
    }

    /// What is noted. A note that is damaged or absent is as good as none.
    fn note(&self) -> Note {
        let read = || {
            let path = self.directory.as_ref()?.join(NOTE);
            let is_small = fs::metadata(&path).ok()?.len() <= NOTE_MAX;
            let text = is_small.then(|| fs::read(&path).ok()).flatten()?;
            serde_json::from_slice(&text).ok()
        };
        read().unwrap_or_default()
    }
}

fn put_note(directory: &Path, note: &Note) -> io::Result<()> {
    put(directory, NOTE, &serde_json::to_vec_pretty(note)?)
}

/// The file of the component with this digest: its hexadecimal part, if it is one.
fn file_name(digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:")?;
    hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("{hex}.wasm"))
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name))?;
    Ok(())
}

fn remove_others(directory: &Path, kept: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".wasm") && name != kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> String {
        component::digest(bytes)
    }

    #[test]
    fn the_last_version_kept_is_the_one_that_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::open(folder.path());
        let source = Path::new("/plugins/a.wasm");
        for bytes in [b"one", b"two"] {
            shelf.place("a b/..", source).keep(source, &digest(bytes), bytes);
        }
        let place = shelf.place("a b/..", source);
        assert_eq!(place.good().expect("kept").bytes, &b"two"[..]);
        assert!(place.is_good(&digest(b"two")) && !place.is_good(&digest(b"one")));
        assert!(shelf.place("a b/..", Path::new("/other/a.wasm")).good().is_none());
        let place = place.directory.expect("a folder");
        assert_eq!(fs::read_dir(place).expect("a folder").count(), 2, "one version and the note");
    }

    #[test]
    fn a_damaged_version_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::open(folder.path());
        let place = shelf.place("p", Path::new("/p.wasm"));
        place.keep(Path::new("/p.wasm"), &digest(b"good"), b"good");
        let directory = place.directory.clone().expect("a folder");
        let file = directory.join(file_name(&digest(b"good")).expect("a name"));
        fs::write(file, b"goof").expect("written");
        assert!(place.good().is_none());
        fs::write(directory.join(NOTE), b"{").expect("written");
        assert!(place.good().is_none() && place.quarantine().digests().is_empty());
    }

    #[test]
    fn the_quarantine_outlives_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Shelf::open(folder.path()).place("p", Path::new("/p.wasm"));
        let bad = Quarantine::from_digests(vec![digest(b"bad")]);
        place.keep_quarantine(|| bad.digests().to_vec());
        place.keep(Path::new("/p.wasm"), &digest(b"good"), b"good");
        let again = Shelf::open(folder.path()).place("p", Path::new("/p.wasm"));
        assert_eq!(again.quarantine(), bad);
        assert!(again.good().is_some());
    }

    #[test]
    fn a_note_cannot_lead_out_of_the_directory() {
        assert_eq!(file_name("sha256:../../etc/passwd"), None);
        assert_eq!(file_name("sha256:00ff").as_deref(), Some("00ff.wasm"));
    }
}
