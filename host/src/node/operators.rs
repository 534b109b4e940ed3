//! The admin surface of a node while it runs, and what operators can have done.

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Map, Value, json};
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle, time::Instant};
use tracing::warn;

use super::{
    explain,
    reload::Wanted,
    report::{PluginReloaded, ReloadError, Reloaded},
    running::Running,
};
use crate::front::{
    Readiness,
    admin::{self, AdminState, Refusal, RefusalKind},
};

/// The admin surface while it runs.
#[derive(Debug)]
pub(super) struct Operators {
    pub(super) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Operators {
    pub(super) fn start(
        listener: tokio::net::TcpListener,
        running: &Arc<Running>,
        readiness: &Readiness,
        started: Instant,
        control: &Handle,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let state = Arc::new(state(running, readiness, started));
        let task = control.spawn(admin::serve(listener, state, shutdown));
        Ok(Self { address, stop, task })
    }

    pub(super) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            warn!(%error, "The admin surface ended badly.");
        }
    }
}

fn state(running: &Arc<Running>, readiness: &Readiness, started: Instant) -> AdminState {
    let [plugins, last_reload, reload, reload_plugin, cluster, explaining] =
        [(); 6].map(|()| Arc::clone(running));
    AdminState {
        groups: Arc::clone(&running.groups),
        metrics: running.metrics.clone(),
        readiness: readiness.clone(),
        plugins: Box::new(move || plugins.plugin_status()),
        cluster: Box::new(move || {
            cluster.membership.as_ref().map_or(Value::Null, |membership| membership.describe())
        }),
        explain: Box::new(move |group, key| {
            let running = Arc::clone(&explaining);
            Box::pin(async move { Ok(explain::explain(&running, &group, &key).await) })
        }),
        last_reload: Box::new(move || last_reload.last_reload()),
        reload: Box::new(move || {
            let running = Arc::clone(&reload);
            Box::pin(async move {
                let reloaded = running.reload(Wanted::Settings, "an operator").await;
                reloaded.as_ref().map(document).map_err(refusal)
            })
        }),
        reload_plugin: Box::new(move |name| {
            let running = Arc::clone(&reload_plugin);
            Box::pin(async move {
                let reloaded = running.reload_plugin(&name).await;
                reloaded.map(plugin_document).map_err(|error| {
                    let mut refusal = refusal(&error);
                    refusal.members.insert("plugin".to_owned(), json!(name));
                    if let Some(serving) = running.serving(&name) {
                        refusal.members.extend(serving);
                    }
                    refusal
                })
            })
        }),
        started,
    }
}

fn document(reloaded: &Reloaded) -> Value {
    json!({ "outcome": reloaded.outcome(), "changes": reloaded.changes })
}

fn plugin_document(reloaded: PluginReloaded) -> Value {
    serde_json::to_value(reloaded).unwrap_or_default()
}

fn refusal(error: &ReloadError) -> Refusal {
    let kind = match error {
        ReloadError::Settings(_) => RefusalKind::BadSettings,
        ReloadError::Refused(_) => RefusalKind::Refused,
        ReloadError::UnknownPlugin { .. } => RefusalKind::UnknownPlugin,
        ReloadError::NoSettings => RefusalKind::NoSettings,
        ReloadError::Busy | ReloadError::Stopping => RefusalKind::Busy,
    };
    let mut members = Map::new();
    if matches!(kind, RefusalKind::BadSettings | RefusalKind::Refused) {
        members.insert("outcome".to_owned(), json!("refused"));
        members.insert("reasons".to_owned(), json!(error.reasons()));
    }
    Refusal { kind, detail: error.to_string(), members }
}

impl Running {
    /// What of the plugin `name` serves, for whoever was told that its file does not.
    fn serving(&self, name: &str) -> Option<Map<String, Value>> {
        let status = self.parts().ok()?.plugins.get(name)?.status();
        Some(Map::from_iter([
            ("digest".to_owned(), json!(status.digest)),
            ("generation".to_owned(), json!(status.generation)),
        ]))
    }
}
