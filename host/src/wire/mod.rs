//! The peer protocols, as bytes: the groupcache family's paths, messages and statuses, and
//! the frames and purges of our own (`link`, `purge`).
//!
//! A peer is asked with `GET {base}{group}/{key}` and answers with a protobuf message
//! (`message`). Group and key travel in the path (`path`), percent-encoded (`percent`), and
//! come out as the bytes that went in. What a status means depends on who speaks: the
//! family has two dialects (`status`).
//!
//! Sources: golang/groupcache `http.go` and `groupcachepb`, mailgun/groupcache v2,
//! groupcache-go v3; and what those programs do on the wire.
//!
//! Invariant: nothing that a peer sends makes any of this panic, or allocate more than a
//! small multiple of what was sent.

pub mod link;
mod message;
mod path;
mod percent;
mod purge;
mod status;

pub use message::{GetResponse, Head, Malformed, RemoveKeys, SetRequest, expire, remaining};
pub use path::{BASE_PATH, NoKey, PeerPath};
pub use percent::{BadPercent, decode};
pub use purge::{NoPurge, Purge, PurgeId, Scope};
pub use status::{Dialect, Meaning, Refusal};
