//! Hears that a file may have changed: one watcher of directories for all plugins.
//!
//! The directories are watched and not the files, because a file is replaced by
//! renaming another over it, and because Kubernetes swaps a symbolic link to a folder:
//! whatever a path leads through is watched. What is heard is a hint and no more; some
//! file systems say nothing, so whoever listens looks now and then by itself as well.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;
use tracing::warn;

/// Symbolic links followed from one path; the system follows 40.
const LINKS_MAX: usize = 40;

/// Rung when something may have changed. Several rings before anyone listens are one.
pub(super) type Bell = Arc<Notify>;

/// The watched directories of one node.
pub(in crate::plugin) struct Lookout {
    bells: Arc<Mutex<Bells>>,
    watcher: Mutex<Option<RecommendedWatcher>>,
}

/// Who wants to hear of which directory.
type Bells = HashMap<PathBuf, Vec<Weak<Notify>>>;

/// Directories watched for one listener; dropped, they are let go.
pub(super) struct Watching {
    lookout: Arc<Lookout>,
    bell: Bell,
    directories: BTreeSet<PathBuf>,
}

impl Lookout {
    pub(in crate::plugin) fn new() -> Arc<Self> {
        let bells = Arc::<Mutex<Bells>>::default();
        let heard = Arc::clone(&bells);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            ring(&lock(&heard), event.ok().as_ref());
        });
        let watcher = watcher.inspect_err(|error| {
            warn!(
                %error,
                "The system does not tell of changed files (fs.inotify.max_user_instances may be \
                 used up); the files of plugins are looked at every few seconds instead."
            );
        });
        Arc::new(Self { bells, watcher: Mutex::new(watcher.ok()) })
    }

    /// Rings `bell` when something changes on the way to `path`.
    pub(super) fn watch(self: &Arc<Self>, path: &Path, bell: &Bell) -> Watching {
        let mut watching = Watching {
            lookout: Arc::clone(self),
            bell: Arc::clone(bell),
            directories: BTreeSet::new(),
        };
        watching.follow(path);
        watching
    }

    /// Has the system tell of `directory`. Asked anew for what is watched already, it
    /// follows a directory that was replaced by another of the same name. One that is
    /// not there yet, or one too many for the system, is looked at now and then.
    fn renew(&self, directory: &Path) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.as_mut() {
            watcher.watch(directory, RecursiveMode::NonRecursive).ok();
        }
    }

    fn add(&self, directory: &Path, bell: &Bell) {
        lock(&self.bells).entry(directory.to_owned()).or_default().push(Arc::downgrade(bell));
    }

    fn remove(&self, directory: &Path, bell: &Bell) {
        let mut bells = lock(&self.bells);
        let Some(listeners) = bells.get_mut(directory) else { return };
        listeners.retain(|listener| !Weak::ptr_eq(listener, &Arc::downgrade(bell)));
        if !listeners.is_empty() {
            return;
        }
        bells.remove(directory);
        drop(bells);
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.as_mut() {
            // It may have been removed, and the watch with it.
            watcher.unwatch(directory).ok();
        }
    }
}

impl Watching {
    /// Watches the way to `path` as it is now: links may lead elsewhere than before.
    pub(super) fn follow(&mut self, path: &Path) {
        let wanted = directories(path);
        for directory in self.directories.difference(&wanted) {
            self.lookout.remove(directory, &self.bell);
        }
        for directory in wanted.difference(&self.directories) {
            self.lookout.add(directory, &self.bell);
        }
        for directory in &wanted {
            self.lookout.renew(directory);
        }
        self.directories = wanted;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for directory in &self.directories {
            self.lookout.remove(directory, &self.bell);
        }
    }
}

/// Tells whoever listens to the directories of `event`; everybody, when it is not known
/// what was missed.
fn ring(bells: &Bells, event: Option<&Event>) {
    let Some(event) = event.filter(|event| !event.need_rescan()) else {
        bells.values().flatten().filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
        return;
    };
    // Our own reading is an event too.
    let is_reading = matches!(event.kind, EventKind::Access(kind)
        if kind != AccessKind::Close(AccessMode::Write));
    if is_reading {
        return;
    }
    for path in &event.paths {
        let places = [path.parent(), Some(path.as_path())];
        let listeners = places.into_iter().flatten().filter_map(|place| bells.get(place));
        listeners.flatten().filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
    }
}

fn lock(bells: &Mutex<Bells>) -> MutexGuard<'_, Bells> {
    bells.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directories in which something can change where `path` leads: its own, and that
/// of each symbolic link on the way.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut way = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..LINKS_MAX {
        let Some((link, target, rest)) = first_link(&way) else { break };
        let directory = parent(&link);
        way = plain(&directory.join(target).join(rest));
        found.insert(directory);
    }
    found.insert(parent(&way));
    found
}

/// The first symbolic link on `way`, where it leads, and what of the way follows it.
fn first_link(way: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let mut walked = PathBuf::new();
    let mut components = way.components();
    while let Some(component) = components.next() {
        walked.push(component);
        if let Ok(target) = fs::read_link(&walked) {
            return Some((walked, target, components.as_path().to_owned()));
        }
    }
    None
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// `path` without `.` and `..`; no component of what is in front of them is a link.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            other => plain.push::<&OsStr>(other.as_os_str()),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use super::*;

    #[test]
    fn every_directory_on_the_way_through_links_is_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a folder");
        fs::create_dir_all(root.join("mount/..2026_11")).expect("made");
        fs::create_dir(root.join("plugins")).expect("made");
        fs::write(root.join("mount/..2026_11/a.wasm"), "").expect("written");
        symlink("..2026_11", root.join("mount/..data")).expect("a link");
        symlink("..data/a.wasm", root.join("mount/a.wasm")).expect("a link");
        symlink("../mount/a.wasm", root.join("plugins/a.wasm")).expect("a link");
        let found = directories(&root.join("plugins/a.wasm"));
        let expected = ["plugins", "mount", "mount/..2026_11"].map(|name| root.join(name));
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("b", folder.path().join("a")).expect("a link");
        symlink("a", folder.path().join("b")).expect("a link");
        assert!(!directories(&folder.path().join("a")).is_empty());
    }

    #[tokio::test]
    async fn a_write_and_a_rename_ring_the_bell() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.wasm");
        fs::write(&path, "one").expect("written");
        let lookout = Lookout::new();
        let bell = Bell::default();
        let _watching = lookout.watch(&path, &bell);
        let patience = Duration::from_secs(20);

        fs::write(&path, "two").expect("written");
        tokio::time::timeout(patience, bell.notified()).await.expect("a write is heard");
        let other = folder.path().join("new");
        fs::write(&other, "three").expect("written");
        fs::rename(&other, &path).expect("renamed");
        tokio::time::timeout(patience, bell.notified()).await.expect("a rename is heard");
    }

    #[test]
    fn a_read_is_no_event() {
        let bell = Bell::default();
        let mut bells = Bells::new();
        bells.insert("/plugins".into(), vec![Arc::downgrade(&bell)]);
        let event = |kind| Event::new(kind).add_path("/plugins/a.wasm".into());
        let rung = || {
            let mut waiting = std::pin::pin!(bell.notified());
            waiting.as_mut().enable()
        };
        ring(&bells, Some(&event(EventKind::Access(AccessKind::Read))));
        ring(&bells, Some(&event(EventKind::Access(AccessKind::Close(AccessMode::Read)))));
        assert!(!rung());
        ring(&bells, Some(&event(EventKind::Access(AccessKind::Close(AccessMode::Write)))));
        assert!(rung());
        ring(&bells, None);
        assert!(rung(), "what was missed may be anything");
    }

    #[test]
    fn who_stops_watching_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let lookout = Lookout::new();
        let (one, other) = (Bell::default(), Bell::default());
        let path = folder.path().join("a.wasm");
        let first = lookout.watch(&path, &one);
        let second = lookout.watch(&path, &other);
        drop(first);
        assert_eq!(lock(&lookout.bells).values().flatten().count(), 1);
        drop(second);
        assert!(lock(&lookout.bells).is_empty());
    }
}
