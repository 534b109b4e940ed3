//! The server's side of DICT (RFC 2229), without a socket: a line in, a reply out.
//!
//! Invariants:
//! - every reply ends in CRLF, and no line of text in it can be taken for the end of
//!   the text: a leading dot is doubled;
//! - a reply depends on nothing but the dictionary and the line.

use std::fmt::Write as _;

use super::dictionary::{Database, Dictionary};

/// The longest command, CRLF included (section 2.3).
pub(super) const COMMAND_BYTES_MAX: usize = 1024;

/// The first line a client sees.
pub(super) const BANNER: &str = "220 cachecluster demo dictionary <demo@localhost>\r\n";
/// The only line a client sees when there are too many.
pub(super) const BUSY: &str = "420 too many connections, try again later\r\n";
/// The last line after a command that never ends.
pub(super) const TOO_LONG: &str = "500 the command is too long\r\n";

const HELP: &str = "\
DEFINE database word            look up a word; ! is the first database, * is all
MATCH database strategy word    words that match; strategies are exact and prefix
SHOW DB | STRAT | SERVER        what there is
SHOW INFO database              about one database
CLIENT text                     introduce yourself
STATUS                          whether the server is well
HELP                            this text
QUIT                            end the connection";

/// What to send for one line, and what it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) text: String,
    /// What was asked of the dictionary, if anything was.
    pub(super) question: Option<String>,
    /// Whether the connection ends here.
    pub(super) is_last: bool,
}

impl Reply {
    fn line(text: impl Into<String>) -> Self {
        Self { text: text.into() + "\r\n", question: None, is_last: false }
    }

    /// A status line, a text, and the final status.
    fn text(status: &str, lines: &str) -> Self {
        Self::line(format!("{status}\r\n{}250 ok", stuffed(lines)))
    }
}

/// Answers one line, its CRLF removed.
pub(super) fn answer(dictionary: &Dictionary, line: &[u8]) -> Reply {
    let Ok(line) = std::str::from_utf8(line) else {
        return Reply::line("501 the command is not UTF-8");
    };
    let Some(words) = words(line) else {
        return Reply::line("501 a quote is not closed");
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [command, arguments @ ..] = words.as_slice() else {
        return Reply::line("500 no command");
    };
    match (command.to_ascii_uppercase().as_str(), arguments) {
        ("DEFINE", [database, word]) => define(dictionary, database, word),
        ("MATCH", [database, strategy, word]) => matches(dictionary, database, strategy, word),
        ("SHOW", [what, arguments @ ..]) => show(dictionary, what, arguments),
        ("CLIENT", [_, ..]) => Reply::line("250 ok"),
        ("STATUS", []) => Reply::line("210 well"),
        ("HELP", []) => Reply::text("113 help text follows", HELP),
        ("QUIT", []) => Reply { is_last: true, ..Reply::line("221 goodbye") },
        ("DEFINE" | "MATCH" | "CLIENT" | "STATUS" | "HELP" | "QUIT" | "SHOW", _) => {
            Reply::line("501 wrong number of parameters")
        }
        ("OPTION" | "AUTH" | "SASLAUTH", _) => Reply::line("502 not implemented"),
        _ => Reply::line("500 unknown command"),
    }
}

fn define(dictionary: &Dictionary, name: &str, word: &str) -> Reply {
    let question = Some(format!("DEFINE {name} {}", quoted(word)));
    let Some(databases) = dictionary.named(name) else {
        return Reply { question, ..Reply::line("550 no such database, try SHOW DB") };
    };
    let mut found: Vec<&Database> =
        databases.iter().filter(|database| !database.define(word).is_empty()).collect();
    if name == "!" {
        found.truncate(1);
    }
    let count: usize = found.iter().map(|database| database.define(word).len()).sum();
    if count == 0 {
        return Reply { question, ..Reply::line("552 no match") };
    }
    let mut text = format!("150 {count} definitions follow\r\n");
    for database in found {
        for definition in database.define(word) {
            let description = quoted(&database.description);
            _ = write!(text, "151 {} {} {description}\r\n", quoted(word), database.name);
            text.push_str(&stuffed(definition));
        }
    }
    Reply { question, ..Reply::line(text + "250 ok") }
}

fn matches(dictionary: &Dictionary, name: &str, strategy: &str, word: &str) -> Reply {
    let question = Some(format!("MATCH {name} {strategy} {}", quoted(word)));
    let Some(databases) = dictionary.named(name) else {
        return Reply { question, ..Reply::line("550 no such database, try SHOW DB") };
    };
    let wanted = word.to_lowercase();
    let is_match: fn(&str, &str) -> bool = match strategy {
        "exact" => |known, wanted| known == wanted,
        "prefix" | "." => |known, wanted| known.starts_with(wanted),
        _ => return Reply { question, ..Reply::line("551 no such strategy, try SHOW STRAT") },
    };
    let mut lines = Vec::new();
    for database in databases {
        let words = database.words.keys().filter(|known| is_match(known, &wanted));
        let before = lines.len();
        lines.extend(words.map(|word| format!("{} {}", database.name, quoted(word))));
        if name == "!" && lines.len() > before {
            break;
        }
    }
    if lines.is_empty() {
        return Reply { question, ..Reply::line("552 no match") };
    }
    let status = format!("152 {} matches follow", lines.len());
    Reply { question, ..Reply::text(&status, &lines.join("\n")) }
}

fn show(dictionary: &Dictionary, what: &str, arguments: &[&str]) -> Reply {
    match (what.to_ascii_uppercase().as_str(), arguments) {
        ("DB" | "DATABASES", []) => {
            let line = |database: &Database| {
                format!("{} {}", database.name, quoted(&database.description))
            };
            let lines: Vec<String> = dictionary.databases.iter().map(line).collect();
            Reply::text(&format!("110 {} databases", lines.len()), &lines.join("\n"))
        }
        ("STRAT" | "STRATEGIES", []) => Reply::text(
            "111 2 strategies",
            "exact \"the word itself\"\nprefix \"words that begin so\"",
        ),
        ("SERVER", []) => Reply::text("114 about the server", "Part of `cachecluster demo`."),
        ("INFO", [name]) => match dictionary.named(name) {
            Some([database]) => Reply::text("112 about the database", &database.description),
            _ => Reply::line("550 no such database, try SHOW DB"),
        },
        _ => Reply::line("501 SHOW takes DB, STRAT, SERVER or INFO and a database"),
    }
}

/// Splits a command into its words (section 2.2): quotes of both kinds group, and a
/// backslash takes the next character as it is. `None` when a quote is left open.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => word.get_or_insert_default().push(characters.next()?),
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (' ' | '\t', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// A word as a command or a reply writes it. Control characters have no place in a
/// line, whatever a client managed to send.
fn quoted(word: &str) -> String {
    let mut quoted = String::from("\"");
    for character in word.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted + "\""
}

/// Lines of a text as they are sent, with the dot that ends them.
fn stuffed(text: &str) -> String {
    let mut stuffed = String::new();
    for line in text.split('\n') {
        let dot = if line.starts_with('.') { "." } else { "" };
        _ = write!(stuffed, "{dot}{line}\r\n");
    }
    stuffed + ".\r\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dictionary() -> Dictionary {
        Dictionary::read(
            "= a First\nword\n    one\n    .two\nword\n    three\ntwo words\n    pair\n\
             = b Second \"quoted\"\nword\n    four\nother\n    five\n",
        )
    }

    fn ask(line: &str) -> String {
        answer(&dictionary(), line.as_bytes()).text
    }

    #[test]
    fn the_first_database_answers_for_an_exclamation_mark() {
        assert_eq!(
            ask("DEFINE ! word"),
            "150 2 definitions follow\r\n151 \"word\" a \"First\"\r\none\r\n..two\r\n.\r\n\
             151 \"word\" a \"First\"\r\nthree\r\n.\r\n250 ok\r\n"
        );
        assert!(
            ask("define ! OTHER").contains("151 \"OTHER\" b \"Second \\\"quoted\\\"\"\r\nfive")
        );
    }

    #[test]
    fn every_database_answers_for_an_asterisk() {
        let text = ask("DEFINE * word");
        assert!(text.starts_with("150 3 "), "{text}");
        assert!(text.contains("four"), "{text}");
        assert!(ask("DEFINE b word").starts_with("150 1 "));
    }

    #[test]
    fn what_is_not_there_has_its_own_code() {
        assert!(ask("DEFINE ! nothing").starts_with("552 "));
        assert!(ask("DEFINE c word").starts_with("550 "));
        assert!(ask("MATCH * exact wor").starts_with("552 "));
        assert!(ask("MATCH * soundex word").starts_with("551 "));
        assert!(ask("SHOW INFO c").starts_with("550 "));
    }

    #[test]
    fn matches_are_listed_with_their_database() {
        assert_eq!(
            ask("MATCH * prefix W"),
            "152 2 matches follow\r\na \"word\"\r\nb \"word\"\r\n.\r\n250 ok\r\n"
        );
        assert!(ask("MATCH ! . w").starts_with("152 1 "));
    }

    #[test]
    fn quotes_and_backslashes_group_words() {
        for line in [
            "DEFINE ! \"two words\"",
            "DEFINE ! 'two words'",
            "DEFINE ! two\\ words",
            "DEFINE \"!\"  tw\"o wo\"rds ",
            "\tDEFINE\t!\t\"two \\words\"",
        ] {
            assert!(ask(line).starts_with("150 1 "), "{line}");
        }
        for line in ["DEFINE ! \"word", "DEFINE ! 'word", "DEFINE ! word\\"] {
            assert!(ask(line).starts_with("501 "), "{line}");
        }
    }

    #[test]
    fn a_question_is_told_as_it_was_understood() {
        let question = |line: &str| answer(&dictionary(), line.as_bytes()).question;
        assert_eq!(question("define ! word").as_deref(), Some("DEFINE ! \"word\""));
        assert_eq!(question("DEFINE ! 'a\"b'").as_deref(), Some("DEFINE ! \"a\\\"b\""));
        assert_eq!(question("SHOW DB"), None);
    }

    #[test]
    fn commands_that_are_not_understood_say_why() {
        for (line, code) in [
            ("", "500"),
            ("   ", "500"),
            ("GET / HTTP/1.1", "500"),
            ("DEFINE", "501"),
            ("DEFINE ! a b", "501"),
            ("SHOW", "501"),
            ("SHOW ME", "501"),
            ("QUIT now", "501"),
            ("OPTION MIME", "502"),
            ("AUTH a b", "502"),
        ] {
            assert!(ask(line).starts_with(code), "{line}: {}", ask(line));
        }
        assert!(answer(&dictionary(), b"DEFINE ! \xff").text.starts_with("501 "));
    }

    #[test]
    fn the_rest_of_the_commands_answer() {
        assert!(ask("SHOW DB").starts_with("110 2 "));
        assert!(ask("show strategies").starts_with("111 2 "));
        assert!(ask("SHOW INFO a").starts_with("112 "));
        assert!(ask("SHOW SERVER").starts_with("114 "));
        assert!(ask("HELP").starts_with("113 "));
        assert!(ask("STATUS").starts_with("210 "));
        assert!(ask("CLIENT some text").starts_with("250 "));
        assert!(answer(&dictionary(), b"QUIT").is_last);
    }

    proptest! {
        #[test]
        fn every_reply_is_whole_lines_and_ends_its_text(line in any::<Vec<u8>>()) {
            let text = answer(&dictionary(), &line).text;
            prop_assert!(text.ends_with("\r\n"));
            prop_assert!(text.trim_end_matches("\r\n").lines().all(|line| !line.contains('\r')));
        }
    }
}
