//! From the headers of an answer to its time to live (RFC 9111, RFC 5861).

use cachecluster_plugin::Freshness;
use cachecluster_plugin::http::Response;
use std::time::Duration;

/// The freshness the origin gave its answer, with `defaults` for what it left
/// open.
pub(crate) fn freshness(response: &Response, defaults: Freshness) -> Freshness {
    let control = CacheControl::read(response);
    if control.is_not_shared {
        return Freshness { ttl: Some(Duration::ZERO), stale: None };
    }
    let stale = if control.must_revalidate {
        Some(Duration::ZERO)
    } else {
        control.stale_while_revalidate.max(control.stale_if_error).or(defaults.stale)
    };
    let lifetime = control.s_maxage.or(control.max_age).or_else(|| expires(response));
    let ttl = match lifetime {
        Some(lifetime) => Some(lifetime.saturating_sub(age(response))),
        None => defaults.ttl,
    };
    Freshness { ttl, stale }
}

/// The time an origin asks to be left alone for, from `Retry-After`.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    seconds(text).or_else(|| until(text, response))
}

/// The directives of `Cache-Control` that matter to a shared cache.
#[derive(Debug, Default)]
struct CacheControl {
    /// `no-store`, `no-cache` or `private`.
    is_not_shared: bool,
    must_revalidate: bool,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
}

impl CacheControl {
    fn read(response: &Response) -> Self {
        let mut control = Self::default();
        let directives = response.header_values("cache-control").flat_map(|value| value.split(','));
        for directive in directives {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let value = value.trim().trim_matches('"');
            // A number that is none must not let an answer live longer.
            let duration = || Some(seconds(value).unwrap_or_default());
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => control.is_not_shared = true,
                "must-revalidate" | "proxy-revalidate" => control.must_revalidate = true,
                "max-age" => control.max_age = control.max_age.or_else(duration),
                "s-maxage" => control.s_maxage = control.s_maxage.or_else(duration),
                "stale-while-revalidate" => control.stale_while_revalidate = duration(),
                "stale-if-error" => control.stale_if_error = duration(),
                _ => {}
            }
        }
        control
    }
}

/// The lifetime `Expires` gives. A date that is none, such as `0`, has passed.
fn expires(response: &Response) -> Option<Duration> {
    let text = response.header("expires")?;
    // Without a `Date` there is nothing to measure from.
    response.header("date")?;
    Some(until(text, response).unwrap_or_default())
}

/// How long ago the answer left the origin.
fn age(response: &Response) -> Duration {
    response.header("age").and_then(|text| seconds(text.trim())).unwrap_or_default()
}

/// The time from the answer's own `Date` to the date in `text`: what the
/// origin meant, however wrong its clock, or ours, may be.
fn until(text: &str, response: &Response) -> Option<Duration> {
    let date = httpdate::parse_http_date(response.header("date")?).ok()?;
    let then = httpdate::parse_http_date(text).ok()?;
    Some(then.duration_since(date).unwrap_or_default())
}

/// A whole number of seconds. One that is too large is as good as 68 years
/// (RFC 9111, section 1.2.2).
fn seconds(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let largest = u64::from(1_u32 << 31);
    Some(Duration::from_secs(text.parse::<u64>().map_or(largest, |n| n.min(largest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Freshness =
        Freshness { ttl: Some(Duration::from_secs(7)), stale: Some(Duration::from_secs(8)) };

    fn of(headers: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let response = headers.iter().fold(Response::new(200), |response, (name, value)| {
            response.with_header(*name, *value)
        });
        let Freshness { ttl, stale } = freshness(&response, DEFAULTS);
        (ttl.map(|ttl| ttl.as_secs()), stale.map(|stale| stale.as_secs()))
    }

    fn control(value: &str) -> (Option<u64>, Option<u64>) {
        of(&[("cache-control", value)])
    }

    #[test]
    fn an_origin_that_does_not_say_gets_the_defaults() {
        assert_eq!(of(&[]), (Some(7), Some(8)));
        assert_eq!(control("public, immutable"), (Some(7), Some(8)));
    }

    #[test]
    fn cache_control_decides() {
        for (value, expected) in [
            ("max-age=60", (Some(60), Some(8))),
            ("max-age=60, s-maxage=10", (Some(10), Some(8))),
            ("s-maxage=10,max-age=60", (Some(10), Some(8))),
            ("Max-Age=\"60\"", (Some(60), Some(8))),
            ("max-age=60, max-age=90", (Some(60), Some(8))),
            ("max-age=60, stale-while-revalidate=30", (Some(60), Some(30))),
            ("max-age=60, stale-while-revalidate=30, stale-if-error=90", (Some(60), Some(90))),
            ("max-age=60, stale-if-error=90, must-revalidate", (Some(60), Some(0))),
            ("max-age=0", (Some(0), Some(8))),
            ("max-age=soon", (Some(0), Some(8))),
            ("max-age=-1", (Some(0), Some(8))),
            ("max-age=99999999999999999999999", (Some(1 << 31), Some(8))),
            ("no-store", (Some(0), None)),
            ("no-cache, max-age=60", (Some(0), None)),
            ("max-age=60, private=\"x-a\"", (Some(0), None)),
        ] {
            assert_eq!(control(value), expected, "{value}");
        }
        let twice = of(&[("cache-control", "public"), ("Cache-Control", "max-age=5")]);
        assert_eq!(twice, (Some(5), Some(8)));
    }

    #[test]
    fn age_is_taken_off_what_the_origin_gave() {
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "20")]), (Some(40), Some(8)));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "90")]), (Some(0), Some(8)));
        assert_eq!(of(&[("age", "20")]), (Some(7), Some(8)));
    }

    #[test]
    fn expires_is_measured_from_the_date_of_the_answer() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let later = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(of(&[date, later]), (Some(60), Some(8)));
        assert_eq!(of(&[date, ("expires", "0")]), (Some(0), Some(8)));
        assert_eq!(of(&[date, ("expires", "Sun, 06 Nov 1994 08:00:00 GMT")]), (Some(0), Some(8)));
        assert_eq!(of(&[later]), (Some(7), Some(8)));
        assert_eq!(of(&[date, later, ("cache-control", "max-age=5")]), (Some(5), Some(8)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let response =
                Response::new(503).with_header(date.0, date.1).with_header("Retry-After", value);
            assert_eq!(retry_after(&response), expected.map(Duration::from_secs), "{value}");
        }
    }
}
