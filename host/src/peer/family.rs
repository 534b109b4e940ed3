//! The programs that a node can stand in one fleet with.

use crate::{config, ring::Kind, wire::Dialect};

/// Which of the family the other peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family(config::Family);

impl From<config::Family> for Family {
    fn from(family: config::Family) -> Self {
        Self(family)
    }
}

impl Family {
    /// The ring that they have.
    pub fn ring(self) -> Kind {
        match self.0 {
            config::Family::Groupcache => Kind::Groupcache,
            config::Family::Mailgun | config::Family::GroupcacheGo => Kind::GroupcacheGo,
        }
    }

    /// How they speak.
    pub fn dialect(self) -> Dialect {
        match self.0 {
            config::Family::Groupcache => Dialect::Golang,
            config::Family::Mailgun | config::Family::GroupcacheGo => Dialect::V2,
        }
    }

    /// Whether their clients write a space in a key as `+`.
    pub fn plus_is_space(self) -> bool {
        self.0 == config::Family::Groupcache
    }

    /// What a peer with this URL, at `authority`, is called in the ring.
    pub fn name(self, url: &str, authority: &str) -> String {
        match self.0 {
            config::Family::Groupcache | config::Family::Mailgun => url.to_owned(),
            config::Family::GroupcacheGo => authority.to_owned(),
        }
    }
}
