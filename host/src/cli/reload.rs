//! `reload`: has the node that runs here read its settings again, and says what changed.
//!
//! The node is asked on its `[admin]` address. Standard output has one line a change;
//! why nothing changed goes to standard error.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Exit, Failure,
    output::{complain, print},
    read,
};

/// Time to reach the node, which is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for its answer: it waits for its plugins for up to three minutes itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(200);

/// Size of its answer.
const ANSWER_MAX: usize = 1 << 20;

/// What to reload, and where.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only look at the file of this plugin, and not at the settings
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Where the node serves operators, if not where the settings say
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Has the node at `admin`, or the one whose settings are in `file`, look at the file of the
/// plugin `name`.
pub(super) fn reload_plugin(
    name: &str,
    admin: Option<SocketAddr>,
    file: &Path,
) -> Result<(), Failure> {
    reload(&Options { plugin: Some(name.to_owned()), admin }, file)
}

/// Reloads the node whose settings are in `file`.
pub(super) fn reload(options: &Options, file: &Path) -> Result<(), Failure> {
    let address = match options.admin {
        Some(address) => reachable(address),
        None => reachable(read(file)?.config.admin.listen),
    };
    if address.port() == 0 {
        return Err(anyhow!(
            "`[admin] listen` has port 0, so that only the node knows its address; name the one \
             that its log tells with --admin"
        )
        .into());
    }
    let target = match &options.plugin {
        Some(name) => format!("/plugins/{}/reload", encoded(name)),
        None => "/reload".to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let (status, answer) = runtime.block_on(post(address, &target)).with_context(|| {
        format!(
            "no node answers operators at {address}; is it running, with this `[admin] listen`? \
             Name another address with --admin"
        )
    })?;
    if status.is_success() { tell(&answer) } else { Err(refusal(status, &answer)) }
}

/// An address that can be connected to: a wildcard is this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing to a string does not fail.
            _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

async fn post(address: SocketAddr, target: &str) -> anyhow::Result<(StatusCode, Value)> {
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let socket = socket.map_err(|_elapsed| anyhow!("it does not accept within 5 s"))??;
    let asked = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let request =
            Request::post(target).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        connection.abort();
        let Ok(answer) = serde_json::from_slice(&body) else {
            bail!("what answers there is not a cachecluster node: its answer is not JSON");
        };
        Ok((head.status, answer))
    };
    let asked = timeout(ANSWER_TIMEOUT, asked).await;
    asked.map_err(|_elapsed| anyhow!("it does not answer within {} s", ANSWER_TIMEOUT.as_secs()))?
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
    match word(&problem["detail"]) {
        "" => anyhow!("the node answers {status}").into(),
        detail => anyhow!("{}", plain(detail)).into(),
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text from elsewhere without what would steer a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_through_loopback() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:9081"), "127.0.0.1:9081");
        assert_eq!(reached("[::]:9081"), "[::1]:9081");
        assert_eq!(reached("10.0.0.7:1"), "10.0.0.7:1");
    }

    #[test]
    fn names_and_texts_are_made_harmless() {
        assert_eq!(encoded("a-b_c.d"), "a-b_c.d");
        assert_eq!(encoded("../x?"), "..%2Fx%3F");
        assert_eq!(plain("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\nc");
    }
}
