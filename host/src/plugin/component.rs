//! From a file to a compiled component, with every check that needs no instance.
//!
//! Compiling is the one step whose cost the sandbox does not bound, so what can be
//! refused by its first bytes, its size or its digest is refused before it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmtime::{
    Engine,
    component::{Component, types::ComponentItem},
};

use super::{
    bindings::{PACKAGE, TRACK},
    componentize::{self, componentize},
    error::Problem,
    fault::{chain_text, guest_text},
    imports::OFFERED,
};

/// Size of the largest component we compile: guests that carry a language runtime
/// have 10 to 30 MiB.
pub(super) const FILE_MAX: u64 = 64 << 20;

/// A component's bytes with their digest.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) bytes: Bytes,
    /// `sha256:` and 64 hexadecimal digits.
    pub(super) digest: String,
}

/// Reads `path`, whatever it holds.
pub(super) fn open(path: &Path) -> Result<Source, Problem> {
    let bytes = read_bounded(path)?;
    Ok(Source { digest: digest(&bytes), bytes: bytes.into() })
}

/// Checks what the bytes of `source` alone tell.
pub(super) fn check_source(source: &Source, pinned: Option<&str>) -> Result<(), Problem> {
    if let Some(expected) = pinned
        && !expected.eq_ignore_ascii_case(&source.digest)
    {
        return Err(Problem::DigestMismatch {
            actual: source.digest.clone(),
            expected: expected.to_owned(),
        });
    }
    check_header(&source.bytes)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Problem::NotFound(path.to_owned()),
        _ => Problem::Unreadable { path: path.to_owned(), error },
    };
    // Asked before it is opened: to open a named pipe is to wait for its writer.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let error = io::Error::other("it is not a regular file");
        return Err(Problem::Unreadable { path: path.to_owned(), error });
    }
    let too_large = |bytes| Problem::TooLarge { bytes, max: FILE_MAX };
    if metadata.len() > FILE_MAX {
        return Err(too_large(metadata.len()));
    }
    // The file may grow while it is read.
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// A digest in eight bytes: its first. Never 0, which stands for no digest.
pub(super) fn short(digest: &str) -> u64 {
    let digits = digest.rsplit(':').next().and_then(|digits| digits.get(..16));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0).max(1)
}

/// The digest of `bytes`, as settings and operators write it: `sha256:` and 64 hexadecimal
/// digits.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    text
}

fn check_header(bytes: &[u8]) -> Result<(), Problem> {
    match bytes {
        [] => Err(Problem::Empty),
        // What follows the magic bytes: version in the low half, layer in the high.
        [0, b'a', b's', b'm', a, b, c, d, ..] => match u32::from_le_bytes([*a, *b, *c, *d]) {
            0x0001_000d => Ok(()),
            0x0000_0001 if componentize::has_interfaces(bytes) => Ok(()),
            0x0000_0001 => Err(Problem::CoreModule),
            version => Err(Problem::UnknownVersion { version }),
        },
        [0, b'a', b's', b'm', ..] => Err(Problem::Invalid("it ends within its header".to_owned())),
        [0x7f, b'E', b'L', b'F', ..] if Engine::detect_precompiled(bytes).is_some() => {
            Err(Problem::Precompiled)
        }
        [0x7f, b'E', b'L', b'F', ..] => Err(Problem::NotWasm { what: "a native program" }),
        [0x1f, 0x8b, ..] => Err(Problem::NotWasm { what: "a gzip archive" }),
        _ if is_text(bytes) => Err(Problem::NotWasm { what: "a text file" }),
        _ => Err(Problem::NotWasm { what: "some other file" }),
    }
}

/// Whether the file begins like text; a character may be cut at the end.
fn is_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(512)];
    let valid = std::str::from_utf8(start).map_or_else(|error| error.valid_up_to(), str::len);
    let is_plain = |b: &u8| !b.is_ascii_control() || b.is_ascii_whitespace();
    start.len() - valid < 4 && start.iter().all(is_plain)
}

/// Compiles `source`, made a component first if it is a core module. Takes seconds for a
/// large component: not for a serving thread.
pub(super) fn compile(engine: &Engine, source: &Source) -> Result<Component, Problem> {
    let bytes = componentize(&source.bytes)?;
    let component = Component::from_binary(engine, &bytes).map_err(|error| {
        let text = chain_text(&error);
        // The pool's own check, whose error has no type of its own.
        let is_too_much = text.contains("exceeds the") && !text.contains("(at offset");
        if is_too_much {
            Problem::Resources(text)
        } else if text.contains("component model async feature") {
            Problem::Async(text)
        } else {
            Problem::Invalid(text)
        }
    })?;
    // Now rather than with the first call.
    component
        .initialize_copy_on_write_image()
        .map_err(|error| Problem::Resources(chain_text(&error)))?;
    Ok(component)
}

/// Checks the names of what `component` needs and gives: wasmtime would find the same
/// faults, but in words that name neither the track nor the remedy.
pub(super) fn check_interfaces(engine: &Engine, component: &Component) -> Result<(), Problem> {
    let (imports, exports) = interfaces(engine, component);
    for interface in imports.iter().chain(&exports) {
        let name = Name::parse(interface);
        if name.package == PACKAGE && !name.is_track(TRACK) {
            return Err(Problem::WrongTrack { interface: guest_text(interface) });
        }
    }
    for interface in imports {
        let name = Name::parse(&interface);
        if !OFFERED.iter().any(|(package, track)| name.package == *package && name.is_track(track))
        {
            // Some kinds of names may hold any character.
            return Err(Problem::Import { interface: guest_text(&interface) });
        }
    }
    if !exports.iter().any(|export| {
        let name = Name::parse(export);
        name.package == PACKAGE && name.interface == "getter"
    }) {
        return Err(Problem::NoGetter);
    }
    Ok(())
}

/// The names of the interfaces that `component` imports, and of those that it exports.
pub(super) fn interfaces(engine: &Engine, component: &Component) -> (Vec<String>, Vec<String>) {
    let ty = component.component_type();
    let imports = ty
        .imports(engine)
        .filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
        .map(|(name, _)| name.to_owned());
    (imports.collect(), ty.exports(engine).map(|(name, _)| name.to_owned()).collect())
}

/// The parts of `namespace:package/interface@version`.
struct Name<'a> {
    package: &'a str,
    interface: &'a str,
    version: &'a str,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Self {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let (package, interface) = path.split_once('/').unwrap_or((path, ""));
        Self { package, interface, version }
    }

    fn is_track(&self, track: &str) -> bool {
        self.version
            .strip_prefix(track)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let problem = |bytes: &[u8]| check_header(bytes).expect_err("refused").to_string();
        assert!(problem(b"").contains("empty"));
        assert!(problem(b"(component)\n").contains("a text file"));
        assert!(problem(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(problem(b"\0asm\x02\0\x01\0").contains("unknown version"));
        assert!(problem(b"\0asm\x0d").contains("truncated"));
        assert!(problem(b"\x7fELF\x02\x01\x01").contains("native program"));
        assert!(problem(b"\x1f\x8b\x08").contains("gzip"));
        assert!(problem(&[0xff; 64]).contains("some other file"));
        check_header(b"\0asm\x0d\0\x01\0").expect("a component");
    }

    #[test]
    fn a_precompiled_artefact_is_refused_by_name() {
        let engine = Engine::default();
        let artefact = engine.precompile_component(b"\0asm\x0d\0\x01\0").expect("compiled");
        assert!(matches!(check_header(&artefact), Err(Problem::Precompiled)));
    }

    #[test]
    fn tracks_are_compared_by_their_numbers() {
        assert!(Name::parse("wasi:io/poll@0.2.6").is_track("0.2"));
        assert!(!Name::parse("wasi:io/poll@0.20.0").is_track("0.2"));
        assert!(!Name::parse("wasi:io/poll@0.3.0").is_track("0.2"));
        assert!(!Name::parse("wasi:io/poll").is_track("0.2"));
    }
}
