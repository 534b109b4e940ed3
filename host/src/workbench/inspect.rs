//! What a WebAssembly file says about itself: its interfaces as WIT, and what it is made
//! of. Nothing of it is compiled or run.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use serde::Serialize;
use thiserror::Error;
use wasmparser::{BinaryReaderError, CustomSectionReader, KnownCustom, Name, Parser, Payload};
use wit_component::WitPrinter;
use wit_parser::{
    PackageId, Resolve, WorldId, WorldKey,
    decoding::{DecodedWasm, decode},
};

use crate::plugin::{GETTER_PACKAGE, TRACK, digest};

/// Size of the largest file: well above what a node compiles, for debug builds.
const FILE_MAX: u64 = 512 << 20;

/// Characters of a name in a file that are taken.
const NAME_MAX: usize = 128;
/// Characters of a reason why a file cannot be inspected.
const REASON_MAX: usize = 1_024;

/// What the tools write that embed a world into a core module.
const EMBEDDED: &str = "component-type";

/// What a file says about itself.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// What it is.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What it imports, by name.
    pub imports: Vec<String>,
    /// What it exports, by name.
    pub exports: Vec<String>,
    /// Whether it is a getter.
    pub getter: Getter,
    /// The core modules in it.
    pub modules: Vec<Module>,
    /// Sizes of its custom sections by name, those of its modules included.
    pub custom_sections: BTreeMap<String, u64>,
    /// What it was made with: for `language`, `processed-by` and `sdk`, names and
    /// versions.
    pub producers: BTreeMap<String, BTreeMap<String, String>>,
    /// Its interfaces as WIT; none for a core module without embedded metadata.
    pub wit: Option<String>,
}

/// What a WebAssembly file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A component.
    Component,
    /// Interfaces alone: a WIT package in binary form.
    WitPackage,
    /// A core module with the world that it is to become a component of.
    EmbeddedModule,
    /// A core module and nothing else.
    Module,
}

/// Whether a file is a getter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Getter {
    /// One that this program runs.
    Known {
        /// Its version track.
        track: String,
        /// Whether it exports `batch-getter`.
        batch: bool,
        /// Whether it exports `lifecycle`.
        lifecycle: bool,
    },
    /// One of a track that this program does not speak.
    Foreign {
        /// The interface that says so.
        interface: String,
    },
    /// None.
    None,
}

/// One core module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its size.
    pub bytes: u64,
}

/// Why a file cannot be inspected.
#[derive(Debug, Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is no WebAssembly.
    #[error("{} is not WebAssembly; give the built `.wasm` file", .0.display())]
    NotWasm(PathBuf),
    /// It is damaged.
    #[error("{} is invalid or truncated: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads what the file at `path` says about itself.
///
/// # Errors
/// It cannot be read, or is no whole WebAssembly file.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    let bytes = read(path)?;
    if !bytes.starts_with(b"\0asm") {
        return Err(InspectError::NotWasm(path.to_owned()));
    }
    of_bytes(&bytes).map_err(|reason| InspectError::Invalid { path: path.to_owned(), reason })
}

fn read(path: &Path) -> Result<Vec<u8>, InspectError> {
    let unreadable = |error| InspectError::Unreadable { path: path.to_owned(), error };
    // Asked before it is opened: to open a named pipe is to wait for its writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(unreadable(io::Error::other(format!("it is larger than {FILE_MAX} bytes"))));
    }
    Ok(bytes)
}

fn of_bytes(bytes: &[u8]) -> Result<Inspection, String> {
    let mut inspection = Inspection {
        kind: Kind::Module,
        bytes: bytes.len() as u64,
        digest: digest(bytes),
        imports: Vec::new(),
        exports: Vec::new(),
        getter: Getter::None,
        modules: Vec::new(),
        custom_sections: BTreeMap::new(),
        producers: BTreeMap::new(),
        wit: None,
    };
    inspection.walk(bytes).map_err(|error| reason(&error.to_string()))?;
    if Parser::is_component(bytes) {
        match guarded(|| decode(bytes))? {
            DecodedWasm::Component(resolve, world) => {
                inspection.kind = Kind::Component;
                inspection.describe(&resolve, world)?;
            }
            DecodedWasm::WitPackage(resolve, package) => {
                inspection.kind = Kind::WitPackage;
                inspection.wit = Some(print(&resolve, package)?);
            }
        }
    } else if inspection.custom_sections.keys().any(|name| name.starts_with(EMBEDDED)) {
        let (_, embedded) = guarded(|| wit_component::metadata::decode(bytes))?;
        inspection.kind = Kind::EmbeddedModule;
        inspection.describe(&embedded.resolve, embedded.world)?;
    }
    Ok(inspection)
}

impl Inspection {
    /// Takes in what `world` says.
    fn describe(&mut self, resolve: &Resolve, world: WorldId) -> Result<(), String> {
        let world = &resolve.worlds[world];
        let name = |key: &WorldKey| tidy(&resolve.name_world_key(key));
        self.imports = world.imports.keys().map(name).collect();
        self.exports = world.exports.keys().map(name).collect();
        self.getter = getter(&self.exports);
        if let Some(package) = world.package {
            self.wit = Some(print(resolve, package)?);
        }
        Ok(())
    }

    /// Takes in what stands in the sections. Of a core module, the names of its imports
    /// and exports too; those of the modules in a component are its own affair.
    fn walk(&mut self, bytes: &[u8]) -> Result<(), BinaryReaderError> {
        let is_module = !Parser::is_component(bytes);
        // The module that each open binary is, if it is one.
        let mut open = Vec::new();
        if is_module {
            self.modules.push(Module { name: None, bytes: bytes.len() as u64 });
            open.push(Some(0));
        } else {
            open.push(None);
        }
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { unchecked_range, .. } => {
                    open.push(Some(self.modules.len()));
                    let bytes = (unchecked_range.end - unchecked_range.start) as u64;
                    self.modules.push(Module { name: None, bytes });
                }
                Payload::ComponentSection { .. } => open.push(None),
                Payload::End(_) => _ = open.pop(),
                Payload::CustomSection(section) => {
                    let size = self.custom_sections.entry(tidy(section.name())).or_default();
                    *size += section.data().len() as u64;
                    self.read_custom(&section, open.last().copied().flatten());
                }
                Payload::ImportSection(section) if is_module => {
                    for import in section.into_imports() {
                        let import = import?;
                        let (module, name) = (tidy(import.module), tidy(import.name));
                        self.imports.push(format!("{module}#{name}"));
                    }
                }
                Payload::ExportSection(section) if is_module => {
                    for export in section {
                        self.exports.push(tidy(export?.name));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in a custom section of module number `module`, as far as it can be read:
    /// nobody checks these before us.
    fn read_custom(&mut self, section: &CustomSectionReader<'_>, module: Option<usize>) {
        match section.as_known() {
            KnownCustom::Name(names) => {
                let names = names.into_iter().filter_map(Result::ok);
                let name = names.into_iter().find_map(|name| match name {
                    Name::Module { name, .. } => Some(tidy(name)),
                    _ => None,
                });
                if let Some(module) = module.and_then(|module| self.modules.get_mut(module)) {
                    module.name = name;
                }
            }
            KnownCustom::Producers(fields) => {
                for field in fields.into_iter().filter_map(Result::ok) {
                    let known = self.producers.entry(tidy(field.name)).or_default();
                    let values = field.values.into_iter().filter_map(Result::ok);
                    known.extend(values.map(|value| (tidy(value.name), tidy(value.version))));
                }
            }
            _ => {}
        }
    }

    /// What the file is, in a few words.
    pub fn kind_text(&self) -> &'static str {
        match self.kind {
            Kind::Component => "a component",
            Kind::WitPackage => "a WIT package",
            Kind::EmbeddedModule => "a core module with embedded WIT",
            Kind::Module => "a core module",
        }
    }

    /// Whether it is a getter, in a sentence.
    pub fn getter_text(&self) -> String {
        match &self.getter {
            Getter::Known { track, batch, lifecycle } => {
                let mut text = format!("a getter of track {track}");
                for (has, name) in [(*batch, "batch-getter"), (*lifecycle, "lifecycle")] {
                    if has {
                        _ = write!(text, ", with {name}");
                    }
                }
                text
            }
            Getter::Foreign { interface } => {
                format!("a getter by `{interface}`; this program speaks track {TRACK}")
            }
            Getter::None => "no getter".to_owned(),
        }
    }
}

/// What `exports` say about being a getter.
fn getter(exports: &[String]) -> Getter {
    let versions = |interface: &str| {
        let prefix = format!("{GETTER_PACKAGE}/{interface}@");
        exports.iter().find_map(|name| Some((name, name.strip_prefix(&prefix)?.to_owned())))
    };
    let Some((interface, version)) = versions("getter") else { return Getter::None };
    let track: Vec<&str> = version.splitn(3, '.').take(2).collect();
    if track.join(".") != TRACK {
        return Getter::Foreign { interface: interface.clone() };
    }
    Getter::Known {
        track: TRACK.to_owned(),
        batch: versions("batch-getter").is_some(),
        lifecycle: versions("lifecycle").is_some(),
    }
}

/// `package` as WIT, with all that it refers to.
fn print(resolve: &Resolve, package: PackageId) -> Result<String, String> {
    let others: Vec<PackageId> =
        resolve.packages.iter().map(|(id, _)| id).filter(|id| *id != package).collect();
    let mut printer = WitPrinter::default();
    printer.print(resolve, package, &others).map_err(|error| chain(&error))?;
    // Comments come from the file, and may hold anything.
    let text = printer.output.to_string();
    Ok(text.chars().filter(|c| matches!(c, '\n' | '\t') || is_harmless(*c)).collect())
}

/// What `decoded` comes to. A component may be valid and have names that WIT has no words
/// for, which the decoder answers with a panic.
fn guarded<T>(decoded: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decoded)) {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(_) => Err("its interfaces cannot be written as WIT".to_owned()),
    }
}

/// A file's own words, without what would harm a terminal.
fn tidy(text: &str) -> String {
    text.chars().filter(|c| is_harmless(*c)).take(NAME_MAX).collect()
}

/// Why something failed, in which the file's own words may stand.
fn reason(text: &str) -> String {
    text.chars().filter(|c| is_harmless(*c)).take(REASON_MAX).collect()
}

/// Whether `c` only shows: it neither moves the cursor nor turns the direction of text.
fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

fn chain(error: &anyhow::Error) -> String {
    reason(&format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An escape sequence, a new line and a mark that turns the direction of text, as
    /// the assembler reads them.
    const FORGED: &str = r"\1b[31m\0aERROR forged\e2\80\ae";

    fn is_clean(text: &str) {
        assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
    }

    #[test]
    fn a_files_own_words_cannot_take_over_the_terminal() {
        let component = format!(
            "(component
               (import \"url=<https://a.example/{FORGED}>\" (func))
               (core module $m (@custom \"{FORGED}\" \"x\")))"
        );
        let module = format!(
            "(module (import \"{FORGED}\" \"{FORGED}\" (func)) (func (export \"{FORGED}\"))
               (@custom \"{FORGED}\" \"x\"))"
        );
        for text in [component, module] {
            let bytes = wat::parse_str(text).expect("a file");
            match of_bytes(&bytes) {
                Err(reason) => is_clean(&reason),
                Ok(inspection) => {
                    assert!(!inspection.custom_sections.is_empty());
                    let names = inspection.imports.iter().chain(&inspection.exports);
                    names.chain(inspection.custom_sections.keys()).for_each(|name| is_clean(name));
                }
            }
        }
    }
}
