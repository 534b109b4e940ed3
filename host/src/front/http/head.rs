//! Where a request's head ends, and whether it is one of the plain ones.
//!
//! Most requests are a `GET` of a key with headers that change nothing about the
//! answer. Those are recognised here, so that a hit needs no header map; whatever has
//! the slightest oddity is left to hyper's parser, which knows what to make of it.
//!
//! Invariants:
//! - what is taken for plain here is a subset of what hyper takes, and ends at the same
//!   byte: a request cannot be one thing to us and another to a proxy before us;
//! - a head that announces a body is never plain.

/// What stands at the front of the bytes that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan<'a> {
    /// The head has not all arrived.
    Partial,
    /// A head without a body, `length` bytes long, which hyper can be given on its own.
    Plain {
        /// Length of the head, the empty line included.
        length: usize,
        /// The path of a `GET` to which no header matters; `None` for hyper.
        quick: Option<&'a str>,
        /// The target holds a `#`: hyper would cut the key off there.
        has_fragment: bool,
    },
    /// Anything else: from here on the connection is hyper's.
    Odd,
}

/// What a head may have for us to look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of the headers together.
    pub(super) headers_max: usize,
    /// Bytes of the target.
    pub(super) url_max: usize,
}

/// Headers in one head: as many as hyper takes.
const HEADERS_MAX: usize = 100;

/// Headers that announce a body or another protocol.
const BODY: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"upgrade", b"expect"];

/// Headers that change the answer, or the connection after it.
const MATTERS: [&[u8]; 2] = [b"connection", b"if-none-match"];

/// Looks at the request at the front of `bytes`.
pub(super) fn scan(bytes: &[u8], limits: Limits) -> Scan<'_> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return Scan::Partial;
    };
    let Some(line) = bytes[..end].strip_suffix(b"\r") else { return Scan::Odd };
    let Some((method, target)) = request_line(line) else { return Scan::Odd };
    let mut is_quick = method == b"GET" && target.len() <= limits.url_max;
    let mut at = end + 1;
    let (start, mut count) = (at, 0);
    loop {
        match header(&bytes[at..]) {
            Header::Partial => return Scan::Partial,
            Header::Odd => return Scan::Odd,
            Header::End => break,
            Header::Line { length, name } => {
                if is_one_of(name, &BODY) {
                    return Scan::Odd;
                }
                is_quick &= !is_one_of(name, &MATTERS);
                at += length;
                count += 1;
            }
        }
    }
    is_quick &= count <= HEADERS_MAX && at - start <= limits.headers_max;
    let quick = if is_quick { quick_path(target) } else { None };
    Scan::Plain { length: at + 2, quick, has_fragment: target.contains(&b'#') }
}

/// Method and target of an HTTP/1.1 request line.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(b" HTTP/1.1")?;
    let space = line.iter().position(|&byte| byte == b' ')?;
    let (method, target) = (&line[..space], &line[space + 1..]);
    let is_plain = !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && method != b"CONNECT"
        && !target.is_empty()
        && target.iter().all(|byte| (b'!'..=b'~').contains(byte));
    is_plain.then_some((method, target))
}

/// The target, if it is a path in characters that need no thought.
fn quick_path(target: &[u8]) -> Option<&str> {
    let is_plain = target.first() == Some(&b'/')
        && target.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'/' | b'-'
                        | b'.'
                        | b'_'
                        | b'~'
                        | b'%'
                        | b':'
                        | b'+'
                        | b'='
                        | b'@'
                        | b','
                        | b';'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                )
        });
    if is_plain { std::str::from_utf8(target).ok() } else { None }
}

enum Header<'a> {
    Partial,
    Odd,
    End,
    Line { length: usize, name: &'a [u8] },
}

/// The header line at the front of `bytes`.
fn header(bytes: &[u8]) -> Header<'_> {
    match bytes {
        [b'\r', b'\n', ..] => return Header::End,
        [] | [b'\r'] => return Header::Partial,
        _ => {}
    }
    let name = bytes.iter().take_while(|&&byte| CLASS[usize::from(byte)] == NAME).count();
    match bytes.get(name) {
        None => return Header::Partial,
        Some(b':') if name > 0 => {}
        Some(_) => return Header::Odd,
    }
    let value = bytes[name + 1..].iter().take_while(|&&byte| CLASS[usize::from(byte)] != OTHER);
    let end = name + 1 + value.count();
    match bytes[end..] {
        [] | [b'\r'] => Header::Partial,
        [b'\r', b'\n', ..] => Header::Line { length: end + 2, name: &bytes[..name] },
        _ => Header::Odd,
    }
}

fn is_one_of(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// May stand in a header's name, and so in its value.
const NAME: u8 = 2;
/// May stand in a header's value.
const VALUE: u8 = 1;
/// May stand in neither.
const OTHER: u8 = 0;

/// What each byte may be part of. Bytes beyond ASCII are left to hyper.
const CLASS: [u8; 256] = {
    let mut class = [OTHER; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        class[byte as usize] = match byte {
            b'!'
            | b'#'..=b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'0'..=b'9'
            | b'A'..=b'Z'
            | b'^'..=b'z'
            | b'|'
            | b'~' => NAME,
            b' '..=b'~' | b'\t' => VALUE,
            _ => OTHER,
        };
        byte += 1;
    }
    class
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { headers_max: 1_000, url_max: 100 };

    fn plain(text: &str) -> Scan<'_> {
        scan(text.as_bytes(), LIMITS)
    }

    fn quick(text: &str) -> Option<&str> {
        match plain(text) {
            Scan::Plain { quick, .. } => quick,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_get_of_a_key_is_quick() {
        for path in ["/g/k", "/g/", "/g//a/../b", "/g/a%20b", "/g/a+b,c;d=e"] {
            let text = format!("GET {path} HTTP/1.1\r\nHost: h\r\naccept: */*\r\n\r\n");
            assert_eq!(quick(&text), Some(path));
        }
        assert_eq!(quick("GET /g/k HTTP/1.1\r\n\r\nGET"), Some("/g/k"));
    }

    #[test]
    fn what_changes_the_answer_is_left_to_hyper() {
        for text in [
            "HEAD /g/k HTTP/1.1\r\n\r\n",
            "DELETE /g/k HTTP/1.1\r\n\r\n",
            "GET http://h/g/k HTTP/1.1\r\n\r\n",
            "GET /g/k?q HTTP/1.1\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nIF-NONE-MATCH: *\r\n\r\n",
        ] {
            assert_eq!(quick(text), None, "{text:?}");
        }
        let long = "k".repeat(100);
        assert_eq!(quick(&format!("GET /{long} HTTP/1.1\r\n\r\n")), None);
        assert_eq!(quick(&format!("GET /g/k HTTP/1.1\r\nx: {}\r\n\r\n", long.repeat(10))), None);
        assert_eq!(quick(&format!("GET /g/k HTTP/1.1\r\n{}\r\n", "x:y\r\n".repeat(101))), None);
    }

    #[test]
    fn bodies_and_oddities_are_hypers_for_good() {
        for text in [
            "GET /g/k HTTP/1.0\r\n\r\n",
            "GET /g/k HTTP/1.1\n\n",
            "GET  /g/k HTTP/1.1\r\n\r\n",
            "GET /g/k HTTP/1.1 \r\n\r\n",
            "GET /g/\u{e9} HTTP/1.1\r\n\r\n",
            "get /g/k HTTP/1.1\r\n\r\n",
            "\r\nGET /g/k HTTP/1.1\r\n\r\n",
            "CONNECT h:1 HTTP/1.1\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
            "GET /g/k HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nupgrade: h2c\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nexpect: 100-continue\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nx: y\r\n folded\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nx: y\n\r\n",
            "GET /g/k HTTP/1.1\r\nx: y\r\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nx: \0\r\n\r\n",
            "GET /g/k HTTP/1.1\r\n: y\r\n\r\n",
            "GET /g/k HTTP/1.1\r\nx\r\n\r\n",
        ] {
            assert_eq!(plain(text), Scan::Odd, "{text:?}");
        }
    }

    #[test]
    fn a_head_is_partial_up_to_its_last_byte() {
        let text = "GET /g/k HTTP/1.1\r\nhost: h\r\nx:\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(plain(&text[..end]), Scan::Partial, "{:?}", &text[..end]);
        }
        assert_eq!(quick(text), Some("/g/k"));
    }

    #[test]
    fn a_fragment_is_noticed() {
        let scan = plain("GET /g/a#b HTTP/1.1\r\n\r\n");
        assert_eq!(scan, Scan::Plain { length: 23, quick: None, has_fragment: true });
    }

    /// Pieces of requests, whole and broken, in any order.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("\r\n"),
            2 => Just("GET /g/k HTTP/1.1\r\n"),
            2 => Just("x: y\r\n"),
            1 => Just("content-length: 3\r\n"),
            1 => Just("transfer-encoding:chunked\r\n"),
            1 => Just("Host: h"),
            1 => Just("\n"),
            1 => Just("\r"),
            1 => Just(" "),
            1 => Just("\t"),
            1 => Just(":"),
            1 => Just("DELETE * HTTP/1.1"),
            1 => Just("\u{1}"),
            1 => Just("\u{e9}"),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_plain_is_the_same_request_to_hypers_parser(
            text in prop_oneof![
                pieces(),
                pieces().prop_map(|rest| format!("GET /g/k HTTP/1.1\r\n{rest}\r\n")),
                "GET /[ -~]{0,8} HTTP/1.1\r\n([!-~]{1,4}: ?[ -~]{0,4}\r\n){0,3}\r\n",
            ],
        ) {
            if let Scan::Plain { length, quick, .. } = plain(&text) {
                let mut headers = [httparse::EMPTY_HEADER; 128];
                let mut request = httparse::Request::new(&mut headers);
                let parsed = request.parse(text.as_bytes());
                prop_assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
                prop_assert_eq!(request.version, Some(1));
                if let Some(path) = quick {
                    prop_assert_eq!(request.method, Some("GET"));
                    prop_assert_eq!(request.path, Some(path));
                    let uri: ::http::Uri = path.parse().expect("a path that http takes");
                    prop_assert_eq!(uri.path(), path);
                }
                for header in request.headers {
                    prop_assert!(!is_one_of(header.name.as_bytes(), &BODY));
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = scan(&bytes, LIMITS);
        }
    }
}
