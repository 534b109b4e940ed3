//! What goes round by gossip beside the members: records, notices, and calls.
//!
//! ```text
//! record  kind 1 · …, see `meta`
//! notice  kind 2 · format 1 · node 8 · epoch 6 · number 8 · body
//! call    kind 3 · format 1 · node 8 · epoch 6 · number 8
//! ```
//!
//! A notice that is long, or one of very many, is not passed on itself: a call says that
//! there is one, and whoever lacks it asks for it by comparing notes. foca sends first what
//! was sent least, so a burst of notices would keep records waiting: what of notices is under
//! way at once is bounded by its bytes.
//!
//! Invariants:
//! - whatever is passed on was news to this node, and is sealed as all that it sends;
//! - a kind that is unknown was added by a later version, and is left alone.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{Buf, BufMut, Bytes};
use foca::{BroadcastHandler, Invalidates};

use super::{
    codec::Malformed,
    identity::Id,
    meta::{self, Record, Subject},
    notices::{Notices, Origin},
    records,
};
use crate::cluster::{Notice, NoticeId};

const NOTICE: u8 = 2;
const CALL: u8 = 3;
const FORMAT: u8 = 1;
/// The longest notice that is passed on itself. It leaves room for members in a packet.
const GOSSIPED_MAX: usize = 700;
/// Notices that are under way at once, and their bytes: what a node sends in two seconds or
/// three, with each of them a dozen times.
const PASSED_ON_MAX: usize = 256;
const PASSED_ON_BYTES_MAX: usize = 8 * 1024;
/// Calls are short, and there is one a publisher.
const CALLS_BYTES_MAX: usize = 12 * 1024;

/// What of notices and calls foca has to send.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    items: AtomicUsize,
    bytes: AtomicUsize,
}

/// One of them, for as long as foca has it.
#[derive(Debug)]
pub(super) struct Passing {
    backlog: Arc<Backlog>,
    bytes: usize,
}

impl Backlog {
    /// How many there are.
    pub(super) fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// Whether a notice of `bytes` may be passed on itself.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        bytes <= GOSSIPED_MAX && self.items() < PASSED_ON_MAX && self.is_below(PASSED_ON_BYTES_MAX)
    }

    fn is_below(&self, max: usize) -> bool {
        self.bytes.load(Ordering::Relaxed) < max
    }

    fn pass(self: &Arc<Self>, bytes: usize) -> Passing {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Passing { backlog: Arc::clone(self), bytes }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.backlog.items.fetch_sub(1, Ordering::Relaxed);
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A notice as it is passed on.
pub(super) fn encode_notice(notice: &Notice) -> Vec<u8> {
    let mut bytes = head(NOTICE, notice.id);
    bytes.extend_from_slice(&notice.body);
    bytes
}

/// The word that there is a notice.
pub(super) fn encode_call(id: NoticeId) -> Vec<u8> {
    head(CALL, id)
}

fn head(kind: u8, id: NoticeId) -> Vec<u8> {
    let mut to = Vec::with_capacity(64);
    to.put_u8(kind);
    to.put_u8(FORMAT);
    Origin::of(id).encode(&mut to);
    to.put_u64(id.seq);
    to
}

/// Reads the head of a notice or a call, after its kind.
fn decode_head(from: &mut &[u8]) -> Result<NoticeId, Malformed> {
    if from.try_get_u8()? < FORMAT {
        return Err(Malformed);
    }
    let Origin { node, epoch } = Origin::decode(from)?;
    Ok(NoticeId { node, epoch, seq: from.try_get_u64()? })
}

/// The tables as the machine and foca share them. foca owns its handler and never gives it
/// back; only the machine's thread ever takes the locks.
#[derive(Clone, Debug)]
pub(super) struct Handler {
    pub(super) records: records::Shared,
    notices: Arc<Mutex<Notices>>,
}

impl Handler {
    pub(super) fn new(records: records::Shared, notices: Notices) -> Self {
        Self { records, notices: Arc::new(Mutex::new(notices)) }
    }

    pub(super) fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive_record(&self, bytes: &[u8], is_own: bool) -> Result<Option<Topic>, Malformed> {
        if is_own {
            // Our own word, or one that we were told when notes were compared.
            return Ok(Some(Topic::Record(Record::decode(bytes)?.subject)));
        }
        let mut records = self.records.lock();
        let news = records.hear(bytes)?;
        Ok(news.filter(|_| !records.is_flooded).map(Topic::Record))
    }

    fn receive_notice(&self, bytes: &[u8], is_own: bool) -> Result<Option<Topic>, Malformed> {
        let rest = &mut bytes.get(1..).unwrap_or_default();
        let id = decode_head(rest)?;
        let mut notices = self.notices();
        if !is_own {
            let notice = Notice { id, body: Bytes::copy_from_slice(rest) };
            if !notices.hear(notice, 0) {
                return Ok(None);
            }
            if !notices.backlog.has_room(bytes.len()) {
                notices.call_out(id);
                return Ok(None);
            }
        }
        Ok(Some(Topic::Notice(notices.backlog.pass(bytes.len()))))
    }

    fn receive_call(&self, bytes: &[u8], from: Option<&Id>) -> Result<Option<Topic>, Malformed> {
        let id = decode_head(&mut bytes.get(1..).unwrap_or_default())?;
        let mut notices = self.notices();
        let is_passed = from.is_none_or(|from| notices.hear_call(id, from.addr));
        if !is_passed || !notices.backlog.is_below(CALLS_BYTES_MAX) {
            return Ok(None);
        }
        let passing = notices.backlog.pass(bytes.len());
        Ok(Some(Topic::Call(Origin::of(id), passing)))
    }
}

/// What of the broadcasts under way a newer one replaces.
pub(super) enum Topic {
    Record(Subject),
    #[expect(dead_code, reason = "it counts for as long as foca has it")]
    Notice(Passing),
    #[expect(dead_code, reason = "it counts for as long as foca has it")]
    Call(Origin, Passing),
}

impl Invalidates for Topic {
    fn invalidates(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Record(subject), Self::Record(other)) => subject == other,
            (Self::Call(origin, _), Self::Call(other, _)) => origin == other,
            _ => false,
        }
    }
}

impl BroadcastHandler<Id> for Handler {
    type Key = Topic;
    type Error = Malformed;

    fn receive_item(
        &mut self,
        bytes: &[u8],
        from: Option<&Id>,
    ) -> Result<Option<Topic>, Malformed> {
        match bytes.first() {
            Some(&meta::KIND) => self.receive_record(bytes, from.is_none()),
            Some(&NOTICE) => self.receive_notice(bytes, from.is_none()),
            Some(&CALL) => self.receive_call(bytes, from),
            Some(_) => Ok(None),
            None => Err(Malformed),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::{super::Tuning, *};
    use crate::cluster::NodeId;

    fn handler() -> Handler {
        let addr = ([10, 0, 0, 1], 1).into();
        let own = Subject { node: NodeId(1), addr };
        let origin = Origin { node: NodeId(1), epoch: 1 };
        let notices = Notices::new(origin, &Tuning::default(), Duration::ZERO);
        Handler::new(records::Shared::new(own), notices)
    }

    fn from() -> Id {
        Id::new(([10, 0, 0, 2], 1).into(), 1, NodeId(2))
    }

    /// Has a node receive anything.
    pub(in crate::cluster::machine) fn receive(bytes: &[u8]) {
        let _ = handler().receive_item(bytes, Some(&from()));
    }

    fn id(seq: u64) -> NoticeId {
        NoticeId { node: NodeId(9), epoch: 5, seq }
    }

    #[test]
    fn a_notice_is_passed_on_once_and_so_is_a_call() {
        let mut handler = handler();
        let notice = Notice { id: id(1), body: Bytes::from_static(b"text") };
        let bytes = encode_notice(&notice);
        let mut receive = |bytes: &[u8]| handler.receive_item(bytes, Some(&from()));
        assert!(matches!(receive(&bytes), Ok(Some(Topic::Notice(_)))));
        assert!(matches!(receive(&bytes), Ok(None)));
        for cut in 1..24 {
            assert!(receive(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(matches!(receive(&encode_call(id(7))), Ok(Some(Topic::Call(..)))));
        assert!(matches!(receive(&encode_call(id(6))), Ok(None)));
        assert!(matches!(receive(&[77, 1, 2]), Ok(None)), "a later version's");
        assert!(receive(&[]).is_err());
    }

    #[test]
    fn what_is_under_way_is_bounded_and_what_is_not_passed_on_is_called_out() {
        let mut handler = handler();
        let mut passed = Vec::new();
        for seq in 1..=1_000 {
            let notice = Notice { id: id(seq), body: Bytes::from(vec![0; 100]) };
            let received = handler.receive_item(&encode_notice(&notice), Some(&from()));
            passed.extend(received.expect("well formed"));
        }
        let items = handler.notices().backlog.items();
        assert_eq!(items, passed.len());
        assert!((40..100).contains(&items), "{items} of 1,000");
        assert_eq!(handler.notices().take_unpassed(), [id(1_000)]);
        assert_eq!(handler.notices().take_news().len(), 1_000);
        // There is room again when foca has sent them.
        passed.clear();
        assert!(handler.notices().backlog.has_room(100));
        assert_eq!(handler.notices().backlog.items(), 0);
    }
}
