//! Fetches values from an HTTP origin.
//!
//! Settings: `url`, under which the keys are, and `ttl`, for how many seconds a value is
//! fresh (60 unless set).

use cachecluster_plugin::http::{Request, Response};
use cachecluster_plugin::{
    Context, Deadline, Entry, Error, Getter, Lifecycle, Outcome, config, export,
};
use std::time::Duration;

const TTL: u64 = 60;
const NOT_FOUND_TTL: Duration = Duration::from_secs(10);

struct Items;

impl Getter for Items {
    fn get(key: &str, ctx: &Context) -> Result<Outcome, Error> {
        let settings = Settings::read()?;
        let mut request = Request::get(format!("{}/{}", settings.url, segment(key)?));
        let validator = ctx.validator();
        if let Some(validator) = &validator {
            request = request.header("if-none-match", validator);
        }
        // A tenth is kept, so that the answer is out before the node gives up.
        let response = request.send(Deadline::after(ctx.remaining().mul_f64(0.9)))?;
        outcome(response, validator.is_some(), settings.ttl)
    }
}

impl Lifecycle for Items {
    fn init() -> Result<(), String> {
        Settings::read().map(drop).map_err(|error| error.to_string())
    }
}

export!(Items, lifecycle);

struct Settings {
    url: String,
    ttl: Duration,
}

impl Settings {
    fn read() -> Result<Self, config::Invalid> {
        let url = config::required("url")?;
        if url.is_empty() {
            return Err(config::Invalid::new("url", "is empty"));
        }
        let ttl = config::parse("ttl")?.unwrap_or(TTL);
        Ok(Self { url, ttl: Duration::from_secs(ttl) })
    }
}

/// The key as one segment of a path.
fn segment(key: &str) -> Result<String, Error> {
    // Servers take dots for an order to leave the folder, encoded or not.
    if matches!(key, "" | "." | "..") {
        return Err(Error::invalid_key("the key can be no segment of a path"));
    }
    let encoded = key.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    Ok(encoded.collect())
}

/// What the origin's answer says about the key.
fn outcome(response: Response, was_conditional: bool, ttl: Duration) -> Result<Outcome, Error> {
    let status = response.status();
    let said = format!("the origin answered {status}");
    match status {
        200 => Ok(found(response, ttl).into()),
        304 if was_conditional => Ok(Outcome::not_modified().ttl(ttl)),
        404 | 410 => Ok(Outcome::not_found().ttl(NOT_FOUND_TTL)),
        401 | 403 => Err(Error::denied(said)),
        429 | 500..=599 => Err(match retry_after(&response) {
            Some(wait) => Error::unavailable(said).retry_after(wait),
            None => Error::unavailable(said),
        }),
        _ => Err(Error::internal(said)),
    }
}

fn found(response: Response, ttl: Duration) -> Entry {
    let mut entry = Entry::default().ttl(ttl);
    if let Some(etag) = response.header("etag") {
        entry = entry.validator(etag);
    }
    if let Some(content_type) = response.header("content-type") {
        entry = entry.content_type(content_type);
    }
    entry.value = response.into_body();
    entry
}

/// The origin's `Retry-After`, where it is a number of seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    response.header("retry-after")?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cachecluster_plugin::testing::{self, Host};

    fn host(key: &str, response: Response) -> Host {
        let url = "http://localhost/items";
        Host::new().config("url", url).http(&format!("{url}/{key}"), response)
    }

    fn get(key: &str) -> Result<Outcome, Error> {
        Items::get(key, &testing::context().remaining(Duration::from_secs(1)).build())
    }

    #[test]
    fn an_item_is_found() {
        let response = Response::new(200).with_header("etag", "\"1\"").with_body("an item\n");
        let _host = host("a%20b", response);
        let entry = Entry::new("an item\n").ttl(Duration::from_secs(TTL)).validator("\"1\"");
        assert_eq!(get("a b"), Ok(entry.into()));
    }

    #[test]
    fn a_missing_item_is_not_found() {
        let _host = host("a", Response::new(404));
        assert_eq!(get("a"), Ok(Outcome::not_found().ttl(NOT_FOUND_TTL)));
    }

    #[test]
    fn a_busy_origin_is_left_alone_for_as_long_as_it_says() {
        let _host = host("a", Response::new(503).with_header("retry-after", "7"));
        let error = Error::unavailable("the origin answered 503");
        assert_eq!(get("a"), Err(error.retry_after(Duration::from_secs(7))));
    }

    #[test]
    fn the_origin_is_not_asked_for_a_key_that_is_no_segment() {
        let host = host("a", Response::new(200));
        for key in ["", ".", ".."] {
            assert!(matches!(get(key), Err(Error::InvalidKey(_))), "{key:?}");
        }
        assert_eq!(host.sent().len(), 0);
    }
}
