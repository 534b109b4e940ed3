//! A call without a node behind it.

use crate::{Context, Deadline, Reason};
use std::time::Duration;

/// How long a call has unless a test says otherwise.
pub(super) const REMAINING: Duration = Duration::from_secs(30);

/// Begins a [`Context`]: a first try of a miss in the group `test`, with half
/// a minute left.
pub fn context() -> ContextBuilder {
    ContextBuilder {
        call: Call {
            group: "test".into(),
            deadline: Deadline::after(REMAINING),
            attempt: 1,
            reason: Reason::Miss,
            validator: None,
            traceparent: None,
        },
    }
}

/// A [`Context`] in the making.
#[derive(Debug)]
#[must_use]
pub struct ContextBuilder {
    call: Call,
}

impl ContextBuilder {
    /// Names the group.
    pub fn group(mut self, group: &str) -> Self {
        self.call.group = group.into();
        self
    }

    /// Leaves this much time, counted from now: it runs out like the host's.
    pub fn remaining(mut self, remaining: Duration) -> Self {
        self.call.deadline = Deadline::after(remaining);
        self
    }

    /// Counts the tries, this one included.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.call.attempt = attempt;
        self
    }

    /// Says why the host asks.
    pub fn reason(mut self, reason: Reason) -> Self {
        self.call.reason = reason;
        self
    }

    /// Makes this the refresh of an entry with `validator`.
    pub fn validator(mut self, validator: &str) -> Self {
        self.call.validator = Some(validator.into());
        self
    }

    /// Traces the call.
    pub fn traceparent(mut self, traceparent: &str) -> Self {
        self.call.traceparent = Some(traceparent.into());
        self
    }

    /// The context.
    #[must_use]
    pub fn build(self) -> Context {
        Context { call: self.call }
    }
}

/// What stands behind a [`Context`] natively.
#[derive(Debug)]
pub(crate) struct Call {
    group: String,
    deadline: Deadline,
    attempt: u32,
    reason: Reason,
    validator: Option<String>,
    traceparent: Option<String>,
}

impl Call {
    pub(crate) fn group(&self) -> String {
        self.group.clone()
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn validator(&self) -> Option<String> {
        self.validator.clone()
    }

    pub(crate) fn traceparent(&self) -> Option<String> {
        self.traceparent.clone()
    }
}
