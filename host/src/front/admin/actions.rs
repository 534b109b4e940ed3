//! What an operator has done to the node, and how the answer is put.
//!
//! The surface does not know how a reload is done: it is given a future that says what
//! came of it, and waits for it, but not for ever.

use std::time::Duration;

use ::http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{
    super::{body::ReplyBody, problem::Problem, target},
    AdminState,
    routes::json,
};
use crate::group::BoxFuture;

/// How long a request waits for a reload: more than a large component takes to compile
/// and to be tried. The reload goes on after that.
const PATIENCE: Duration = Duration::from_mins(3);

/// Wait that is suggested to who comes while too many wait already.
const RETRY_BUSY: Duration = Duration::from_secs(5);

/// A reload under way: what it did, as a JSON value of its maker's choice, or why
/// nothing was done. It goes on when nobody waits for it.
pub type Acting = BoxFuture<'static, Result<Value, Refusal>>;

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What programs tell it by.
    pub kind: RefusalKind,
    /// What it is, and what would help.
    pub detail: String,
    /// What else there is to say.
    pub members: Map<String, Value>,
}

/// Kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no plugin of this name.
    UnknownPlugin,
    /// The settings cannot be used.
    BadSettings,
    /// The settings, or a plugin, do not work.
    Refused,
    /// The node has nowhere to read its settings from.
    NoSettings,
    /// Too many reloads wait already, or the node is stopping.
    Busy,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, kind, title) = match refusal.kind {
            RefusalKind::UnknownPlugin => {
                (StatusCode::NOT_FOUND, "unknown-plugin", "Unknown plugin")
            }
            RefusalKind::BadSettings => (StatusCode::CONFLICT, "bad-settings", "Bad settings"),
            RefusalKind::Refused => (StatusCode::CONFLICT, "reload-refused", "Reload refused"),
            RefusalKind::NoSettings => {
                (StatusCode::NOT_IMPLEMENTED, "no-settings", "No settings to reload")
            }
            RefusalKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy"),
        };
        let members = refusal.members.into_iter();
        let problem = members
            .fold(Self::new(status, kind, title, refusal.detail), |problem, (name, value)| {
                problem.with(&name, value)
            });
        if refusal.kind == RefusalKind::Busy { problem.retry(RETRY_BUSY) } else { problem }
    }
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// The settings, and every plugin's file.
    Reload,
    /// The file of the plugin of this name, as the path writes it.
    ReloadPlugin(&'a str),
}

impl<'a> Action<'a> {
    /// The action that is done at `path`.
    pub(super) fn at(path: &'a str) -> Option<Self> {
        if path == "/reload" {
            return Some(Self::Reload);
        }
        path.strip_prefix("/plugins/")?.strip_suffix("/reload").map(Self::ReloadPlugin)
    }

    pub(super) fn begin(self, state: &AdminState) -> Result<Acting, Problem> {
        Ok(match self {
            Self::Reload => (state.reload)(),
            Self::ReloadPlugin(name) => (state.reload_plugin)(target::name(name)?.into_owned()),
        })
    }
}

/// Waits for what came of it.
pub(super) async fn answer(acting: Acting) -> Result<Response<ReplyBody>, Problem> {
    match timeout(PATIENCE, acting).await {
        Ok(Ok(done)) => Ok(json(StatusCode::OK, &done)),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(_elapsed) => {
            let detail = "the reload goes on; the log and /status will tell what came of it";
            let pending = json!({ "outcome": "pending", "detail": detail });
            Ok(json(StatusCode::ACCEPTED, &pending))
        }
    }
}
