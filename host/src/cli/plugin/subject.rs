//! What the verbs of `plugin` are given: a plugin, and what it is set and granted.

use std::{
    io,
    path::{Path, PathBuf},
};

use cachecluster::{
    config::{Config, LogFormat, Plugin, Wasm},
    workbench::{
        Workbench,
        project::{Project, ProjectError},
    },
};
use clap::Args;

use super::{Exit, Failure};
use crate::cli::{
    output::{complain, is_colored},
    start_logging,
};

/// Which plugin.
#[derive(Debug, Args)]
pub(super) struct Subject {
    /// A component, a project's folder, or its manifest
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
}

/// What a plugin is set and granted, beside what its manifest says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings and grants, beside those of the manifest")]
pub(super) struct Grants {
    /// A setting of the plugin, as in [config]; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// An origin that it may reach, as `https://api.example.com`
    #[arg(long, value_name = "ORIGIN")]
    allow_http: Vec<String>,
    /// A host and port that it may reach, as dict.example:2628
    #[arg(long, value_name = "HOST:PORT")]
    allow_tcp: Vec<String>,
    /// A range of special addresses that it may reach, as 127.0.0.0/8
    #[arg(long, value_name = "RANGE")]
    allow_private: Vec<String>,
}

/// How a verb reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// For machines: one JSON document
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Subject {
    /// The plugin at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Opens it, and says what is doubtful about its manifest.
    pub(super) fn open(&self) -> Result<Project, Failure> {
        let is_colored = is_colored(&io::stderr());
        match Project::open(&self.path) {
            Ok(project) => {
                for warning in &project.warnings {
                    complain(&format!("{}\n", warning.render(is_colored)));
                }
                Ok(project)
            }
            Err(ProjectError::Manifest(reports)) => Err(Failure::Settings(reports)),
            Err(error @ (ProjectError::NotFound(_) | ProjectError::NoManifest(_))) => {
                complain(&format!("error: {error}"));
                Err(Failure::Said(Exit::Usage))
            }
            Err(error) => Err(Failure::Other(error.into())),
        }
    }
}

impl Grants {
    /// The settings of `project` with these over them.
    pub(super) fn over(&self, project: &Project) -> Plugin {
        let mut settings = project.settings();
        settings.config.extend(self.set.iter().cloned());
        settings.network.http.extend(self.allow_http.iter().cloned());
        settings.network.tcp.extend(self.allow_tcp.iter().cloned());
        settings.network.allow_private.extend(self.allow_private.iter().cloned());
        settings
    }
}

/// The workbench, with what it and the guests log on standard error.
pub(super) fn workbench(filter: &str) -> anyhow::Result<Workbench> {
    let mut log = Config::default().log;
    filter.clone_into(&mut log.filter);
    log.format = LogFormat::Text;
    _ = start_logging(&log);
    Ok(Workbench::start(&Wasm::default())?)
}
