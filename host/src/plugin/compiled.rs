//! A component that is compiled once and tried under many settings: for whoever makes a
//! plugin. A node loads each plugin by its settings alone.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;
use wasmtime::component::Component;

use super::{
    LoadError, Plugin, PluginHost, Problem, component,
    loader::{Code, Recipe, abandoned},
    reload::Rollout,
};
use crate::config;

/// A component that was read, checked and compiled, and of which nothing runs.
#[derive(Clone)]
pub struct Compiled {
    component: Component,
    digest: String,
    bytes: u64,
    took: Duration,
}

impl Compiled {
    /// `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The interfaces it imports, and those it exports, with their versions.
    pub fn interfaces(&self) -> (Vec<String>, Vec<String>) {
        component::interfaces(self.component.engine(), &self.component)
    }

    /// How long it took to compile, or to find what was compiled before.
    pub fn took(&self) -> Duration {
        self.took
    }
}

impl PluginHost {
    /// Reads the file at `path`, checks its interfaces and compiles it.
    ///
    /// # Errors
    /// As [`PluginHost::load`], with what can be found without settings.
    pub async fn compile(&self, path: &Path) -> Result<Compiled, Problem> {
        let file = path.to_owned();
        let reading = self.loader.fills.spawn_blocking(move || component::open(&file));
        let source = reading.await.map_err(|error| abandoned(&error))??;
        component::check_source(&source, None)?;
        let (digest, bytes) = (source.digest.clone(), source.bytes.len() as u64);
        let began = Instant::now();
        let component = self.loader.compile(source).await?;
        Ok(Compiled { component, digest, bytes, took: began.elapsed() })
    }

    /// Loads the plugin `name` from what is compiled: links it under `settings`, whose
    /// source and digest are not looked at, and tries an instance. Relative paths begin at
    /// `base_dir`.
    ///
    /// # Errors
    /// As [`PluginHost::load`].
    pub async fn load_compiled(
        &self,
        name: &str,
        compiled: &Compiled,
        settings: &config::Plugin,
        base_dir: &Path,
    ) -> Result<Arc<Plugin>, LoadError> {
        let identity = self.loader.identity(name);
        let recipe = Recipe { settings: Arc::new(settings.clone()), base_dir: base_dir.into() };
        let code = Code::Compiled(compiled.component.clone(), compiled.digest.clone());
        let loader = &self.loader;
        match loader.generation(&identity, &recipe, code, None).await {
            Ok(generation) => {
                let fills = loader.fills.clone();
                let rollout =
                    Rollout::fixed(Arc::clone(loader), identity.clone(), recipe, generation);
                Ok(Plugin::new(rollout, identity, fills))
            }
            Err(problem) => Err(LoadError { plugin: name.to_owned(), problem }),
        }
    }
}
