//! A getter that looks words up on a DICT server (RFC 2229).
//!
//! The key is the word; the value is its definitions in the first database
//! that has it, exactly as the server sent them:
//! - each text line of a definition, with a doubled leading dot undone, ends
//!   with `\n` in the place of its CRLF;
//! - several definitions are separated by one empty line.
//!
//! A word that no database has (552) is not found. One connection is made for
//! each get, and one for each batch, over which the words are pipelined.
//!
//! Settings, in `[plugins.<name>.config]`:
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `server` | `host:port`, or a host at port 2628 | required |
//! | `database` | name of a database, `!` for the first that matches | `!` |
//! | `ttl` | how long a definition is fresh | the group's |
//! | `stale` | how much longer it may be served if need be | the group's |
//! | `negative_ttl` | how long an unknown word stays unknown | the group's |
//! | `connect_timeout` | for the name lookup and the connect | `2s` |
//! | `timeout` | for all of a get or a batch | `5s` |
//! | `client` | what to tell the server about this client | nothing |
//!
//! The plugin needs to be granted the server: `[plugins.<name>.network]
//! tcp = ["host:port"]`.

mod protocol;
mod settings;

use cachecluster_plugin::net::TcpStream;
use cachecluster_plugin::{
    BatchGetter, Context, Deadline, Entry, Error, Getter, Lifecycle, Outcome, export,
};
use protocol::{Failure, Session};
use settings::Settings;

/// Definitions by word.
struct Dict;

impl Getter for Dict {
    fn get(key: &str, ctx: &Context) -> Result<Outcome, Error> {
        let settings = Settings::load()?;
        // A bad word is refused before anything is sent.
        let command = protocol::define(&settings.database, key).map_err(Error::InvalidKey)?;
        let deadline = Deadline::after(settings.timeout).min(Deadline::of(ctx));
        let explain = |failure: Failure| settings.explain(failure, ctx);

        let mut session = open(&settings, deadline).map_err(explain)?;
        session.send(&command).map_err(explain)?;
        let answer = session.definitions().map_err(explain)?;
        session.quit();
        Ok(outcome(answer, &settings))
    }
}

impl BatchGetter for Dict {
    fn get_many(keys: &[String], ctx: &Context) -> Result<Vec<Result<Outcome, Error>>, Error> {
        let settings = Settings::load()?;
        let deadline = Deadline::after(settings.timeout).min(Deadline::of(ctx));
        let commands: Vec<_> =
            keys.iter().map(|key| protocol::define(&settings.database, key)).collect();

        let mut answers = Vec::new();
        // No connection for a batch without a single good word.
        if commands.iter().any(Result::is_ok) {
            let mut session =
                open(&settings, deadline).map_err(|failure| settings.explain(failure, ctx))?;
            answers = session.pipeline(commands.iter().flatten());
            session.quit();
        }
        let mut answers = answers.into_iter();
        Ok(commands
            .into_iter()
            .map(|command| {
                command.map_err(Error::InvalidKey)?;
                let answer = answers.next().unwrap_or(Err(Failure::Closed));
                let answer = answer.map_err(|failure| settings.explain(failure, ctx))?;
                Ok(outcome(answer, &settings))
            })
            .collect())
    }
}

impl Lifecycle for Dict {
    fn init() -> Result<(), String> {
        Settings::check()?;
        Ok(())
    }
}

export!(Dict, batch, lifecycle);

/// Connects and gets as far as the server's readiness for a command.
fn open(settings: &Settings, deadline: Deadline) -> Result<Session<TcpStream>, Failure> {
    let connect_by = Deadline::after(settings.connect_timeout).min(deadline);
    let mut stream = TcpStream::connect(&settings.server, connect_by)?;
    stream.set_deadline(deadline);
    let mut session = Session::begin(stream)?;
    if let Some(client) = &settings.client {
        session.introduce(client)?;
    }
    Ok(session)
}

fn outcome(definitions: Option<Vec<u8>>, settings: &Settings) -> Outcome {
    match definitions {
        Some(text) => Entry::new(text)
            .freshness(settings.found)
            .content_type("text/plain; charset=utf-8")
            .into(),
        None => Outcome::NotFound(settings.not_found),
    }
}

#[cfg(test)]
mod tests;
