//! Asking the node that runs here, on its `[admin]` address.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Failure,
    output::{print, print_json},
    read,
};

/// Time to reach the node, which is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for its answer: it waits for its plugins for up to three minutes itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(200);

/// Size of its answer: a thousand members with room to spare.
const ANSWER_MAX: usize = 8 << 20;

/// Which node to ask.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Which {
    /// Where the node serves operators, if not where the settings say
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<SocketAddr>,
}

/// How to print what the node says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs: as the node says it
    Json,
}

/// What a verb that only shows something takes.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Shown {
    #[command(flatten)]
    pub(super) which: Which,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Format,
}

impl Shown {
    /// Prints what the node said: as it is, or as `told` puts it for people.
    pub(super) fn show(
        &self,
        answer: &Value,
        told: impl FnOnce(&Value) -> String,
    ) -> Result<(), Failure> {
        match self.output {
            Format::Json => print_json(answer)?,
            Format::Table => print(&told(answer))?,
        }
        Ok(())
    }
}

/// What the node answers to `method` of `target`; its refusals are answers too.
pub(super) fn ask(
    method: &Method,
    target: &str,
    which: Which,
    file: &Path,
) -> Result<(StatusCode, Value), Failure> {
    let address = match which.admin {
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let asked = runtime.block_on(request(address, method, target)).with_context(|| {
        format!(
            "no node answers operators at {address}; is it running, with this `[admin] listen`? \
             Name another address with --admin"
        )
    })?;
    Ok(asked)
}

/// What the node answers to `GET` of `target`.
pub(super) fn get(target: &str, which: Which, file: &Path) -> Result<Value, Failure> {
    let (status, answer) = ask(&Method::GET, target, which, file)?;
    if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
}

/// The refusal that `problem` is.
pub(super) fn refused(status: StatusCode, problem: &Value) -> Failure {
    match word(&problem["detail"]) {
        "" => anyhow!("the node answers {status}").into(),
        detail => anyhow!("{}", plain(detail)).into(),
    }
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

/// A name or a key as a part of a path.
pub(super) fn encoded(name: &[u8]) -> String {
    let mut text = String::new();
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing to a string does not fail.
            _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

async fn request(
    address: SocketAddr,
    method: &Method,
    target: &str,
) -> anyhow::Result<(StatusCode, Value)> {
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let socket = socket.map_err(|_elapsed| anyhow!("it does not accept within 5 s"))??;
    let asked = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(target);
        let request = request.header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
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

pub(super) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text from elsewhere without what would steer a terminal.
pub(super) fn plain(text: &str) -> String {
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
        assert_eq!(encoded(b"a-b_c.d"), "a-b_c.d");
        assert_eq!(encoded(b"../x?"), "..%2Fx%3F");
        assert_eq!(plain("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\nc");
    }
}
