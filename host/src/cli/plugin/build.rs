//! `plugin build`: from sources to a component, once or at each change, and into a node.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use cachecluster::workbench::{
    build::{BuildError, Tools, Watch, build as make, install},
    project::Project,
};
use clap::Args;
use tokio::{runtime::Builder, signal::ctrl_c, task::spawn_blocking};

use super::{Failure, subject::Subject};
use crate::cli::{
    output::{chain, complain, print},
    reload::reload_plugin,
};

/// What to build, and where to.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The project's folder, or its manifest
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Build again at each change of a source, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Put the component here too, where a node has it, and have the node load it
    #[arg(long, value_name = "FILE")]
    install: Option<PathBuf>,
    /// Admin address of that node [default: that of the settings, see --config]
    #[arg(long, value_name = "ADDRESS", requires = "install")]
    admin: Option<SocketAddr>,
    /// The plugin's name in that node [default: that of the manifest]
    #[arg(long = "as", value_name = "NAME", requires = "install")]
    name: Option<String>,
}

/// Builds, and goes on building if asked to. `settings` is the node's file.
pub(super) fn build(options: &Options, settings: &Path) -> Result<(), Failure> {
    let tools = Arc::new(Tools::default());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let work = {
        let (options, settings) = (options.clone(), settings.to_owned());
        let tools = Arc::clone(&tools);
        runtime.block_on(async {
            let work = spawn_blocking(move || work(&options, &settings, &tools));
            tokio::select! {
                done = work => Some(done),
                _ = ctrl_c() => None,
            }
        })
    };
    // A thread that waits for a change is not waited for.
    runtime.shutdown_background();
    if let Some(done) = work {
        return done.map_err(|error| anyhow!("the build panicked: {error}"))?;
    }
    tools.stop();
    if options.watch { Ok(()) } else { Err(BuildError::Stopped.into()) }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Other(error.into())
    }
}

fn work(options: &Options, settings: &Path, tools: &Tools) -> Result<(), Failure> {
    let project = Subject::of(&options.path).open()?;
    if !options.watch {
        return once(options, &project, settings, tools);
    }
    // Before the first build, so that no change is missed.
    let mut watch = Watch::begin(&project.folder).context("watch the sources")?;
    loop {
        // The manifest may have changed too.
        match Subject::of(&options.path)
            .open()
            .and_then(|project| once(options, &project, settings, tools))
        {
            Err(Failure::Other(error)) => complain(&format!("error: {}", chain(&error))),
            Err(Failure::Settings(reports)) => complain(&reports.render(false)),
            Ok(()) | Err(Failure::Said(_)) => {}
        }
        if !watch.wait() {
            return Err(
                anyhow!("the sources are not watched any longer: is the folder gone?").into()
            );
        }
    }
}

/// Builds once, and brings what was built to the node.
fn once(
    options: &Options,
    project: &Project,
    settings: &Path,
    tools: &Tools,
) -> Result<(), Failure> {
    let component = make(project, tools)?;
    let (file, size) = (project.component.display(), component.len());
    print(&format!("✓ build    {file}  {size} bytes\n"))?;
    let Some(path) = &options.install else { return Ok(()) };
    if !is_same(path, &project.component) {
        install(&component, path)?;
        print(&format!("✓ install  {}\n", path.display()))?;
    }
    let name = options.name.clone().unwrap_or_else(|| project.name());
    reload_plugin(&name, options.admin, settings)
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
