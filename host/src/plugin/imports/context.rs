//! `types.context`: what a guest may know about the call it serves.

use std::sync::Arc;

use tokio::time::Instant;
use wasmtime::{Result, component::Resource};

use crate::{
    group::{Chain, Fill, Reason},
    plugin::{bindings::types, store::State},
};

/// The call in progress, lent to the guest as a resource.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct CallContext {
    group: Arc<str>,
    deadline: Instant,
    attempt: u32,
    reason: Reason,
    validator: Option<Box<str>>,
    /// The keys being filled by this call.
    keys: Vec<Arc<[u8]>>,
    /// The fills around this call, which its own gets must not come back to.
    chain: Chain,
}

impl CallContext {
    /// The context of a call that serves `fill` and ends by `deadline`.
    pub(crate) fn of_one(fill: &Fill, deadline: Instant) -> Self {
        Self {
            group: Arc::clone(&fill.group),
            deadline,
            attempt: fill.attempt,
            reason: fill.reason,
            validator: fill.validator.clone(),
            keys: vec![Arc::clone(&fill.key)],
            chain: fill.chain.clone(),
        }
    }

    /// The context of a call that serves all of `fills`: urgent if one of them is. It
    /// has no validator, which would be that of one key.
    pub(crate) fn of_many(fills: &[Fill], deadline: Instant) -> Option<Self> {
        let first = fills.first()?;
        let most_urgent = |reason: &Reason| match reason {
            Reason::Miss => 0,
            Reason::Refresh => 1,
            Reason::Warm => 2,
        };
        Some(Self {
            group: Arc::clone(&first.group),
            deadline,
            attempt: fills.iter().map(|fill| fill.attempt).max().unwrap_or(1),
            reason: fills.iter().map(|fill| fill.reason).min_by_key(most_urgent)?,
            validator: None,
            keys: fills.iter().map(|fill| Arc::clone(&fill.key)).collect(),
            chain: fills
                .iter()
                .map(|fill| &fill.chain)
                .max_by_key(|chain| chain.depth())?
                .beside(fills.iter().map(|fill| &fill.key)),
        })
    }

    /// When the call ends.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The chain for a get of `key` in `group` from within this call; `None` if it
    /// would wait for itself or stand too deep.
    pub(super) fn nested(&self, group: &str, key: &[u8]) -> Option<Chain> {
        // A group puts the fill itself into its chain; others that load may not.
        let own = self.keys.iter().any(|filled| *self.group == *group && **filled == *key);
        let allowed =
            !own && !self.chain.contains(group, key) && self.chain.depth() < Chain::DEPTH_MAX;
        allowed.then(|| self.chain.clone())
    }
}

impl types::Host for State {}

impl types::HostContext for State {
    fn group(&mut self, context: Resource<CallContext>) -> Result<String> {
        Ok(self.table.get(&context)?.group.to_string())
    }

    fn remaining(&mut self, context: Resource<CallContext>) -> Result<u64> {
        let deadline = self.table.get(&context)?.deadline;
        let remaining = deadline.saturating_duration_since(Instant::now());
        Ok(u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX))
    }

    fn attempt(&mut self, context: Resource<CallContext>) -> Result<u32> {
        Ok(self.table.get(&context)?.attempt)
    }

    fn reason(&mut self, context: Resource<CallContext>) -> Result<types::FillReason> {
        Ok(match self.table.get(&context)?.reason {
            Reason::Miss => types::FillReason::Miss,
            Reason::Refresh => types::FillReason::Refresh,
            Reason::Warm => types::FillReason::Warm,
        })
    }

    fn validator(&mut self, context: Resource<CallContext>) -> Result<Option<String>> {
        Ok(self.table.get(&context)?.validator.as_deref().map(str::to_owned))
    }

    fn traceparent(&mut self, _context: Resource<CallContext>) -> Result<Option<String>> {
        // The node does not trace requests.
        Ok(None)
    }

    fn drop(&mut self, context: Resource<CallContext>) -> Result<()> {
        // A guest only borrows it; the call deletes it.
        debug_assert!(!context.owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(key: &str, chain: Chain) -> Fill {
        Fill {
            group: "g".into(),
            key: Arc::from(key.as_bytes()),
            deadline: Instant::now(),
            attempt: 1,
            reason: Reason::Refresh,
            validator: None,
            chain,
        }
    }

    fn chain(keys: &[(&str, &str)]) -> Chain {
        keys.iter().fold(Chain::default(), |chain, (group, key)| {
            chain.with((*group).into(), Arc::from(key.as_bytes()))
        })
    }

    #[test]
    fn a_get_of_a_key_being_filled_is_a_cycle() {
        let fills =
            [fill("a", chain(&[("outer", "o"), ("g", "a")])), fill("b", chain(&[("g", "b")]))];
        let context = CallContext::of_many(&fills, Instant::now()).expect("fills");
        for (group, key) in [("g", "a"), ("g", "b"), ("outer", "o")] {
            assert!(context.nested(group, key.as_bytes()).is_none(), "{group}/{key}");
        }
        let inner = context.nested("g", b"c").expect("allowed");
        assert!(inner.contains("outer", b"o") && inner.contains("g", b"a"));
    }

    #[test]
    fn gets_do_not_nest_for_ever() {
        let deep: Vec<_> = (0..Chain::DEPTH_MAX).map(|depth| depth.to_string()).collect();
        let keys: Vec<_> = deep.iter().map(|key| ("g", key.as_str())).collect();
        let nested = |depth: usize| {
            let fill = fill(&deep[depth - 1], chain(&keys[..depth]));
            CallContext::of_one(&fill, Instant::now()).nested("g", b"next")
        };
        assert!(nested(Chain::DEPTH_MAX - 1).is_some());
        assert!(nested(Chain::DEPTH_MAX).is_none());
    }
}
