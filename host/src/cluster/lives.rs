//! What a node writes down of itself: its name, and the last generation that it has had.
//!
//! A restarted node is the same member by its name, and a newer one by its generation. The
//! file is two lines, replaced as a whole:
//!
//! ```text
//! node 1f2e3d4c5b6a7988
//! generation 1764081231337
//! ```
//!
//! Without a file the node is a new one each time, and whoever owned its keys before owns
//! others now.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::machine::{Id, NodeId};

/// Where a node's lives are written down, and where it is in them.
#[derive(Clone, Debug)]
pub(super) struct Lives {
    path: Option<PathBuf>,
    node: NodeId,
    last: Option<u64>,
}

impl Lives {
    /// Those of the file at `path`, or of a new node.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is none of ours; or the system has no
    /// randomness to give.
    pub(super) fn load(path: Option<PathBuf>) -> io::Result<Self> {
        let text = match path.as_deref().map(fs::read_to_string) {
            None => None,
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Some(text) => Some(text?),
        };
        let Some(text) = text else {
            return Ok(Self { path, node: NodeId(random()?.max(1)), last: None });
        };
        let (node, last) = parse(&text).ok_or_else(|| {
            let problem = "is not a node's identity; remove it, and this is a new node";
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        Ok(Self { path, node, last: Some(last) })
    }

    /// The node's name.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Begins another life, which is written down before anybody hears of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn begin(&mut self) -> io::Result<u64> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or_default();
        let generation = Id::generation_at(wall, self.last);
        self.note(generation)?;
        Ok(generation)
    }

    /// Writes down that the node has this generation now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn note(&mut self, generation: u64) -> io::Result<()> {
        self.last = Some(generation);
        match &self.path {
            Some(path) => write(path, self.node, generation),
            None => Ok(()),
        }
    }
}

/// A number that nobody can guess, or has had before.
pub(super) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system has no randomness to give"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn parse(text: &str) -> Option<(NodeId, u64)> {
    let mut lines = text.lines();
    let node = u64::from_str_radix(lines.next()?.strip_prefix("node ")?.trim(), 16).ok()?;
    let generation = lines.next()?.strip_prefix("generation ")?.trim().parse().ok()?;
    (node != 0).then_some((NodeId(node), generation))
}

fn write(path: &Path, node: NodeId, generation: u64) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "node {node}\ngeneration {generation}")?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_node_has_its_name_and_a_higher_generation() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().join("data/node"));
        let mut first = Lives::load(path.clone()).unwrap();
        let generation = first.begin().unwrap();
        // It was renewed, far beyond the clock.
        first.note(generation + 1_000_000_000).unwrap();
        let mut second = Lives::load(path).unwrap();
        assert_eq!(second.node(), first.node());
        assert_eq!(second.begin().unwrap(), generation + 1_000_000_001);
    }

    #[test]
    fn a_node_without_a_file_is_a_new_one_each_time() {
        let (one, two) = (Lives::load(None).unwrap(), Lives::load(None).unwrap());
        assert_ne!(one.node(), two.node());
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node");
        for text in ["", "node 0\ngeneration 1\n", "node 12\n", "{}"] {
            fs::write(&path, text).unwrap();
            assert!(Lives::load(Some(path.clone())).is_err(), "{text:?}");
        }
    }
}
