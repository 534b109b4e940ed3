//! Notices: short texts that one member publishes and every other gets once.
//!
//! The cluster does not know what they say. It hands each to the node as it comes, on its own
//! thread and before it answers anybody, so that whoever acts on notices needs no queue that
//! may overflow. What can no longer be handed over is not passed over in silence either:
//! [`Hear::missed`] says that there was something.

use bytes::Bytes;

use super::machine::NodeId;

/// The longest body of a notice, in bytes.
pub const NOTICE_MAX: usize = 64 * 1024;

/// The name of a notice: who published it, in which of its starts, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId {
    /// Who published it.
    pub node: NodeId,
    /// The generation with which that process started.
    pub epoch: u64,
    /// Counts its notices since then, from 1.
    pub seq: u64,
}

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its name.
    pub id: NoticeId,
    /// What it says, at most [`NOTICE_MAX`] bytes.
    pub body: Bytes,
}

/// Why a notice was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its body is longer than [`NOTICE_MAX`].
    #[error("a notice has at most {NOTICE_MAX} bytes")]
    TooLong,
    /// This node is no member any more, or its cluster's thread has died.
    #[error("this node has left the cluster")]
    Gone,
}

/// Whoever is told of notices. Called on the cluster's thread, which answers nobody
/// meanwhile: what takes longer than some milliseconds makes this node look ill to others.
pub trait Hear: Send + Sync {
    /// A notice of another member has come. Each comes once, in any order. A node's own are
    /// not told to it.
    fn notice(&self, notice: &Notice);

    /// There were notices that nobody has any more: whatever they may have been about is to
    /// be taken for touched by them.
    fn missed(&self);

    /// Whether this node has heard what the others have, as far as it can tell. Told when it
    /// changes, and first of all that it is not: a node that has just started, stood still,
    /// was alone or was taken for dead is not current until it has compared notes with
    /// another, or found that there is nobody. All notices of that comparison come before.
    fn is_current(&self, is_current: bool);
}

/// For whoever does not care.
impl Hear for () {
    fn notice(&self, _: &Notice) {}
    fn missed(&self) {}
    fn is_current(&self, _: bool) {}
}
