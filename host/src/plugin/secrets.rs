//! The secrets of a plugin: read when it is loaded, handed to its guests by name, and
//! taken out of every text in which a guest repeats them.
//!
//! Invariants:
//! - a value is in no log, error, metric or status of the node, whoever writes it there:
//!   a guest's texts pass [`Secrets::redact`] on their way, and this type shows names only;
//! - a plugin gets the secrets its settings name, and no others.
//!
//! What is found is the value as it is, upper and lower case alike, because names of
//! hosts lose their case on the way. A guest that encodes a secret first gets it past
//! this; what stops it from carrying one away is its network grants.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    env, fmt,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::error::Problem;
use crate::config::{
    self,
    secrets::{SecretSource, read as parse},
};

/// Bytes of one secret: a chain of certificates with its key fits.
const SECRET_MAX: u64 = 64 << 10;

/// Bytes from which on a value is taken out of texts. A shorter one stands in ordinary
/// words by chance, and would tell by its absence what it is.
const REDACTED_MIN: usize = 6;

/// The secrets of one plugin.
#[derive(Default)]
pub(super) struct Secrets {
    by_name: BTreeMap<String, String>,
    search: Option<Search>,
}

/// Finds the values in texts.
struct Search {
    values: AhoCorasick,
    /// What to write in the place of each value.
    marks: Vec<String>,
}

impl Secrets {
    /// Reads what the settings of a plugin name. Relative paths begin at `base_dir`.
    pub(super) fn read(settings: &config::Plugin, base_dir: &Path) -> Result<Self, Problem> {
        let mut by_name = BTreeMap::new();
        for (name, source) in &settings.secrets {
            let problem = |reason| Problem::Secret { name: name.clone(), reason };
            if settings.config.contains_key(name) {
                return Err(problem("it is a setting as well; remove it from `config`".to_owned()));
            }
            let source = parse(source)
                .map_err(|refusal| problem(format!("{}; {}", refusal.title, refusal.help)))?;
            by_name.insert(name.clone(), value(&source, base_dir).map_err(problem)?);
        }
        Ok(Self::new(by_name))
    }

    fn new(by_name: BTreeMap<String, String>) -> Self {
        let (mut needles, mut marks) = (Vec::new(), Vec::new());
        for (name, value) in &by_name {
            for needle in pieces(value) {
                if !needles.contains(&needle) {
                    needles.push(needle);
                    marks.push(format!("[secret {name}]"));
                }
            }
        }
        let search = (!needles.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .ascii_case_insensitive(true)
                // The fastest kind takes hundreds of bytes for each byte of a value.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(&needles)
        });
        let search = match search {
            Some(Ok(values)) => Some(Search { values, marks }),
            // It fails beyond billions of bytes only, and the values are bounded.
            Some(Err(_)) | None => None,
        };
        Self { by_name, search }
    }

    /// The secrets of a test.
    #[cfg(test)]
    pub(super) fn of(values: &[(&str, &str)]) -> Self {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::new(values.iter().map(pair).collect())
    }

    /// The secret `name`, for the guest.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// Every secret with its name, for the guest.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_name.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `text` with the name of each secret in the place of its value.
    pub(super) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(search) = &self.search else { return Cow::Borrowed(text) };
        if !search.values.is_match(text) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(search.values.replace_all(text, &search.marks))
    }

    /// How many bytes at the end of `bytes` may be the beginning of a secret, so that a
    /// text which is cut there would show a part of it.
    pub(super) fn begun(&self, bytes: &[u8]) -> usize {
        if self.search.is_none() {
            return 0;
        }
        let is_begun = |tail: &[u8]| {
            self.by_name.values().flat_map(|value| pieces(value)).any(|piece| {
                let piece = piece.as_bytes();
                piece.len() > tail.len() && piece[..tail.len()].eq_ignore_ascii_case(tail)
            })
        };
        let longest = self.by_name.values().map(String::len).max().unwrap_or(0);
        let first = bytes.len() - longest.min(bytes.len());
        (first..bytes.len()).find(|at| is_begun(&bytes[*at..])).map_or(0, |at| bytes.len() - at)
    }
}

/// What of `value` is taken out of texts: all of it, and each of its lines, because a
/// log has one line a record and a key of many lines comes in pieces.
fn pieces(value: &str) -> impl Iterator<Item = &str> {
    let lines = value.lines().map(str::trim);
    [value].into_iter().chain(lines).filter(|piece| piece.len() >= REDACTED_MIN)
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// Reads one value, or says why there is none and what would help.
fn value(source: &SecretSource, base_dir: &Path) -> Result<String, String> {
    let (value, place) = match source {
        SecretSource::Env(variable) => {
            let value = env::var_os(variable).ok_or_else(|| {
                format!(
                    "there is no variable `{variable}` in the node's environment; set it where \
                     the node is started"
                )
            })?;
            (value.into_encoded_bytes(), format!("the variable `{variable}`"))
        }
        SecretSource::File(path) => {
            let path = base_dir.join(path);
            let shown = path.display();
            let bytes = file(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!(
                    "there is no file {shown}; create it, or correct the path, which is relative \
                     to the config file"
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("this user may not read {shown}; change its owner or its mode")
                }
                _ => format!("cannot read {shown}: {error}"),
            })?;
            (bytes, format!("the file {shown}"))
        }
    };
    let mut value = String::from_utf8(value).map_err(|_| format!("{place} is not UTF-8 text"))?;
    // Editors and `echo` end a file with a newline that is no part of the secret.
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    if value.len() as u64 > SECRET_MAX {
        return Err(format!("{place} has more than {} KiB; a secret is shorter", SECRET_MAX >> 10));
    }
    if value.is_empty() {
        return Err(format!("{place} is empty; put the secret there, or remove the setting"));
    }
    Ok(value)
}

fn file(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: to open a named pipe is to wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    // The most there may be, a newline, and one byte that says that there is more.
    File::open(path)?.take(SECRET_MAX + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        Secrets::of(values)
    }

    fn read(folder: &Path, source: &str) -> Result<Secrets, String> {
        let mut settings = config::Plugin::new("x.wasm");
        settings.secrets.insert("token".to_owned(), source.to_owned());
        Secrets::read(&settings, folder).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_secret_is_replaced_by_its_name_wherever_it_stands() {
        let secrets =
            secrets(&[("token", "s3cr3t-Token"), ("longer", "s3cr3t-token-2"), ("pin", "1234")]);
        for (text, redacted) in [
            ("nothing", "nothing"),
            ("s3cr3t-Token", "[secret token]"),
            ("as3cr3t-tokenb S3CR3T-TOKEN", "a[secret token]b [secret token]"),
            ("s3cr3t-token-2", "[secret longer]"),
            ("猫s3cr3t-Token猫", "猫[secret token]猫"),
            (
                "pin 1234 is too short to be told from a number",
                "pin 1234 is too short to be told from a number",
            ),
        ] {
            assert_eq!(secrets.redact(text), redacted);
        }
    }

    #[test]
    fn a_secret_of_many_lines_is_replaced_line_by_line_too() {
        let secrets = secrets(&[("key", "-----BEGIN KEY-----\nMIIB\nVwIBADAN\n")]);
        assert_eq!(secrets.redact("line: VwIBADAN"), "line: [secret key]");
        assert_eq!(secrets.redact("-----BEGIN KEY-----\nMIIB\nVwIBADAN\n"), "[secret key]");
    }

    #[test]
    fn the_beginning_of_a_secret_is_noticed_at_the_end_of_a_text() {
        let secrets = secrets(&[("token", "abcabd-123")]);
        for (text, begun) in [
            ("", 0),
            ("xyz", 0),
            ("xa", 1),
            ("xabcab", 5),
            ("xabcabd-12", 9),
            ("abcabd-123", 0),
            ("xABCA", 4),
        ] {
            assert_eq!(secrets.begun(text.as_bytes()), begun, "{text}");
        }
        assert_eq!(Secrets::default().begun(b"abc"), 0);
    }

    #[test]
    fn what_is_shown_of_secrets_is_their_names() {
        let secrets = secrets(&[("token", "s3cr3t-Token")]);
        assert_eq!(format!("{secrets:?}"), r#"{"token"}"#);
    }

    #[test]
    fn a_file_is_read_up_to_one_newline() {
        let folder = tempfile::tempdir().expect("a folder");
        for (text, value) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a ", " a "),
        ] {
            fs::write(folder.path().join("token"), text).expect("written");
            let secrets = read(folder.path(), "file:token").expect(text);
            assert_eq!(secrets.get("token"), Some(value), "{text:?}");
            assert_eq!(secrets.get("other"), None);
        }
        let longest = "x".repeat(64 << 10);
        fs::write(folder.path().join("token"), format!("{longest}\r\n")).expect("written");
        assert_eq!(read(folder.path(), "file:token").expect("fits").get("token"), Some(&*longest));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_setting_and_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("empty"), "\n").expect("written");
        fs::write(path("large"), "x".repeat((64 << 10) + 1)).expect("written");
        fs::write(path("binary"), [0xff, 0xfe]).expect("written");
        for (source, said) in [
            ("file:missing", "create it"),
            ("file:empty", "is empty"),
            ("file:large", "more than 64 KiB"),
            ("file:binary", "not UTF-8"),
            ("file:.", "not a regular file"),
            ("env:NO_SUCH_VARIABLE_HERE", "set it where the node is started"),
            ("hunter2", "env:VARIABLE"),
        ] {
            let problem = read(folder.path(), source).expect_err(source);
            assert!(problem.contains(said) && problem.contains("secrets.token"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        assert!(read(folder.path(), "env:PATH").is_ok());
    }

    #[test]
    fn a_name_is_a_setting_or_a_secret() {
        let mut settings = config::Plugin::new("x.wasm");
        settings.secrets.insert("token".to_owned(), "env:PATH".to_owned());
        settings.config.insert("token".to_owned(), "x".to_owned());
        let problem = Secrets::read(&settings, Path::new(".")).expect_err("both").to_string();
        assert!(problem.contains("secrets.token") && problem.contains("config"), "{problem}");
    }
}
