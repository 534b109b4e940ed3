//! The whole getter, with the answers of [`Host::http`].

use super::*;
use cachecluster_plugin::Entry;
use cachecluster_plugin::http::Response;
use cachecluster_plugin::testing::{self, Host};
use std::time::Duration;

const URL: &str = "http://origin/items/a";

fn host(response: Response) -> Host {
    Host::new().config("url", "http://origin/items/{key}").http(URL, response)
}

fn get() -> Result<Outcome, Error> {
    Http::get("a", &testing::context().build())
}

fn refresh(validator: &str) -> Result<Outcome, Error> {
    Http::get("a", &testing::context().validator(validator).build())
}

fn answer_to(status: u16) -> Result<Outcome, Error> {
    let _host = host(Response::new(status));
    get()
}

#[test]
fn a_body_is_found_with_what_its_headers_say() {
    let response = Response::new(200)
        .with_header("Cache-Control", "max-age=60, stale-while-revalidate=30")
        .with_header("Content-Type", "application/json")
        .with_header("ETag", "\"v1\"")
        .with_header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        .with_body("{}");
    let host = host(response).config("header.Authorization", "Bearer secret");
    let entry = Entry::new("{}")
        .ttl(Duration::from_mins(1))
        .stale(Duration::from_secs(30))
        .validator("\"v1\"")
        .content_type("application/json");
    assert_eq!(get(), Ok(entry.into()));
    let sent = &host.sent()[0];
    assert_eq!(sent.url, URL);
    assert_eq!(sent.header("authorization"), Some("Bearer secret"));
    assert_eq!(sent.header("accept-encoding"), Some("identity"));
    assert_eq!(sent.header("if-none-match"), None);
}

#[test]
fn the_settings_speak_when_the_origin_is_silent() {
    let _host = host(Response::new(200)).config("ttl", "1m").config("stale", "1h");
    let entry = Entry::new("").ttl(Duration::from_mins(1)).stale(Duration::from_hours(1));
    assert_eq!(get(), Ok(entry.into()));
    let _host = host(Response::new(404)).config("ttl", "1m").config("negative_ttl", "5s");
    assert_eq!(get(), Ok(Outcome::not_found().ttl(Duration::from_secs(5))));
    let _host = host(Response::new(200));
    assert_eq!(get(), Ok(Entry::new("").into()));
}

#[test]
fn a_refresh_asks_with_the_validator_of_its_kind() {
    let host = host(Response::new(304).with_header("Cache-Control", "max-age=5"));
    let kept = Ok(Outcome::not_modified().ttl(Duration::from_secs(5)));
    assert_eq!(refresh("\"v1\""), kept);
    assert_eq!(refresh("W/\"v1\""), kept);
    assert_eq!(refresh("Sun, 06 Nov 1994 08:49:37 GMT"), kept);
    let sent = host.sent();
    assert_eq!(sent[0].header("if-none-match"), Some("\"v1\""));
    assert_eq!(sent[1].header("if-none-match"), Some("W/\"v1\""));
    assert_eq!(sent[2].header("if-modified-since"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

#[test]
fn a_date_is_the_validator_of_an_answer_without_a_good_entity_tag() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (tag, modified, expected) in [
        ("\"a\"", date, Some("\"a\"")),
        ("unquoted", date, Some(date)),
        ("unquoted", "yesterday", None),
    ] {
        let response =
            Response::new(200).with_header("ETag", tag).with_header("Last-Modified", modified);
        let _host = host(response);
        let Ok(Outcome::Found(entry)) = get() else { panic!("expected a value") };
        assert_eq!(entry.validator.as_deref(), expected);
    }
}

#[test]
fn a_content_type_that_is_none_is_left_out() {
    for (content_type, expected) in
        [("text/plain", Some("text/plain")), ("", None), ("té", None), (&"a".repeat(257), None)]
    {
        let _host = host(Response::new(200).with_header("Content-Type", content_type));
        let Ok(Outcome::Found(entry)) = get() else { panic!("expected a value") };
        assert_eq!(entry.content_type.as_deref(), expected);
    }
}

#[test]
fn every_status_has_its_meaning() {
    for status in [200, 203, 204] {
        assert!(matches!(answer_to(status), Ok(Outcome::Found(_))), "{status}");
    }
    for status in [404, 410] {
        assert_eq!(answer_to(status), Ok(Outcome::not_found()), "{status}");
    }
    for status in [400, 414, 422] {
        assert!(matches!(answer_to(status), Err(Error::InvalidKey(_))), "{status}");
    }
    for status in [401, 403, 407, 451] {
        assert!(matches!(answer_to(status), Err(Error::Denied(_))), "{status}");
    }
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        assert!(matches!(answer_to(status), Err(Error::Unavailable { .. })), "{status}");
    }
    for status in [101, 206, 300, 304, 307, 405, 409, 418, 600] {
        assert!(matches!(answer_to(status), Err(Error::Internal(_))), "{status}");
    }
}

#[test]
fn retry_after_is_passed_on() {
    let _host = host(Response::new(503).with_header("Retry-After", "7"));
    let error = Error::unavailable("the origin answered with status 503");
    assert_eq!(get(), Err(error.retry_after(Duration::from_secs(7))));
}

#[test]
fn a_redirect_is_named_and_not_followed() {
    let host = host(Response::new(301).with_header("Location", "https://elsewhere/a"));
    let Err(Error::Internal(message)) = get() else { panic!("expected an error") };
    assert!(message.contains("\"https://elsewhere/a\""), "{message}");
    assert_eq!(host.sent().len(), 1);
}

#[test]
fn a_compressed_body_is_no_value() {
    let _host = host(Response::new(200).with_header("Content-Encoding", "gzip").with_body("x"));
    assert!(matches!(get(), Err(Error::Internal(_))));
}

#[test]
fn a_body_over_the_limit_is_no_value() {
    let _host = host(Response::new(200).with_body(vec![0; 2049])).config("max_body", "2 KiB");
    assert!(matches!(get(), Err(Error::Internal(_))));
}

#[test]
fn lateness_is_the_origins_fault_while_the_call_has_time() {
    let _host = Host::new()
        .config("url", "http://origin/items/{key}")
        .http_result(URL, Err(Error::TimedOut));
    assert!(matches!(get(), Err(Error::Unavailable { .. })));
    let late = testing::context().remaining(Duration::ZERO).build();
    assert_eq!(Http::get("a", &late), Err(Error::TimedOut));
}

#[test]
fn the_trace_of_the_call_goes_along() {
    let host = host(Response::new(200));
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ctx = testing::context().traceparent(traceparent).build();
    assert!(Http::get("a", &ctx).is_ok());
    assert_eq!(host.sent()[0].header("traceparent"), Some(traceparent));
}

#[test]
fn a_key_that_would_leave_its_folder_is_invalid() {
    let host = host(Response::new(200));
    let ctx = testing::context().build();
    assert!(matches!(Http::get("..", &ctx), Err(Error::InvalidKey(_))));
    assert!(host.sent().is_empty());
}

#[test]
fn a_wrong_setting_keeps_the_plugin_from_loading() {
    for (key, value) in [
        ("url", "http://origin/"),
        ("urll", "x"),
        ("timeout", "0"),
        ("max_body", "big"),
        ("ttl", "1"),
        ("header.", "x"),
        ("header.a b", "x"),
        ("header.Host", "x"),
        ("header.X-A", "x\r\nY: z"),
    ] {
        let _host = host(Response::new(200)).config(key, value);
        let message = Http::init().unwrap_err();
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
    }
    let _host = Host::new();
    assert_eq!(Http::init(), Err("the setting `url` is required".into()));
    let _host = host(Response::new(200)).config("header.Accept", "text/plain");
    assert_eq!((Http::init(), Http::check()), (Ok(()), Ok(())));
}
