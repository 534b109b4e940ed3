//! Waits for a project's sources to change.
//!
//! A change is over when nothing has happened for a moment: editors write a file in
//! several steps. What builds make is no source.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Quiet for so long, a change is over.
const QUIET: Duration = Duration::from_millis(200);

/// Folders in which tools keep what they make or fetch.
const FOLDERS: [&str; 5] = ["bindings", "node_modules", "target", "__pycache__", "zig-out"];

/// Files that tools write beside the sources.
const FILES: [&str; 4] = ["Cargo.lock", "go.sum", "package-lock.json", "SHA256SUMS"];

/// Changes heard and not yet asked for; one more is the same as one.
const HEARD_MAX: usize = 1;

/// Watches the sources of one project.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    heard: Receiver<()>,
    folder: PathBuf,
}

impl Watch {
    /// Begins to watch the project in `folder`.
    ///
    /// # Errors
    /// The system tells of no changes.
    pub fn begin(folder: &Path) -> notify::Result<Self> {
        let folder = folder.canonicalize()?;
        let (tell, heard) = sync_channel(HEARD_MAX);
        let own = folder.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(&event, &own)) {
                // Full means that a change is waiting to be asked for.
                tell.try_send(()).ok();
            }
        })?;
        let mut watch = Self { watcher, heard, folder };
        watch.follow()?;
        Ok(watch)
    }

    /// Waits until a source has changed since the last time, and is quiet again. False
    /// when there is nothing left to wait for.
    pub fn wait(&mut self) -> bool {
        if self.heard.recv().is_err() {
            return false;
        }
        loop {
            match self.heard.recv_timeout(QUIET) {
                Ok(()) => {}
                // A folder may be new.
                Err(RecvTimeoutError::Timeout) => return self.follow().is_ok(),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Watches the project's folder and all in it that has sources.
    fn follow(&mut self) -> notify::Result<()> {
        self.watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
        let entries = fs::read_dir(&self.folder)?;
        let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
        for folder in folders.filter(|path| path.is_dir() && is_source(path, &self.folder)) {
            self.watcher.watch(&folder, RecursiveMode::Recursive)?;
        }
        Ok(())
    }
}

fn is_change(event: &Event, folder: &Path) -> bool {
    let changes = matches!(
        event.kind,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
    );
    changes && event.paths.iter().any(|path| is_source(path, folder))
}

fn is_source(path: &Path, folder: &Path) -> bool {
    let path = path.strip_prefix(folder).unwrap_or(path);
    let made = path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        FOLDERS.contains(&name.as_ref()) || name.starts_with('.') || name.ends_with('~')
    });
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let is_made = FILES.contains(&name.as_ref()) || path.extension().is_some_and(|it| it == "wasm");
    !made && !is_made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_makes_is_no_source() {
        let folder = Path::new("/a/target/items");
        let is_source = |path: &str| is_source(&folder.join(path), folder);
        for path in ["src/lib.rs", "app.py", "wit/world.wit", "plugin.toml", "Cargo.toml"] {
            assert!(is_source(path), "{path}");
        }
        for path in
            ["target/x", "bindings/a.c", "items.wasm", ".tmpX", "src/.a.swp", "a.rs~", "Cargo.lock"]
        {
            assert!(!is_source(path), "{path}");
        }
    }

    #[test]
    fn a_change_of_a_source_is_heard_and_one_of_a_component_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("src")).expect("a folder");
        let mut watch = Watch::begin(folder.path()).expect("watched");
        fs::write(folder.path().join("items.wasm"), "built").expect("written");
        fs::write(folder.path().join("src/a.c"), "changed").expect("written");
        assert!(watch.wait());
        // Both were written before the wait was over.
        assert!(watch.heard.try_recv().is_err());
    }
}
