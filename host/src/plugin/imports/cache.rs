//! `cache`: reads of the node's other groups.

use std::sync::Arc;

use wasmtime::{Result, component::Resource};

use super::context::CallContext;
use crate::{
    group::{Context, GetError, Group},
    plugin::{
        bindings::contract::cachecluster::plugin::cache::{CacheError, Host},
        fault::guest_text,
        store::State,
    },
    value::Hit,
};

/// A value must leave a guest room to work with it: it may take this share of the
/// guest's memory.
const MEMORY_SHARE: usize = 4;

impl State {
    fn readable(&self, group: &str) -> Result<Arc<Group>, CacheError> {
        if !self.environment.readable.contains(group) {
            self.notes.add(self.environment.egress.denials().cache(group));
            return Err(CacheError::Denied);
        }
        let groups = self.environment.groups.upgrade();
        groups.and_then(|groups| groups.get(group)).ok_or(CacheError::NoSuchGroup)
    }

    fn answer(&self, answer: Result<Hit, GetError>) -> Result<Option<Vec<u8>>, CacheError> {
        match answer {
            Ok(hit) => {
                let body = hit.value.body();
                let room = self.environment.limits.memory.as_usize() / MEMORY_SHARE;
                if body.len() > room { Err(CacheError::TooLarge) } else { Ok(Some(body.to_vec())) }
            }
            Err(GetError::NotFound(_)) => Ok(None),
            Err(GetError::Cycle) => Err(CacheError::Cycle),
            Err(error) => Err(CacheError::Failed(guest_text(&error.to_string()))),
        }
    }
}

type Answer = Result<Option<Vec<u8>>, CacheError>;

impl Host for State {
    fn peek(&mut self, group: String, key: String) -> Result<Answer> {
        let group = match self.readable(&group) {
            Ok(group) => group,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match group.peek(key.as_bytes()) {
            Some(answer) => self.answer(answer),
            None => Ok(None),
        })
    }

    async fn get(
        &mut self,
        context: Resource<CallContext>,
        group: String,
        key: String,
    ) -> Result<Answer> {
        let call = self.table.get(&context)?;
        let Some(chain) = call.nested(&group, key.as_bytes()) else {
            return Ok(Err(CacheError::Cycle));
        };
        let context = Context { chain, ..Context::until(call.deadline()) };
        let group = match self.readable(&group) {
            Ok(group) => group,
            Err(error) => return Ok(Err(error)),
        };
        let answer = group.get(key.as_bytes(), &context).await;
        Ok(self.answer(answer))
    }
}
