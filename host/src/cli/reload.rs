//! `reload`: has the node that runs here read its settings again, and says what changed.
//!
//! The node is asked on its `[admin]` address. Standard output has one line a change;
//! why nothing changed goes to standard error.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::{
    Exit, Failure,
    operator::{Which, ask, encoded, plain, refused, word},
    output::{complain, print},
};

/// What to reload, and where.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only look at the file of this plugin, and not at the settings
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// Has the node at `admin`, or the one whose settings are in `file`, look at the file of the
/// plugin `name`.
pub(super) fn reload_plugin(
    name: &str,
    admin: Option<SocketAddr>,
    file: &Path,
) -> Result<(), Failure> {
    reload(&Options { plugin: Some(name.to_owned()), which: Which { admin } }, file)
}

/// Reloads the node whose settings are in `file`.
pub(super) fn reload(options: &Options, file: &Path) -> Result<(), Failure> {
    let target = match &options.plugin {
        Some(name) => format!("/plugins/{}/reload", encoded(name.as_bytes())),
        None => "/reload".to_owned(),
    };
    let (status, answer) = ask(&Method::POST, &target, options.which, file)?;
    if status.is_success() { tell(&answer) } else { Err(refusal(status, &answer)) }
}

/// Prints what was done.
fn tell(answer: &Value) -> Result<(), Failure> {
    let mut text = String::new();
    let mut line = |action: &str, subject: &str, detail: &str| {
        let line = format!("{action:<9}  {subject:<20}  {detail}");
        _ = writeln!(text, "{}", plain(line.trim_end()));
    };
    let mut is_refused = false;
    if let Some(plugin) = answer["plugin"].as_str() {
        let detail = format!("{}, generation {}", word(&answer["digest"]), answer["generation"]);
        line(word(&answer["outcome"]), &format!("plugin {plugin}"), &detail);
    } else if let Some(changes) = answer["changes"].as_array().filter(|it| !it.is_empty()) {
        for change in changes {
            is_refused |= change["action"] == "refused";
            line(word(&change["action"]), word(&change["subject"]), word(&change["detail"]));
        }
    } else {
        line(word(&answer["outcome"]), "", word(&answer["detail"]));
    }
    print(&text)?;
    if is_refused { Err(Failure::Said(Exit::Failed)) } else { Ok(()) }
}

/// Says why nothing was done.
fn refusal(status: StatusCode, problem: &Value) -> Failure {
    let reasons = problem["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    for reason in reasons {
        let reason = plain(word(reason));
        let lead = if reason.starts_with("error") || reason.starts_with("warning") {
            ""
        } else {
            "error: "
        };
        complain(&format!("{lead}{reason}\n"));
    }
    if !reasons.is_empty() {
        complain("Nothing has changed: the node goes on with what it has.");
        let is_config = word(&problem["type"]).ends_with(":bad-settings");
        return Failure::Said(if is_config { Exit::BadConfig } else { Exit::Failed });
    }
    refused(status, problem)
}
