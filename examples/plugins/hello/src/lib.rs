//! The smallest getter: it greets its key. Copy this folder to begin a plugin.

use cachecluster_plugin::{Context, Entry, Error, Getter, Outcome, export};
use std::time::Duration;

struct Hello;

impl Getter for Hello {
    fn get(key: &str, _ctx: &Context) -> Result<Outcome, Error> {
        if key.is_empty() {
            return Ok(Outcome::not_found());
        }
        let greeting = format!("Hello, {key}!\n");
        Ok(Entry::new(greeting).ttl(Duration::from_mins(1)).content_type("text/plain").into())
    }
}

export!(Hello);

#[cfg(test)]
mod tests {
    use super::*;
    use cachecluster_plugin::testing;

    #[test]
    fn it_greets_whoever_is_asked_for() {
        let Ok(Outcome::Found(entry)) = Hello::get("world", &testing::context().build()) else {
            panic!("there should be a greeting");
        };
        assert_eq!(entry.value, b"Hello, world!\n");
    }
}
