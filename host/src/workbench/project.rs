//! What a verb is given: the file of a component, or a project's folder or manifest.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{
    manifest::{FILE_NAME, Manifest, names_origin, with_origin},
    origin::Origin,
};
use crate::config::{Plugin, Report, Reports};

/// Size of the largest manifest: its bodies are the size of test data.
const FILE_MAX: u64 = 4 << 20;

/// A plugin while it is made.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder in which the manifest stands, or the component where there is none.
    pub folder: PathBuf,
    /// The component's file.
    pub component: PathBuf,
    /// What the author wrote down.
    pub manifest: Option<Manifest>,
    /// What is doubtful about the manifest.
    pub warnings: Vec<Report>,
}

/// Why there is no project.
#[derive(Debug, Error)]
pub enum ProjectError {
    /// Neither a component nor a project is there.
    #[error("there is no {}; name a component's file or a folder with a {FILE_NAME}", .0.display())]
    NotFound(PathBuf),
    /// A folder without a manifest.
    #[error(
        "{} has no {FILE_NAME}; make a project with `cachecluster plugin new`, or name the \
         component's file",
        .0.display()
    )]
    NoManifest(PathBuf),
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The manifest is wrong.
    #[error("{0}")]
    Manifest(Reports),
}

impl Project {
    /// Opens what `path` names: a folder with a manifest, a manifest, or else the file
    /// of a component. Whether the component is there is not looked at.
    ///
    /// # Errors
    /// Nothing is there, or its manifest is wrong.
    pub fn open(path: &Path) -> Result<Self, ProjectError> {
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ProjectError::NotFound(path.to_owned()),
            _ => ProjectError::Unreadable { path: path.to_owned(), error },
        })?;
        if metadata.is_dir() {
            return Self::from_manifest(&path.join(FILE_NAME));
        }
        if path.extension().is_some_and(|extension| extension == "toml") {
            return Self::from_manifest(path);
        }
        let folder = folder_of(path);
        Ok(Self { folder, component: path.to_owned(), manifest: None, warnings: Vec::new() })
    }

    fn from_manifest(path: &Path) -> Result<Self, ProjectError> {
        let folder = folder_of(path);
        let unreadable = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => ProjectError::NoManifest(folder.clone()),
            _ => ProjectError::Unreadable { path: path.to_owned(), error },
        };
        if fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
            let error = io::Error::other(format!("it is larger than {FILE_MAX} bytes"));
            return Err(ProjectError::Unreadable { path: path.to_owned(), error });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let (manifest, warnings) =
            Manifest::read(&text, &path.to_string_lossy()).map_err(ProjectError::Manifest)?;
        let component = folder.join(&manifest.plugin.component);
        Ok(Self { folder, component, manifest: Some(manifest), warnings })
    }

    /// Its name: the manifest's, else that of the component's file.
    pub fn name(&self) -> String {
        if let Some(manifest) = &self.manifest {
            return manifest.plugin.name.clone();
        }
        self.component.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The plugin as a node's settings would have it, but for
    /// [`ORIGIN`](super::manifest::ORIGIN), which still stands for an address.
    pub fn settings(&self) -> Plugin {
        let settings = self.manifest.as_ref().map(Manifest::settings);
        Plugin {
            source: self.component.clone(),
            ..settings.unwrap_or_else(|| Plugin::new(&self.component))
        }
    }

    /// Plays the origin of the manifest, and gives `settings` with its address where
    /// they speak of it; no origin where they do not. Within a tokio runtime.
    ///
    /// # Errors
    /// There is no port for it.
    pub async fn play(&self, settings: &Plugin) -> io::Result<(Option<Origin>, Plugin)> {
        if !names_origin(settings) {
            return Ok((None, settings.clone()));
        }
        let routes = self.manifest.as_ref().map_or(&[][..], |manifest| &manifest.origin);
        let origin = Origin::of_routes(routes).await?;
        let settings = with_origin(settings, origin.address());
        Ok((Some(origin), settings))
    }
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
