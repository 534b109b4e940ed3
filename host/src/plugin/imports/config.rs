//! `config`: the plugin's own settings.

use wasmtime::Result;

use crate::plugin::{bindings::contract::cachecluster::plugin::config::Host, store::State};

impl Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        Ok(self.environment.config.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>> {
        let config = &self.environment.config;
        Ok(config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
