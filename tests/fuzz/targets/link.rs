//! What comes over a link between nodes of this program: handshakes, records, frames.
//!
//! The first byte of an input says how it comes: as frames, as frames in records that the
//! other end sealed, as records that somebody has tampered with, or as the first message of
//! somebody who may not have the key.

use std::sync::{Arc, OnceLock};

use crate::{
    feed::Feed,
    wire::link::{
        Broken, Decoder, FRAME_MAX, Frame, Handshake, Incoming, NEWS_MAX, Offer, PREFACE, Question,
        Records, Secret, Terms,
    },
};

/// Runs one input; whether there was a frame in it.
///
/// # Panics
/// A frame does not come back as it was written, or depends on how it was cut into reads; a
/// record is believed that was not sent; or something grows.
pub fn run(data: &[u8]) -> bool {
    let mut feed = Feed(data);
    match feed.byte() % 8 {
        0 => forged(&mut feed),
        1 => handshake(&mut feed),
        2 => sealed(&mut feed),
        _ => {
            let step = 1 + usize::from(feed.byte());
            let body = feed.0;
            let (frames, end) = decode(body, body.len().max(1));
            assert_eq!(decode(body, step), (frames.clone(), end), "in reads of {step} bytes");
            for (id, frame) in &frames {
                check(*id, frame, body.len());
            }
            !frames.is_empty()
        }
    }
}

/// The frames of a stream, and why there are no more.
fn decode(stream: &[u8], step: usize) -> (Vec<(u32, Frame)>, Option<Broken>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for read in stream.chunks(step) {
        decoder.extend(read);
        loop {
            match decoder.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(broken) => return (frames, Some(broken)),
            }
        }
    }
    (frames, None)
}

/// A frame that was read can be written, and is the same.
fn check(id: u32, frame: &Frame, length: usize) {
    let mut written = Vec::new();
    // A text that was no text may have grown beyond what there may be of it.
    if frame.write(id, &mut written) {
        assert!(written.len() <= 4 + FRAME_MAX);
        let (again, end) = decode(&written, written.len());
        assert_eq!(end, None);
        match (&again[..], frame) {
            ([(_, Frame::Failed { text, .. })], Frame::Failed { text: whole, .. }) => {
                assert!(whole.starts_with(&**text));
            }
            _ => assert_eq!(again, [(id, frame.clone())]),
        }
    }
    match frame {
        Frame::Get(Question { group, key, news, .. })
        | Frame::Peek(Question { group, key, news, .. }) => {
            assert!(group.len() + key.len() + news.len() <= length && news.len() <= NEWS_MAX);
        }
        Frame::Offer(Offer { group, key, news, terms, .. }) => {
            assert!(group.len() + key.len() + news.len() <= length && news.len() <= NEWS_MAX);
            check_terms(terms, length);
        }
        Frame::Found { terms, .. } => check_terms(terms, length),
        Frame::Chunk(bytes) => assert!(bytes.len() <= length),
        // Each byte that is no text becomes a mark of three.
        Frame::Failed { text, .. } => assert!(text.len() <= 3 * length),
        _ => {}
    }
}

fn check_terms(terms: &Terms, length: usize) {
    let Some(head) = &terms.head else { return };
    let tags = head.tags.iter().map(|tag| tag.len() + 2).sum::<usize>();
    let pairs = head.metadata.iter().map(|(name, value)| name.len() + value.len() + 4);
    assert!(tags + pairs.sum::<usize>() <= length);
}

/// Frames in the records of a link: they are those that were sent.
fn sealed(feed: &mut Feed<'_>) -> bool {
    let (ours, theirs) = link();
    let (parts, step) = (1 + usize::from(feed.byte()), 1 + usize::from(feed.short()));
    let stream = feed.0;
    let (mut wire, mut room, mut count) = (Vec::new(), Vec::new(), 0);
    for part in stream.chunks(parts) {
        let records = theirs.seal(part, &mut count, &mut room).expect("few enough records");
        wire.extend_from_slice(records);
    }
    let mut incoming = Incoming::new(Arc::clone(ours));
    let mut frames = Vec::new();
    let mut end = None;
    'reads: for read in wire.chunks(step) {
        incoming.room().extend_from_slice(read);
        incoming.open().expect("records that the other end sent");
        assert!(incoming.room().len() <= 2 + usize::from(u16::MAX));
        loop {
            match incoming.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(broken) => {
                    end = Some(broken);
                    break 'reads;
                }
            }
        }
    }
    assert_eq!((frames.clone(), end), decode(stream, stream.len().max(1)));
    !frames.is_empty()
}

/// Records that the other end has not sent, behind one that it has.
fn forged(feed: &mut Feed<'_>) -> bool {
    let (ours, theirs) = link();
    let (mut room, mut count) = (Vec::new(), 0);
    let mut wire = theirs.seal(feed.text(), &mut count, &mut room).expect("one record").to_vec();
    let honest = wire.len();
    let at = usize::from(feed.short());
    let change = feed.byte();
    wire.extend_from_slice(feed.0);
    let is_changed = change != 0 && at < honest;
    if is_changed {
        wire[at] ^= change;
    }
    let mut incoming = Incoming::new(Arc::clone(ours));
    incoming.room().extend_from_slice(&wire);
    let opened = incoming.open();
    // With a changed length it may still be waiting for the rest; it has read nothing of it.
    if is_changed && opened.is_ok() {
        assert!(at < 2 && incoming.room().len() == wire.len());
    }
    if is_changed || opened.is_err() {
        return false;
    }
    assert!(incoming.room().len() + honest == wire.len(), "a forged record was opened");
    true
}

/// The first message of somebody: whoever has not the key is refused.
fn handshake(feed: &mut Feed<'_>) -> bool {
    let preface: [u8; PREFACE.len()] = feed.array();
    let message: [u8; Handshake::MESSAGE] = feed.array();
    assert!(Handshake::accepted(secret(), &message).is_err(), "believed without the key");
    preface == PREFACE
}

fn secret() -> &'static Secret {
    static SECRET: OnceLock<Secret> = OnceLock::new();
    SECRET.get_or_init(|| Secret::new("fuzz", b"key"))
}

/// The two ends of a link. Records are counted by whoever has them, so that one link does for
/// all inputs.
fn link() -> &'static (Arc<Records>, Arc<Records>) {
    static LINK: OnceLock<(Arc<Records>, Arc<Records>)> = OnceLock::new();
    LINK.get_or_init(|| {
        let mut dialled = Handshake::dialled(secret(), 0).expect("an end");
        let message = dialled.write().expect("a message");
        let mut accepted = Handshake::accepted(secret(), &message).expect("the key");
        dialled.read(&accepted.write().expect("a message")).expect("the key");
        let [ours, theirs] = [accepted, dialled].map(|end| end.finish().expect("shaken"));
        (Arc::new(ours), Arc::new(theirs))
    })
}
