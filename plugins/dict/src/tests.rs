//! The whole getter, against servers on the loopback address.

use super::*;
use cachecluster_plugin::testing::{self, Host};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A server for one connection: greets, then answers each line with `reply`,
/// until that has nothing more to say. Joins to the commands it was sent.
fn server(reply: fn(&str) -> Option<&'static str>) -> (Host, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 hello <mime> <1@host>\r\n").unwrap();
        serve(&stream, reply)
    });
    (Host::new().config("server", address), thread)
}

fn serve(mut stream: &TcpStream, reply: fn(&str) -> Option<&'static str>) -> Vec<String> {
    let mut heard = Vec::new();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let answer = reply(&line);
        heard.push(line);
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
            None => break,
        }
    }
    heard
}

fn words(command: &str) -> Option<&'static str> {
    match command {
        "DEFINE ! \"piston\"" => {
            Some("150 1 x\r\n151 \"Piston\" gcide \"d\"\r\nA disk.\r\n..\r\n.\r\n250 ok\r\n")
        }
        "DEFINE ! \"drop\"" | "QUIT" => None,
        _ if command.starts_with("CLIENT ") => Some("250 ok\r\n"),
        _ => Some("552 no match\r\n"),
    }
}

fn get(key: &str) -> Result<Outcome, Error> {
    Dict::get(key, &testing::context().build())
}

#[test]
fn a_word_is_found_with_the_configured_freshness() {
    let (host, server) = server(words);
    let _host = host.config("ttl", "24h").config("stale", "7d").config("client", "tests");
    let entry = Entry::new("A disk.\n.\n")
        .ttl(Duration::from_hours(24))
        .stale(Duration::from_hours(168))
        .content_type("text/plain; charset=utf-8");
    assert_eq!(get("piston"), Ok(entry.into()));
    assert_eq!(server.join().unwrap(), ["CLIENT tests", "DEFINE ! \"piston\"", "QUIT"]);
}

#[test]
fn an_unknown_word_is_not_found_for_the_negative_ttl() {
    let (host, server) = server(words);
    let _host = host.config("negative_ttl", "5m");
    assert_eq!(get("zzqqx"), Ok(Outcome::not_found().ttl(Duration::from_mins(5))));
    server.join().unwrap();
}

#[test]
fn an_injected_command_reaches_no_server() {
    let _host = Host::new().config("server", "127.0.0.1:1");
    for key in ["", "a\r\nSHOW DB", "a\nQUIT", &"a".repeat(1024)] {
        assert!(matches!(get(key), Err(Error::InvalidKey(_))), "{key:?}");
    }
}

#[test]
fn a_server_that_hangs_up_is_unavailable() {
    let (_host, server) = server(words);
    assert!(matches!(get("drop"), Err(Error::Unavailable { .. })));
    server.join().unwrap();
}

#[test]
fn a_server_that_is_away_is_unavailable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _host = Host::new().config("server", format!("127.0.0.1:{port}"));
    assert!(matches!(get("piston"), Err(Error::Unavailable { .. })));
}

#[test]
fn a_silent_server_is_unavailable_or_too_late_for_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let _host = Host::new().config("server", address).config("timeout", "20ms");
    assert!(matches!(get("piston"), Err(Error::Unavailable { .. })));
    let hurried = testing::context().remaining(Duration::from_millis(10)).build();
    assert_eq!(Dict::get("piston", &hurried), Err(Error::TimedOut));
}

#[test]
fn an_unknown_database_is_named() {
    let (host, server) = server(|_| Some("550 invalid database\r\n"));
    let _host = host.config("database", "klingon");
    let Err(Error::Internal(message)) = get("piston") else { panic!("expected an error") };
    assert!(message.contains("\"klingon\""), "{message}");
    server.join().unwrap();
}

#[test]
fn a_batch_goes_over_one_connection() {
    let (_host, server) = server(words);
    let keys = ["piston", "a\rb", "zzqqx", "piston"].map(String::from);
    let answers = Dict::get_many(&keys, &testing::context().build()).unwrap();
    assert!(matches!(&answers[0], Ok(Outcome::Found(entry)) if entry.value == b"A disk.\n.\n"));
    assert!(matches!(&answers[1], Err(Error::InvalidKey(_))));
    assert_eq!(answers[2], Ok(Outcome::not_found()));
    assert_eq!(answers[3], answers[0]);
    assert_eq!(server.join().unwrap().len(), 4, "three words and a goodbye");
}

#[test]
fn a_batch_without_a_server_fails_as_a_whole() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _host = Host::new().config("server", format!("127.0.0.1:{port}"));
    let ctx = testing::context().build();
    assert!(matches!(Dict::get_many(&["a".into()], &ctx), Err(Error::Unavailable { .. })));
    assert!(matches!(Dict::get_many(&[], &ctx).as_deref(), Ok([])));
}

#[test]
fn a_wrong_setting_keeps_the_plugin_from_loading() {
    let _host = Host::new();
    assert_eq!(Dict::init(), Err("the setting `server` is required".into()));
    let _host = Host::new().config("server", "dict.example").config("ttl", "long");
    assert!(Dict::init().unwrap_err().contains("`ttl`"));
    let _host = Host::new().config("server", "dict.example");
    assert_eq!((Dict::init(), Dict::check()), (Ok(()), Ok(())));
}
