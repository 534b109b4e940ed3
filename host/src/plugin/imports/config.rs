//! `config`: the plugin's own settings, the secret ones among them.

use wasmtime::Result;

use crate::plugin::{bindings::contract::cachecluster::plugin::config::Host, store::State};

impl Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        let environment = &self.environment;
        let setting = environment.config.get(&key).map(String::as_str);
        Ok(setting.or_else(|| environment.secrets.get(&key)).map(str::to_owned))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>> {
        let environment = &self.environment;
        let settings = environment.config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let all = settings.chain(environment.secrets.iter());
        Ok(all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}
