//! From a granted destination to a connection.
//!
//! A name is looked up once. Its addresses are checked, and one of those that passed is
//! dialled: there is no second lookup whose answer could be another.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{AddressFilter, Denials, resolver::Resolver};
use crate::config::grants::Host;

/// Where an HTTP connection leads: connections to the same origin serve one another's
/// requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) is_https: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Origin {
    /// Host and port as in a URL, the port only if it is not the scheme's own.
    pub(super) fn authority(&self) -> String {
        let host = match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(IpAddr::V4(ip)) => ip.to_string(),
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        let default = if self.is_https { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    /// The origin as it is granted.
    pub(super) fn text(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum DialError {
    /// Every address is in a range that is not granted. The text is for the operator.
    #[error("{0}")]
    Prohibited(String),
    /// The name has no address.
    #[error("the name does not resolve: {0}")]
    Unresolved(io::Error),
    /// No address let itself be connected to.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// It took too long.
    #[error("connecting took too long")]
    TimedOut,
    /// The other side is not trusted, or does not speak TLS.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The connection ended within the TLS handshake.
    #[error("the connection broke within the TLS handshake: {0}")]
    Broken(io::Error),
}

/// What HTTP is spoken over.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to what a plugin is granted; whether it is must have been asked before.
pub(super) struct Dialer {
    pub(super) resolver: Resolver,
    pub(super) filter: AddressFilter,
    pub(super) denials: Arc<Denials>,
    /// Whom to trust; `None` where no https is granted.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// Connects to `origin` by `deadline`.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        deadline: Instant,
    ) -> Result<Box<dyn Io>, DialError> {
        let connecting = async {
            let addresses = self.addresses(&origin.host).await?;
            let stream = reach(&addresses, origin.port, deadline).await?;
            match &self.tls {
                Some(tls) if origin.is_https => {
                    let connector = TlsConnector::from(Arc::clone(tls));
                    let stream = connector.connect(server_name(&origin.host)?, stream).await;
                    Ok(Box::new(stream.map_err(tls_error)?) as Box<dyn Io>)
                }
                None if origin.is_https => {
                    Err(DialError::Tls(rustls::Error::General("no https is granted".to_owned())))
                }
                _ => Ok(Box::new(stream) as Box<dyn Io>),
            }
        };
        timeout_at(deadline, connecting).await.unwrap_or(Err(DialError::TimedOut))
    }

    /// The addresses of `host` that may be dialled, at least one.
    pub(super) async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, DialError> {
        let (found, name) = match host {
            Host::Ip(ip) => (vec![*ip], None),
            Host::Name(name) => {
                let found = self.resolver.look_up(name).await.map_err(DialError::Unresolved)?;
                (found, Some(name))
            }
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for ip in found {
            // What an address carries is what it leads to, and what is dialled.
            let ip = ip.to_canonical();
            match self.filter.check(ip) {
                Ok(()) => allowed.push(ip),
                Err(refusal) => refused = Some((ip, refusal)),
            }
        }
        match refused {
            _ if !allowed.is_empty() => Ok(allowed),
            Some((ip, refusal)) => {
                let destination = match name {
                    Some(name) => format!("{name} at {ip}"),
                    None => ip.to_string(),
                };
                Err(DialError::Prohibited(self.denials.address(&destination, &refusal)))
            }
            None => Err(DialError::Unresolved(io::ErrorKind::NotFound.into())),
        }
    }
}

/// Connects to the first of `addresses` that answers. Each has its share of the time, so
/// that one which swallows packets does not use up all of it.
async fn reach(addresses: &[IpAddr], port: u16, deadline: Instant) -> Result<TcpStream, DialError> {
    let mut last = DialError::TimedOut;
    for (tried, ip) in addresses.iter().enumerate() {
        let now = Instant::now();
        let untried = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share: Duration = deadline.saturating_duration_since(now) / untried;
        match timeout_at(now + share, TcpStream::connect((*ip, port))).await {
            Ok(Ok(stream)) => {
                // A request is written whole; to wait for more of it is to wait for
                // nothing. A socket that does not take the option still works.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Ok(Err(error)) => last = DialError::Unreachable(error),
            Err(_elapsed) => last = DialError::TimedOut,
        }
    }
    Err(last)
}

fn server_name(host: &Host) -> Result<ServerName<'static>, DialError> {
    match host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| {
            DialError::Tls(rustls::Error::General(format!("no certificate can name it: {error}")))
        }),
    }
}

/// Finds the TLS error in what the connector, which speaks of input and output, says.
fn tls_error(error: io::Error) -> DialError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => DialError::Tls(tls.clone()),
        None => DialError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(is_https: bool, host: &str, port: u16) -> Origin {
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::ip);
        Origin { is_https, host, port }
    }

    #[test]
    fn an_authority_has_the_port_if_it_is_not_the_schemes() {
        for (origin, text) in [
            (origin(true, "a.example", 443), "https://a.example"),
            (origin(true, "a.example", 80), "https://a.example:80"),
            (origin(false, "a.example", 80), "http://a.example"),
            (origin(false, "::1", 8080), "http://[::1]:8080"),
            (origin(false, "::ffff:10.0.0.1", 80), "http://10.0.0.1"),
        ] {
            assert_eq!(origin.text(), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_answers_is_reached_past_one_that_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        // Nobody listens on the second loopback address.
        let addresses = ["127.0.0.2", "127.0.0.1"].map(|ip| ip.parse().expect(ip));
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = reach(&addresses, port, deadline).await.expect("connected");
        assert_eq!(stream.peer_addr().expect("a peer").ip(), addresses[1]);
        let refused = reach(&addresses[..1], port, deadline).await;
        assert!(matches!(refused, Err(DialError::Unreachable(_))), "{refused:?}");
    }
}
