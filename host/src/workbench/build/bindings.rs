//! What a project imports and exports, and both in its language.
//!
//! The project's folder `wit` has one world, which is the plugin's. For languages whose
//! own tools do not read it (C, Go), the bindings are generated here, by the generators
//! of the version that reads the same components as this program: no other tool has to
//! be installed, and none can be of the wrong version.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::StringEncoding;
use wit_parser::{Resolve, WorldId};

use super::BuildError;

/// The folder of the generated files, within the project's.
const FOLDER: &str = "bindings";

/// The interfaces of a project.
pub(super) struct Interfaces {
    resolve: Resolve,
    world: WorldId,
}

impl Interfaces {
    /// Reads the folder `wit` of the project in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, BuildError> {
        let path = folder.join("wit");
        let wit = |error: anyhow::Error| BuildError::Wit(format!("{error:#}"));
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(&path).map_err(wit)?;
        let world = resolve.select_world(&[package], None).map_err(wit)?;
        Ok(Self { resolve, world })
    }

    /// Name of the world.
    pub(super) fn name(&self) -> &str {
        &self.resolve.worlds[self.world].name
    }

    /// Writes the bindings for C; gives their folder.
    pub(super) fn write_c(self, folder: &Path) -> Result<PathBuf, BuildError> {
        let options = wit_bindgen_c::Opts {
            // What a call only borrows, it need not give back by itself.
            autodrop_borrows: wit_bindgen_c::Enabled::Yes,
            ..wit_bindgen_c::Opts::default()
        };
        self.write(folder, options.build().as_mut(), &[], |_, text| text.to_vec())
    }

    /// Writes the bindings for the Go module `module`, together with the little runtime
    /// they use, so that nothing has to be downloaded.
    pub(super) fn write_go(self, folder: &Path, module: &str) -> Result<PathBuf, BuildError> {
        let options = wit_bindgen_go::Opts {
            format: wit_bindgen_go::Format::False,
            pkg_name: Some(format!("{module}/{FOLDER}")),
            export_pkg_name: Some(module.to_owned()),
            ..wit_bindgen_go::Opts::default()
        };
        let ours = format!("{module}/{FOLDER}/wit");
        let rename = |name: &str, text: &[u8]| {
            if !has_extension(name, "go") {
                return text.to_vec();
            }
            String::from_utf8_lossy(text).replace(GO_RUNTIME, &ours).into_bytes()
        };
        self.write(folder, options.build().as_mut(), &GO_FILES, rename)
    }

    /// Puts the interfaces into the core module `module`, for a toolchain that does not.
    pub(super) fn embed(&self, module: &mut Vec<u8>) -> Result<(), BuildError> {
        let encoding = StringEncoding::UTF8;
        wit_component::embed_component_metadata(module, &self.resolve, self.world, encoding)
            .map_err(|error| BuildError::Wit(format!("{error:#}")))
    }

    fn write(
        self,
        folder: &Path,
        generator: &mut dyn WorldGenerator,
        more: &[(&str, &str)],
        edit: impl Fn(&str, &[u8]) -> Vec<u8>,
    ) -> Result<PathBuf, BuildError> {
        let mut files = Files::default();
        let Self { mut resolve, world } = self;
        generator
            .generate(&mut resolve, world, &mut files)
            .map_err(|error| BuildError::Wit(format!("{error:#}")))?;
        for (name, text) in more {
            files.push(name, text.as_bytes());
        }
        let bindings = folder.join(FOLDER);
        // What an earlier version of the interfaces left would be compiled too.
        match fs::remove_dir_all(&bindings) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(BuildError::Unwritable { path: bindings, error });
            }
            _ => {}
        }
        for (name, text) in files.iter() {
            let path = bindings.join(name);
            let written = fs::create_dir_all(path.parent().unwrap_or(&bindings))
                .and_then(|()| fs::write(&path, edit(name, text)));
            written.map_err(|error| BuildError::Unwritable { path, error })?;
        }
        Ok(bindings)
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Where generated Go looks for its runtime.
const GO_RUNTIME: &str = "go.bytecodealliance.org/pkg/wit";

/// The runtime of generated Go: see the files themselves.
const GO_FILES: [(&str, &str); 5] = [
    ("wit/runtime/runtime.go", include_str!("go/runtime.go")),
    ("wit/types/option.go", include_str!("go/option.go")),
    ("wit/types/result.go", include_str!("go/result.go")),
    ("wit/types/tuple.go", include_str!("go/tuple.go")),
    ("wit/types/unit.go", include_str!("go/unit.go")),
];
