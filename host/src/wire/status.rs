//! What a status means between peers, in each dialect of the family.
//!
//! golang/groupcache has no way to say that there is no such key: every error is a 500, and
//! a caller of it loads the key itself. v2 and v3 say 404 for a key that does not exist and
//! 503 for a getter that failed, and a caller takes both as the last word. Among our own
//! nodes that is what we want as well: the owner has asked the origin, and asking it again
//! from everywhere is what a cluster is there to avoid.

/// Whom a node speaks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// golang/groupcache.
    Golang,
    /// mailgun/groupcache v2, groupcache-go v3, and our own nodes.
    #[default]
    V2,
}

/// Why a peer gets no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The path names no key.
    BadRequest,
    /// There is no such group here.
    NoGroup,
    /// The getter says that there is no such key.
    NotFound,
    /// The getter failed.
    Failed,
    /// This node is too busy to ask its getter.
    Overloaded,
}

impl Dialect {
    /// The status that says so.
    pub fn status(self, refusal: Refusal) -> u16 {
        match (self, refusal) {
            (_, Refusal::BadRequest) => 400,
            (_, Refusal::NoGroup) | (Self::V2, Refusal::NotFound) => 404,
            (Self::Golang, Refusal::NotFound | Refusal::Failed) => 500,
            // What a caller answers by loading the key itself.
            (Self::Golang | Self::V2, Refusal::Overloaded) => 429,
            (Self::V2, Refusal::Failed) => 503,
        }
    }

    /// What `status` means, from a peer that speaks so.
    pub fn meaning(self, status: u16) -> Meaning {
        match (self, status) {
            (_, 200) => Meaning::Value,
            (Self::V2, 404) => Meaning::NotFound,
            (Self::V2, 503) => Meaning::Failed,
            _ => Meaning::Unanswered,
        }
    }
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The body is the value.
    Value,
    /// There is no such key: the last word.
    NotFound,
    /// The owner's getter failed: the last word.
    Failed,
    /// Nothing about the key: somebody else is to be asked.
    Unanswered,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_says_what_its_originals_say() {
        use Refusal::{BadRequest, Failed, NoGroup, NotFound};
        let golang = [BadRequest, NoGroup, NotFound, Failed].map(|it| Dialect::Golang.status(it));
        assert_eq!(golang, [400, 404, 500, 500]);
        let v2 = [BadRequest, NoGroup, NotFound, Failed].map(|it| Dialect::V2.status(it));
        assert_eq!(v2, [400, 404, 404, 503]);
    }

    #[test]
    fn only_a_peer_that_can_say_it_has_the_last_word() {
        assert_eq!(Dialect::V2.meaning(404), Meaning::NotFound);
        assert_eq!(Dialect::V2.meaning(503), Meaning::Failed);
        for status in [404, 500, 503] {
            assert_eq!(Dialect::Golang.meaning(status), Meaning::Unanswered, "{status}");
        }
        for status in [204, 301, 400, 429, 500, 502] {
            assert_eq!(Dialect::V2.meaning(status), Meaning::Unanswered, "{status}");
        }
    }
}
