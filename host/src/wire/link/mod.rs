//! The protocol between nodes of this program: one connection for all questions of a pair.
//!
//! A link begins with a handshake by which both ends show that they have the cluster's key
//! (`secret`), and goes on as a stream of sealed records, in which frames follow one another
//! (`frame`). Each question has a number, and what is said about it comes in any order and
//! interleaved with what is said about others, so that a slow answer or a large one holds up
//! nobody. A question that takes time is acknowledged, which tells a busy node from a dead one.
//!
//! A question brings along what the other end must have heard before it answers, so that no
//! answer is older than a purge that the asking node knows of; and a digest of the code that
//! is to answer it, so that nodes with two versions of a plugin do not mix their values.
//! Beside questions that may end in a fill there are those to memory alone (`Peek`), and
//! values that are handed over unasked (`Offer`).
//!
//! Unlike groupcache's protocol it says that there is no such key, why a getter failed, for
//! how long, and what describes a value.
//!
//! Invariants:
//! - nothing is answered to somebody without the key, and nothing they send is looked at
//!   beyond the handshake;
//! - a frame has a bound, and whoever breaks a rule of the stream ends the link.

mod fields;
mod frame;
mod incoming;
mod secret;

pub use frame::{
    Broken, Decoder, FRAME_MAX, Failure, Frame, NEWS_MAX, Offer, Question, TEXT_MAX, Terms, Why,
    check,
};
pub use incoming::Incoming;
pub use secret::{Closed, Handshake, PREFACE, RECORD_MAX, Records, Secret};

/// What a chunk of a body has at most: small enough that others have their turn soon.
pub const CHUNK_MAX: usize = 32 << 10;
