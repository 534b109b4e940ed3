//! The client's side of DICT (RFC 2229), over anything that reads and writes.
//!
//! The server speaks first; then every command is one line, and every answer
//! begins with a line of three digits. Commands may be sent before earlier
//! answers have been read.
//!
//! Invariants, whatever a server sends:
//! - a line and an answer are bounded, before they are kept;
//! - after a failure for which [`Failure::is_final`] holds, nothing more is
//!   read: what follows could be taken for the answer to another word.

use std::io::{self, BufRead, BufReader, Read, Write};

/// The longest command, CRLF included (RFC 2229, section 2.3).
const COMMAND_BYTES_MAX: usize = 1024;

/// The longest line of an answer. The RFC allows 1,024 characters, which are
/// up to four bytes each.
const LINE_BYTES_MAX: usize = 4 * 1024 + 2;

/// The largest answer to one command. The longest articles of the usual
/// dictionaries are well under 1 MiB.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many commands may wait for their answers. They fit any socket's buffer
/// (16 KiB), so that we never wait for a server that waits for us to read.
const PIPELINED_MAX: usize = 16;

/// The definitions of one word, or `None` for a word nobody defines.
pub(crate) type Definitions = Option<Vec<u8>>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A deadline passed.
    TimedOut,
    /// The server hung up in the middle.
    Closed,
    /// The connection broke, or never came about.
    Io(io::Error),
    /// The server is overloaded or shutting down (4xx).
    Busy(String),
    /// The server wants nothing to do with us (530 to 532).
    Denied(String),
    /// The server does not know the database or the strategy (550, 551).
    BadDatabase(String),
    /// The server refused the command (any other 5xx).
    Refused(String),
    /// What the server sent is not DICT.
    Malformed(String),
    /// What the server sent is larger than any answer should be.
    TooLarge,
}

impl Failure {
    /// Whether the connection is of no use any more.
    fn is_final(&self) -> bool {
        !matches!(self, Self::BadDatabase(_) | Self::Refused(_))
    }

    /// The same failure for another word of the batch it ended.
    fn again(&self) -> Self {
        match self {
            Self::TimedOut => Self::TimedOut,
            Self::Io(error) => Self::Io(io::Error::new(error.kind(), error.to_string())),
            Self::Busy(reply) => Self::Busy(reply.clone()),
            // Whatever was wrong with the one answer, the others may be fine
            // on another connection.
            _ => Self::Closed,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// The command that asks for `word`, line end included. The error says why
/// this can be no word.
///
/// The word is quoted, so that nothing in it ends the argument; control
/// characters, which could end the line, are refused.
pub(crate) fn define(database: &str, word: &str) -> Result<String, String> {
    if word.is_empty() {
        return Err("the empty word has no definition".into());
    }
    if word.chars().any(char::is_control) {
        return Err("a word has no control characters".into());
    }
    let mut command = format!("DEFINE {database} \"");
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            command.push('\\');
        }
        command.push(c);
    }
    command.push_str("\"\r\n");
    if command.len() > COMMAND_BYTES_MAX {
        return Err(format!("the word is too long: a command has {COMMAND_BYTES_MAX} bytes"));
    }
    Ok(command)
}

/// A conversation with a server that has greeted us.
#[derive(Debug)]
pub(crate) struct Session<S: Read + Write> {
    stream: BufReader<S>,
    /// How many bytes the current answer may still have.
    budget: usize,
}

impl<S: Read + Write> Session<S> {
    /// Reads the greeting.
    pub(crate) fn begin(stream: S) -> Result<Self, Failure> {
        let mut session = Self { stream: BufReader::new(stream), budget: ANSWER_BYTES_MAX };
        match session.status()? {
            (220, _) => Ok(session),
            reply => Err(failure(&reply)),
        }
    }

    /// Tells the server who we are. A server that does not care is fine.
    pub(crate) fn introduce(&mut self, client: &str) -> Result<(), Failure> {
        self.send(&format!("CLIENT {client}\r\n"))?;
        match self.status()? {
            (250 | 500..=503, _) => Ok(()),
            reply => Err(failure(&reply)),
        }
    }

    /// Sends a command made by [`define`].
    pub(crate) fn send(&mut self, command: &str) -> Result<(), Failure> {
        let stream = self.stream.get_mut();
        stream.write_all(command.as_bytes())?;
        Ok(stream.flush()?)
    }

    /// Sends commands made by [`define`] ahead of their answers. The results
    /// are in order, one for each command; once the connection is lost, that
    /// is the result of all the rest.
    pub(crate) fn pipeline<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a String>,
    ) -> Vec<Result<Definitions, Failure>> {
        let commands: Vec<&str> = commands.into_iter().map(String::as_str).collect();
        let mut answers = Vec::with_capacity(commands.len());
        'connection: for part in commands.chunks(PIPELINED_MAX) {
            let mut lost = self.send(&part.concat()).err();
            for _ in part {
                let answer = match lost.take() {
                    Some(failure) => Err(failure),
                    None => self.definitions(),
                };
                let is_final = answer.as_ref().is_err_and(Failure::is_final);
                answers.push(answer);
                if is_final {
                    break 'connection;
                }
            }
        }
        while answers.len() < commands.len() {
            let last = match answers.last() {
                Some(Err(failure)) => failure.again(),
                _ => Failure::Closed,
            };
            answers.push(Err(last));
        }
        answers
    }

    /// Reads the answer to one [`define`]: the definitions of the first
    /// database that has any, as the crate's documentation lays them out.
    pub(crate) fn definitions(&mut self) -> Result<Definitions, Failure> {
        self.budget = ANSWER_BYTES_MAX;
        let announced = match self.status()? {
            (150, text) => {
                let count = text.split_whitespace().next().and_then(|n| n.parse::<usize>().ok());
                count.ok_or_else(|| Failure::Malformed(format!("150 {text}")))?
            }
            (552, _) => return Ok(None),
            reply => return Err(failure(&reply)),
        };
        let mut value = Vec::new();
        let mut first_database = None;
        let mut count = 0;
        loop {
            match self.status()? {
                (151, text) => {
                    let database = database_of(&text)
                        .ok_or_else(|| Failure::Malformed(format!("151 {text}")))?;
                    let first = first_database.get_or_insert_with(|| database.to_owned());
                    let is_wanted = first == database;
                    if is_wanted && count > 0 {
                        value.push(b'\n');
                    }
                    self.text(is_wanted.then_some(&mut value))?;
                    count += 1;
                }
                (250, _) if count == announced && count > 0 => return Ok(Some(value)),
                (250, _) => {
                    return Err(Failure::Malformed(format!(
                        "{count} definitions came, {announced} were announced"
                    )));
                }
                reply => return Err(unexpected(&reply)),
            }
        }
    }

    /// Says goodbye, and does not wait for the reply: the server may as well
    /// see the connection end.
    pub(crate) fn quit(mut self) {
        let _ = self.send("QUIT\r\n");
    }

    /// Reads text up to the dot that ends it, into `value` if there is one.
    fn text(&mut self, mut value: Option<&mut Vec<u8>>) -> Result<(), Failure> {
        loop {
            let line = self.line()?;
            // A leading dot of the text itself is doubled.
            let line = match line.as_slice() {
                [b'.'] => return Ok(()),
                [b'.', b'.', ..] => &line[1..],
                line => line,
            };
            if let Some(value) = &mut value {
                value.extend_from_slice(line);
                value.push(b'\n');
            }
        }
    }

    /// Reads a reply: its code, and the text after it.
    fn status(&mut self) -> Result<(u16, String), Failure> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let malformed = || Failure::Malformed(format!("{:?} is not a reply", shortened(&text)));
        let (code, rest) = text.split_at_checked(3).ok_or_else(malformed)?;
        if !code.bytes().all(|b| b.is_ascii_digit()) || !(rest.is_empty() || rest.starts_with(' '))
        {
            return Err(malformed());
        }
        let code = code.parse().map_err(|_| malformed())?;
        Ok((code, rest.trim().to_owned()))
    }

    /// Reads a line, without its end.
    fn line(&mut self) -> Result<Vec<u8>, Failure> {
        let limit = LINE_BYTES_MAX.min(self.budget);
        let mut line = Vec::new();
        self.stream.by_ref().take(limit as u64).read_until(b'\n', &mut line)?;
        self.budget -= line.len();
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            return Err(if line.len() == limit { Failure::TooLarge } else { Failure::Closed });
        }
        // Some servers end a line with a bare LF.
        line.pop_if(|byte| *byte == b'\r');
        Ok(line)
    }
}

/// What a reply means that is none of the good ones.
fn failure(reply: &(u16, String)) -> Failure {
    let (code, text) = reply;
    let said = format!("{code} {}", shortened(text));
    match code {
        400..=499 => Failure::Busy(said),
        530..=532 => Failure::Denied(said),
        550 | 551 => Failure::BadDatabase(said),
        500..=599 => Failure::Refused(said),
        _ => unexpected(reply),
    }
}

/// What a reply means in a place where it makes no sense. An overloaded server
/// may give up anywhere.
fn unexpected((code, text): &(u16, String)) -> Failure {
    let said = format!("{code} {}", shortened(text));
    match code {
        400..=499 => Failure::Busy(said),
        _ => Failure::Malformed(format!("{said:?} is not expected here")),
    }
}

/// As much of a server's text as belongs into a message.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(120).map_or(text, |(end, _)| &text[..end])
}

/// The database in `"word" database "description"`. The quotes inside the word
/// are escaped by some servers and not by others, so it is found by what is
/// around it: a quote and a space before, a space and a quote after.
fn database_of(text: &str) -> Option<&str> {
    if !text.starts_with('"') {
        return text.split(' ').nth(1).filter(|database| !database.is_empty());
    }
    text.match_indices("\" ").find_map(|(at, _)| {
        let (database, after) = text[at + 2..].split_once(' ').unwrap_or((&text[at + 2..], ""));
        let is_name = !database.is_empty() && !database.contains('"');
        (is_name && (after.is_empty() || after.starts_with('"'))).then_some(database)
    })
}

#[cfg(test)]
mod tests;
