use super::*;
use std::io::Cursor;

/// A server that says what it was told to and keeps what it hears.
#[derive(Debug)]
struct Script {
    says: Cursor<Vec<u8>>,
    heard: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A few bytes at a time: lines must not depend on packets.
        let few = buffer.len().min(7);
        self.says.read(&mut buffer[..few])
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn script(says: impl Into<Vec<u8>>) -> Script {
    Script { says: Cursor::new(says.into()), heard: Vec::new() }
}

/// What comes of one `DEFINE` after a good greeting.
fn answer(says: impl AsRef<[u8]>) -> Result<Definitions, Failure> {
    let says = [b"220 hello <mime> <1@host>\r\n", says.as_ref()].concat();
    Session::begin(script(says))?.definitions()
}

fn greeted(greeting: &str) -> Result<Session<Script>, Failure> {
    Session::begin(script(greeting))
}

#[test]
fn a_word_is_quoted() {
    for (word, command) in [
        ("piston", "DEFINE ! \"piston\"\r\n"),
        ("ice cream", "DEFINE ! \"ice cream\"\r\n"),
        ("naïve", "DEFINE ! \"naïve\"\r\n"),
        ("say \"hi\"", "DEFINE ! \"say \\\"hi\\\"\"\r\n"),
        ("back\\", "DEFINE ! \"back\\\\\"\r\n"),
        ("it's", "DEFINE ! \"it's\"\r\n"),
    ] {
        assert_eq!(define("!", word).as_deref(), Ok(command));
    }
}

#[test]
fn a_word_that_would_end_the_line_is_refused() {
    for word in ["", "a\r\nQUIT", "a\nb", "a\rb", "a\0b", "\t", "a\u{7f}", "a\u{85}b"] {
        assert!(define("!", word).is_err(), "{word:?}");
    }
}

#[test]
fn a_command_has_at_most_1024_bytes() {
    let around = define("!", "a").unwrap().len() - 1;
    assert_eq!(define("!", &"a".repeat(1024 - around)).unwrap().len(), 1024);
    assert!(define("!", &"a".repeat(1025 - around)).is_err());
    assert!(define("!", &"\"".repeat(600)).is_err(), "escapes count");
}

#[test]
fn each_line_ends_with_a_line_feed() {
    let value = answer(
        "150 1 definitions retrieved\r\n151 \"a\" gcide \"The Dictionary\"\r\n\
         A\r\n\r\n   b  \r\n.\r\n250 ok\r\n",
    );
    assert_eq!(value.unwrap().unwrap(), b"A\n\n   b  \n");
}

#[test]
fn a_doubled_dot_is_undone() {
    let value = answer(
        "150 1 x\r\n151 \"a\" db \"d\"\r\n..\r\n...\r\n..hidden\r\n.odd\r\nin . side\r\n.\r\n250 ok\r\n",
    );
    assert_eq!(value.unwrap().unwrap(), b".\n..\n.hidden\n.odd\nin . side\n");
}

#[test]
fn definitions_of_one_database_are_separated_by_a_blank_line() {
    let value = answer(
        "150 2 x\r\n151 \"a\" db \"d\"\r\none\r\n.\r\n151 \"A\" db \"d\"\r\ntwo\r\n.\r\n250 ok\r\n",
    );
    assert_eq!(value.unwrap().unwrap(), b"one\n\ntwo\n");
}

#[test]
fn only_the_first_database_counts() {
    let value = answer(
        "150 3 x\r\n151 \"a\" one \"d\"\r\n1\r\n.\r\n151 \"a\" two \"d\"\r\n2\r\n.\r\n\
         151 \"a\" one \"d\"\r\n3\r\n.\r\n250 ok\r\n",
    );
    assert_eq!(value.unwrap().unwrap(), b"1\n\n3\n");
}

#[test]
fn an_empty_definition_is_a_value() {
    let value = answer("150 1 x\r\n151 \"a\" db \"d\"\r\n.\r\n250 ok\r\n");
    assert_eq!(value.unwrap().unwrap(), b"");
}

#[test]
fn bare_line_feeds_and_bytes_that_are_no_text_are_taken_as_they_are() {
    let value = answer(b"150 1 x\n151 \"a\" db \"d\"\n\xff\xfe\n.\n250 ok\n");
    assert_eq!(value.unwrap().unwrap(), b"\xff\xfe\n");
}

#[test]
fn no_match_is_an_answer() {
    assert_eq!(answer("552 no match\r\n").unwrap(), None);
}

#[test]
fn replies_are_told_apart() {
    assert!(matches!(answer("550 invalid database\r\n"), Err(Failure::BadDatabase(_))));
    assert!(matches!(answer("551 invalid strategy\r\n"), Err(Failure::BadDatabase(_))));
    assert!(matches!(answer("501 syntax error\r\n"), Err(Failure::Refused(_))));
    assert!(matches!(answer("420 busy\r\n"), Err(Failure::Busy(_))));
    assert!(matches!(answer("421 closing\r\n"), Err(Failure::Busy(_))));
    assert!(matches!(greeted("420 busy\r\n"), Err(Failure::Busy(_))));
    assert!(matches!(greeted("530 access denied\r\n"), Err(Failure::Denied(_))));
    assert!(matches!(greeted("250 ok\r\n"), Err(Failure::Malformed(_))));
    assert!(matches!(greeted(""), Err(Failure::Closed)));
}

#[test]
fn an_answer_cut_short_anywhere_is_a_closed_connection() {
    let whole = "150 1 x\r\n151 \"a\" db \"d\"\r\ntext\r\n.\r\n250 ok\r\n";
    assert!(answer(whole).is_ok());
    for end in 0..whole.len() - 1 {
        let cut = answer(&whole[..end]);
        assert!(matches!(cut, Err(Failure::Closed)), "cut at {end}: {cut:?}");
    }
}

#[test]
fn garbage_is_malformed() {
    for says in [
        "hello\r\n",
        "\r\n",
        "15\r\n",
        "150x\r\n",
        "150 many\r\n",
        "+50 1\r\n",
        "\u{fffd}\u{fffd}\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "220 hello again\r\n",
        "150 1 x\r\n250 ok\r\n",
        "150 0 x\r\n250 ok\r\n",
        "150 2 x\r\n151 \"a\" db \"d\"\r\n.\r\n250 ok\r\n",
        "150 1 x\r\n151\r\n.\r\n250 ok\r\n",
        "150 1 x\r\n552 no match\r\n",
    ] {
        let got = answer(says);
        assert!(matches!(got, Err(Failure::Malformed(_))), "{says:?}: {got:?}");
    }
}

#[test]
fn a_line_without_an_end_is_too_large() {
    let says = [b"150 1 x\r\n151 \"a\" db \"d\"\r\n".as_slice(), &b"a".repeat(1 << 20)].concat();
    assert!(matches!(answer(says), Err(Failure::TooLarge)));
}

#[test]
fn an_answer_without_an_end_is_too_large() {
    let line = [[b'a'; 1000].as_slice(), b"\r\n"].concat();
    let says = [b"150 1 x\r\n151 \"a\" db \"d\"\r\n".as_slice(), &line.repeat(5000)].concat();
    assert!(matches!(answer(says), Err(Failure::TooLarge)));
}

#[test]
fn a_database_is_found_behind_any_word() {
    for (text, database) in [
        ("\"a\" gcide \"The Dictionary\"", Some("gcide")),
        ("\"say \"hi\" now\" gcide \"d\"", Some("gcide")),
        ("\"say \\\"hi\\\"\" gcide \"d\"", Some("gcide")),
        ("\"a\" gcide", Some("gcide")),
        ("a gcide \"d\"", Some("gcide")),
        ("\"a\"", None),
        ("", None),
    ] {
        assert_eq!(database_of(text), database, "{text:?}");
    }
}

#[test]
fn a_batch_is_answered_in_order_and_goes_on_after_a_refusal() {
    let says = "220 hello\r\n552 no match\r\n150 1 x\r\n151 \"b\" db \"d\"\r\nB\r\n.\r\n250 ok\r\n\
                501 syntax\r\n552 no match\r\n";
    let mut session = Session::begin(script(says)).unwrap();
    let commands = ["a", "b", "c", "d"].map(|word| define("!", word).unwrap());
    let answers = session.pipeline(&commands);
    assert!(matches!(answers[0], Ok(None)));
    assert_eq!(answers[1].as_ref().unwrap().as_deref(), Some(b"B\n".as_slice()));
    assert!(matches!(answers[2], Err(Failure::Refused(_))));
    assert!(matches!(answers[3], Ok(None)));
    assert_eq!(session.stream.get_ref().heard, commands.concat().as_bytes());
}

#[test]
fn a_batch_keeps_what_came_before_the_connection_was_lost() {
    let mut session = Session::begin(script("220 hello\r\n552 no match\r\n420 busy\r\n")).unwrap();
    let commands: Vec<String> = (0..40).map(|n| define("!", &n.to_string()).unwrap()).collect();
    let answers = session.pipeline(&commands);
    assert_eq!(answers.len(), 40);
    assert!(matches!(answers[0], Ok(None)));
    assert!(answers[1..].iter().all(|answer| matches!(answer, Err(Failure::Busy(_)))));
}
