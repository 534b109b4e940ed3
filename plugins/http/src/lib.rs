//! A getter that fetches values from an HTTP origin.
//!
//! The key goes into a URL template, the body of the answer is the value, and
//! the headers of the answer decide how long it is kept. The settings, in
//! `[plugins.<name>.config]`:
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `url` | the template, see below | required |
//! | `header.<Name>` | a header sent with each request, as in `"header.Accept" = "text/plain"` | none |
//! | `timeout` | for all of a get | `5s` |
//! | `max_body` | the largest body, as in `2 MiB` | `8 MiB` |
//! | `ttl` | how long a value is fresh if the origin does not say | the group's |
//! | `stale` | how much longer it may be served if the origin does not say | the group's |
//! | `negative_ttl` | how long a 404 is kept if the origin does not say | the group's |
//!
//! In the template `https://api.example.com/items/{key}` the key becomes one
//! path segment, or a part of one: everything but letters, digits and `-._~`
//! is percent-encoded. `{key:path}` leaves `/` as it is, for an origin whose
//! paths are the keys. Both may stand in the query too. A key that would make
//! a path segment `.` or `..` is an invalid key: servers take it as an order
//! to leave the folder.
//!
//! What the origin's status means:
//!
//! | status | outcome |
//! |---|---|
//! | 200, 203, 204 | the value; for 204 an empty one |
//! | 304 | not modified, in reply to a validator |
//! | 404, 410 | not found |
//! | 400, 414, 422 | invalid key: only the key differs from request to request |
//! | 401, 403, 407, 451 | denied |
//! | 408, 425, 429, 5xx | unavailable, with the origin's `Retry-After` |
//! | any other | internal; redirects are named, not followed |
//!
//! What its headers mean:
//! - `Cache-Control`: `no-store`, `no-cache` and `private` make the value one
//!   for the waiting callers only (a time to live of zero); otherwise
//!   `s-maxage`, then `max-age`, then `Expires` is the time to live, less
//!   `Age`. The longer of `stale-while-revalidate` and `stale-if-error` is how
//!   long a stale value may be served, because the cache has one such time;
//!   `must-revalidate` and `proxy-revalidate` make it zero.
//! - `ETag`, or else `Last-Modified`, is the validator: the next refresh asks
//!   with `If-None-Match` or `If-Modified-Since`.
//! - `Content-Type` is passed on. Compressed bodies are neither asked for nor
//!   accepted.
//!
//! The trace of the call, if any, is passed on as `traceparent`. The plugin
//! needs to be granted the origin: `[plugins.<name>.network] http =
//! ["scheme://host:port"]`.

mod answer;
mod freshness;
mod settings;
mod template;

use cachecluster_plugin::http::Request;
use cachecluster_plugin::{Context, Deadline, Error, Getter, Lifecycle, Outcome, export};
use settings::Settings;

/// Values by URL.
struct Http;

impl Getter for Http {
    fn get(key: &str, ctx: &Context) -> Result<Outcome, Error> {
        let settings = Settings::load()?;
        let url = settings.url.expand(key).map_err(Error::InvalidKey)?;
        let deadline = Deadline::after(settings.timeout).min(Deadline::of(ctx));
        let validator = ctx.validator();

        let mut request = Request::get(url)
            .body_bytes_max(settings.max_body)
            .header("accept-encoding", "identity");
        for (name, value) in &settings.headers {
            request = request.header(name, value);
        }
        if let Some(validator) = &validator {
            request = request.header(answer::condition(validator), validator);
        }
        if let Some(traceparent) = ctx.traceparent() {
            request = request.header("traceparent", traceparent);
        }
        match request.send(deadline) {
            Ok(response) => answer::read(response, validator.is_some(), &settings.defaults),
            // Merely slower than the settings allow: another try may be worth it.
            Err(Error::TimedOut) if !ctx.remaining().is_zero() => Err(Error::unavailable(format!(
                "the origin did not answer within {:?}",
                settings.timeout
            ))),
            Err(error) => Err(error),
        }
    }
}

impl Lifecycle for Http {
    fn init() -> Result<(), String> {
        Settings::check()?;
        Ok(())
    }
}

export!(Http, lifecycle);

#[cfg(test)]
mod tests;
