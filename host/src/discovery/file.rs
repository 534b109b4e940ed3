//! A file with a member in each line, read again as soon as it changes.
//!
//! The folder is watched and not the file, which may be replaced by renaming another over it.
//! Where the system does not tell, the file is read at every look all the same.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tracing::warn;

use super::{Failed, Found, Source, names::Known};
use crate::config::cluster::seed;

/// Bytes of the file.
const SIZE_MAX: usize = 1 << 20;

/// Whoever writes a file does so in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Members by name or address, a line each; what follows a `#` is a comment.
pub struct SeedsFile {
    path: PathBuf,
    known: Known,
    bell: Arc<Notify>,
    /// `None` where the system does not tell of changes.
    _watcher: Option<RecommendedWatcher>,
}

impl SeedsFile {
    /// The file at `path`, which need not be there yet; an entry without a port has `port`.
    pub fn new(path: PathBuf, port: u16) -> Self {
        let bell = Arc::new(Notify::new());
        let watcher = watch(&path, Arc::clone(&bell)).inspect_err(|error| {
            warn!(
                %error, file = %path.display(),
                "The system does not tell of changes of [cluster] seeds_file; it is read now and then."
            );
        });
        Self { path, known: Known::new(port), bell, _watcher: watcher.ok() }
    }
}

fn watch(path: &Path, bell: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // To read it is no change, or each look would set off the next one.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            bell.notify_one();
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[async_trait]
impl Source for SeedsFile {
    fn kind(&self) -> &'static str {
        "file"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        let path = self.path.clone();
        let read = spawn_blocking(move || read(&path)).await;
        let told = |reason: String| Failed(format!("{}: {reason}", self.path.display()));
        let text = read.map_err(|error| told(error.to_string()))?;
        let text = text.map_err(|error| told(error.to_string()))?;
        let names = entries(&text).map_err(told)?;
        Ok(self.known.look_up(&names).await)
    }

    async fn changed(&mut self) {
        self.bell.notified().await;
        sleep(SETTLE).await;
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SIZE_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > SIZE_MAX {
        return Err(io::Error::other(format!("it has more than {SIZE_MAX} bytes")));
    }
    Ok(text)
}

/// The entries of a file. One that is none spoils it all: half a list is worse than an old one.
fn entries(text: &str) -> Result<Vec<String>, String> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            seed(entry).map_err(|error| format!("line {}: {error}", number + 1))?;
            entries.push(entry.to_owned());
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_member_and_may_have_a_comment() {
        let text = "10.0.0.5\n\n# the others\n cache.internal:9999 # by name\n[fd00::1]:1\r\n";
        let expected = ["10.0.0.5", "cache.internal:9999", "[fd00::1]:1"].map(str::to_owned);
        assert_eq!(entries(text), Ok(expected.into()));
    }

    #[test]
    fn a_line_that_is_none_spoils_the_list_and_is_named() {
        let error = entries("10.0.0.5\nten dot one\n").expect_err("refused");
        assert!(error.starts_with("line 2: "), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_changes_is_noticed_and_one_that_is_gone_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("members");
        let mut file = SeedsFile::new(path.clone(), 9_999);
        assert!(file.look().await.is_err(), "it is not there yet");
        for (text, port) in [("127.0.0.1", 9_999), ("127.0.0.1:7", 7)] {
            let other = folder.path().join("other");
            std::fs::write(&other, text).expect("written");
            std::fs::rename(&other, &path).expect("renamed");
            file.changed().await;
            let found = file.look().await.expect("read");
            assert_eq!(found.places, [([127, 0, 0, 1], port).into()]);
        }
        std::fs::write(&path, vec![b'#'; SIZE_MAX + 1]).expect("written");
        let error = file.look().await.expect_err("too large").to_string();
        assert!(error.contains("members: it has more than"), "{error}");
    }
}
