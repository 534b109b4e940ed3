use http::HeaderValue;
use proptest::prelude::*;

use super::{super::fields::LABELS_MAX, *};

fn head() -> Head {
    Head {
        content_type: Some(HeaderValue::from_static("text/plain")),
        validator: Some("v1".into()),
        tags: vec!["a".into(), "".into()],
        metadata: vec![("name".into(), "value".into())],
    }
}

fn question(key: &'static [u8]) -> Question {
    Question {
        group: "words".into(),
        key: Bytes::from_static(key),
        patience: Duration::from_millis(1_500),
        code: 0xfeed,
        news: Bytes::from_static(b"purged"),
    }
}

fn terms() -> Terms {
    Terms {
        ttl: Some(Duration::from_mins(1)),
        grace: Duration::from_secs(3),
        age: Duration::from_millis(7),
        length: 5,
        is_given: true,
        head: Some(Arc::new(head())),
    }
}

fn frames() -> Vec<Frame> {
    let key = Bytes::from_static(b"\xff//key");
    let news = Bytes::from(vec![7; NEWS_MAX]);
    vec![
        Frame::Get(question(b"\xff//key")),
        Frame::Get(Question { code: 0, news: Bytes::new(), ..question(b"") }),
        Frame::Peek(Question { news: news.clone(), ..question(b"k") }),
        Frame::Offer(Offer { group: "words".into(), key, code: 9, news, terms: terms() }),
        Frame::Cancel,
        Frame::Working,
        Frame::Found { check: 7, terms: Terms { length: u64::MAX, ..Terms::default() } },
        Frame::Found { check: check("words", b"k", 1), terms: terms() },
        Frame::Found { check: 1, terms: Terms { head: Some(Arc::default()), ..Terms::default() } },
        Frame::Chunk(Bytes::from_static(b"hello")),
        Frame::NotFound { check: 9 },
        Frame::Failed {
            failure: Failure::Unavailable,
            retry_after: Duration::from_secs(1),
            text: "down".to_owned(),
        },
        Frame::Unanswered(Why::NoRoom),
        Frame::Unanswered(Why::OtherCode),
        Frame::NotHeld,
        Frame::Taken(true),
        Frame::Taken(false),
    ]
}

#[test]
fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
    let mut stream = Vec::new();
    for (id, frame) in (0..).zip(frames()) {
        assert!(frame.write(id, &mut stream));
    }
    for step in [1, 3, 7, stream.len()] {
        let (mut decoder, mut read) = (Decoder::default(), Vec::new());
        for part in stream.chunks(step) {
            decoder.extend(part);
            while let Some(frame) = decoder.take().expect("a frame") {
                read.push(frame);
            }
        }
        assert_eq!(read, (0..).zip(frames()).collect::<Vec<_>>());
    }
}

#[test]
fn a_frame_that_is_too_large_is_not_written() {
    let mut out = b"before".to_vec();
    let key = Bytes::from(vec![0; FRAME_MAX]);
    assert!(!Frame::Get(Question { key, ..question(b"") }).write(1, &mut out));
    let news = Bytes::from(vec![0; NEWS_MAX + 1]);
    assert!(!Frame::Peek(Question { news, ..question(b"") }).write(1, &mut out));
    let labels = vec!["t".into(); LABELS_MAX + 1];
    let head = Some(Arc::new(Head { tags: labels, ..Head::default() }));
    let terms = Terms { head, ..Terms::default() };
    assert!(!Frame::Found { check: 0, terms }.write(1, &mut out));
    assert_eq!(out, b"before");
}

#[test]
fn a_digest_tells_questions_apart() {
    assert_ne!(check("ab", b"c", 0), check("a", b"bc", 0));
    assert_ne!(check("", b"k", 0), check("k", b"", 0));
    assert_ne!(check("g", b"k", 1), check("g", b"k", 2));
}

proptest! {
    #[test]
    fn no_stream_panics_or_grows(bytes in prop::collection::vec(any::<u8>(), 0..4_096)) {
        let mut decoder = Decoder::default();
        decoder.extend(&bytes);
        while let Ok(Some(_)) = decoder.take() {}
    }

    #[test]
    fn damaged_frames_are_refused_or_read(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut stream = Vec::new();
        prop_assert!(which.get(&frames()).write(3, &mut stream));
        let at = at.index(stream.len());
        stream[at] = to;
        let mut decoder = Decoder::default();
        decoder.extend(&stream);
        while let Ok(Some(_)) = decoder.take() {}
    }
}
