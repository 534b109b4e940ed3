//! Names and addresses of a list, looked up again and again: what a name means changes, and a
//! name that means nothing yet may do so in a moment. All that a name means is found, as the
//! names of headless services mean all of their members.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use tokio::{net::lookup_host, sync::watch, time::timeout};

use super::{Failed, Found, Source};
use crate::config::cluster::seed;

/// Time for one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that one name may mean.
const ADDRESSES_MAX: usize = 1_024;

/// Members by name or address, from a list that may be replaced.
pub struct Names {
    list: watch::Receiver<Vec<String>>,
    known: Known,
}

impl Names {
    /// What `list` names at each moment; an entry without a port has `port`.
    pub fn new(list: watch::Receiver<Vec<String>>, port: u16) -> Self {
        Self { list, known: Known::new(port) }
    }
}

#[async_trait]
impl Source for Names {
    fn kind(&self) -> &'static str {
        "seeds"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        let list = self.list.borrow_and_update().clone();
        Ok(self.known.look_up(&list).await)
    }

    async fn changed(&mut self) {
        if self.list.changed().await.is_err() {
            // Nobody is left who could replace it.
            std::future::pending::<()>().await;
        }
    }
}

/// What names meant when they last meant something.
pub(super) struct Known {
    port: u16,
    by_name: HashMap<String, Vec<SocketAddr>>,
}

impl Known {
    /// Nothing yet. An entry without a port has `port`.
    pub(super) fn new(port: u16) -> Self {
        Self { port, by_name: HashMap::new() }
    }

    /// What `names` mean. One that fails for a moment means what it meant before.
    pub(super) async fn look_up(&mut self, names: &[String]) -> Found {
        let (mut known, mut trouble) = (HashMap::new(), Vec::new());
        for name in names {
            let meant = match addresses(name, self.port).await {
                Ok(addresses) => addresses,
                Err(reason) => {
                    trouble.push(format!("{name}: {reason}"));
                    self.by_name.remove(name).unwrap_or_default()
                }
            };
            known.insert(name.clone(), meant);
        }
        self.by_name = known;
        let places = self.by_name.values().flatten().copied().collect();
        Found { places, trouble: (!trouble.is_empty()).then(|| trouble.join("; ")) }
    }
}

async fn addresses(text: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let seed = seed(text).map_err(|error| error.to_string())?;
    let looked_up = lookup_host((seed.host.as_str(), seed.port.unwrap_or(port)));
    let found = timeout(LOOKUP_TIMEOUT, looked_up).await;
    let found = found.map_err(|_elapsed| "no answer in time".to_owned())?;
    Ok(found.map_err(|error| error.to_string())?.take(ADDRESSES_MAX).collect())
}
