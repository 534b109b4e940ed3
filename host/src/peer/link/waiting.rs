//! Who waits for what on a link, and the answers as they are put together.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use crate::{
    group::FillError,
    value::Value,
    wire::link::{Failure, Frame, Terms, Why},
};

/// What came of a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// A value, and what holds of it.
    Found(Value, Terms),
    NotFound,
    Failed(FillError),
    Unanswered(Why),
    /// Memory does not hold it.
    NotHeld,
    /// Whether what was offered is kept.
    Taken(bool),
    /// Something that is no answer: why.
    Wrong(&'static str),
}

/// Who waits for what on a link.
#[derive(Debug)]
pub(super) struct Waiting {
    /// `None` once the link is over.
    by_id: Mutex<Option<HashMap<u32, Place>>>,
    next: AtomicU32,
    reply_max: usize,
}

/// One question that waits for its answer.
#[derive(Debug)]
pub(super) struct Place {
    check: u64,
    answer: oneshot::Sender<Answer>,
    /// Told of every sign of life.
    signs: Arc<Notify>,
    /// The value whose chunks arrive.
    found: Option<(Terms, Vec<u8>)>,
}

impl Waiting {
    pub(super) fn new(reply_max: usize) -> Self {
        let by_id = Mutex::new(Some(HashMap::new()));
        Self { by_id, next: AtomicU32::new(0), reply_max }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u32, Place>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Lets go of all who wait.
    pub(super) fn close(&self) {
        let left = self.lock().take();
        drop(left);
    }

    /// Takes in somebody who waits; gives the number of the question.
    pub(super) fn enter(&self, place: Place) -> Option<u32> {
        let id = self.next.fetch_add(1, Relaxed);
        self.lock().as_mut()?.insert(id, place);
        Some(id)
    }

    /// Lets go of a question; says whether it was still waited for.
    pub(super) fn leave(&self, id: u32) -> bool {
        let forgotten = self.lock().as_mut().and_then(|it| it.remove(&id));
        forgotten.is_some()
    }

    /// Something was said about the question `id`, which perhaps nobody asks any more.
    pub(super) fn hear(&self, id: u32, frame: Frame) {
        let mut by_id = self.lock();
        let Some(by_id) = by_id.as_mut() else { return };
        let Some(place) = by_id.get_mut(&id) else { return };
        place.signs.notify_one();
        if let Some(answer) = place.hear(frame, self.reply_max)
            && let Some(place) = by_id.remove(&id)
        {
            // Whoever asked may just be leaving.
            let _ = place.answer.send(answer);
        }
    }
}

impl Place {
    pub(super) fn new(check: u64, answer: oneshot::Sender<Answer>, signs: Arc<Notify>) -> Self {
        Self { check, answer, signs, found: None }
    }

    /// What `frame` makes of the answer, if it is whole with it.
    fn hear(&mut self, frame: Frame, reply_max: usize) -> Option<Answer> {
        let wrong = |text| Some(Answer::Wrong(text));
        match frame {
            Frame::Working => None,
            Frame::Found { check, .. } | Frame::NotFound { check } if check != self.check => {
                wrong("it answered another question")
            }
            Frame::Found { terms, .. } => {
                if usize::try_from(terms.length).is_ok_and(|length| length <= reply_max) {
                    self.found = Some((terms, Vec::new()));
                    self.whole()
                } else {
                    wrong("its value is larger than [peers] reply_max")
                }
            }
            Frame::Chunk(bytes) => {
                let Some((terms, body)) = &mut self.found else {
                    return wrong("a value without a beginning");
                };
                let length = (body.len() + bytes.len()) as u64;
                if length > terms.length {
                    return wrong("more of a value than it said");
                }
                if body.is_empty() && length == terms.length {
                    // All of it at once, as most are.
                    let (terms, _nothing) = self.found.take()?;
                    return Some(found(&bytes, terms));
                }
                body.extend_from_slice(&bytes);
                self.whole()
            }
            Frame::NotFound { .. } => Some(Answer::NotFound),
            Frame::Failed { failure, retry_after, text } => {
                Some(Answer::Failed(error(failure, retry_after, text)))
            }
            Frame::Unanswered(why) => Some(Answer::Unanswered(why)),
            Frame::NotHeld => Some(Answer::NotHeld),
            Frame::Taken(is_kept) => Some(Answer::Taken(is_kept)),
            Frame::Get(_) | Frame::Peek(_) | Frame::Offer(_) | Frame::Cancel => {
                wrong("it asks where it should answer")
            }
        }
    }

    fn whole(&mut self) -> Option<Answer> {
        let is_whole = |(terms, body): &mut (Terms, Vec<u8>)| body.len() as u64 == terms.length;
        let (terms, body) = self.found.take_if(is_whole)?;
        Some(found(&body, terms))
    }
}

fn found(body: &[u8], mut terms: Terms) -> Answer {
    let value = match terms.head.take() {
        Some(head) => Value::with_head(body, head),
        None => Value::new(body),
    };
    Answer::Found(value, terms)
}

fn error(failure: Failure, retry_after: Duration, text: String) -> FillError {
    match failure {
        Failure::InvalidKey => FillError::InvalidKey(text),
        Failure::Denied => FillError::Denied(text),
        Failure::Unavailable => FillError::Unavailable {
            message: text,
            retry_after: (!retry_after.is_zero()).then_some(retry_after),
        },
        Failure::TimedOut => FillError::TimedOut(text),
        Failure::Internal => FillError::Internal(text),
    }
}
