//! Values that another node hands over because it is about to go.
//!
//! They arrive in chunks, several at once, and are kept when they are whole, unless this
//! node knows better. What is under way has a bound; whatever is over it is refused, and
//! costs a fill some day.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    group::{Group, Groups, Held, Tidings},
    value::Value,
    wire::link::{Frame, Offer, Terms},
};

/// Values of one link under way.
const OFFERS_MAX: usize = 64;

/// Bytes of those values.
const BYTES_MAX: u64 = 64 << 20;

/// What arrives on one link.
#[derive(Default)]
pub(super) struct Offers {
    under_way: HashMap<u32, Arriving>,
    /// Bytes of the values under way, when they are whole.
    bytes: u64,
}

struct Arriving {
    group: Arc<Group>,
    key: Bytes,
    terms: Terms,
    body: Vec<u8>,
}

impl Offers {
    /// Something is offered. Gives the answer to it, if it is known already.
    pub(super) fn begin(
        &mut self,
        id: u32,
        offer: Offer,
        groups: &Groups,
        tidings: Option<&dyn Tidings>,
    ) -> Option<Frame> {
        let Offer { group, key, code, news, terms } = offer;
        if let Some(tidings) = tidings.filter(|_| !news.is_empty()) {
            tidings.heard(&news);
        }
        let refused = Some(Frame::Taken(false));
        let Some(group) = groups.get(&group) else { return refused };
        let bytes = self.bytes.saturating_add(terms.length);
        if !super::is_same_code(code, group.code())
            || terms.ttl.is_none()
            || terms.length > group.settings().value_max.get()
            || self.under_way.len() >= OFFERS_MAX
            || bytes > BYTES_MAX
            || self.under_way.contains_key(&id)
        {
            return refused;
        }
        self.bytes = bytes;
        self.under_way.insert(id, Arriving { group, key, terms, body: Vec::new() });
        self.end(id, tidings)
    }

    /// More of what is offered, or of what was refused. Gives the answer if it is whole.
    pub(super) fn extend(
        &mut self,
        id: u32,
        bytes: &[u8],
        tidings: Option<&dyn Tidings>,
    ) -> Option<Frame> {
        let arriving = self.under_way.get_mut(&id)?;
        arriving.body.extend_from_slice(bytes);
        self.end(id, tidings)
    }

    /// The rest does not follow.
    pub(super) fn cancel(&mut self, id: u32) {
        if let Some(arriving) = self.under_way.remove(&id) {
            self.bytes -= arriving.terms.length;
        }
    }

    /// Keeps the value `id`, if it is whole, and answers for it.
    fn end(&mut self, id: u32, tidings: Option<&dyn Tidings>) -> Option<Frame> {
        let arriving = self.under_way.get(&id)?;
        if (arriving.body.len() as u64) < arriving.terms.length {
            return None;
        }
        let Arriving { group, key, terms, body } = self.under_way.remove(&id)?;
        self.bytes -= terms.length;
        if body.len() as u64 > terms.length {
            return Some(Frame::Taken(false));
        }
        let Terms { ttl, grace, age, head, is_given, .. } = terms;
        let value = match head {
            Some(head) => Value::with_head(&body, head),
            None => Value::new(&body),
        };
        let held = Held { value, ttl: ttl.unwrap_or_default(), grace, age, is_given };
        let is_outdated = |age: Duration| {
            tidings.is_some_and(|tidings| tidings.is_outdated(group.name(), &key, age))
        };
        Some(Frame::Taken(group.take_over(&key, held, is_outdated)))
    }
}
