//! The metadata server: what an instance of Compute Engine is told about itself.
//!
//! It is asked over plain HTTP and never through a proxy. Whatever answers without its header
//! is somebody else, such as a hotel's portal, and is not believed.

use std::{fs, net::IpAddr, time::Duration};

use reqwest::{Client, StatusCode, header::ETAG};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use super::ask::{Answer, Unanswered, ask, client};

/// Where it is unless `GCE_METADATA_HOST` says otherwise. An address, which needs no resolver.
const HOST: &str = "169.254.169.254";

/// The header that marks questions and answers.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

/// Time for a question with all its repetitions.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time for one of them.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Questions for one value.
const TRIES: u32 = 5;

/// Before the second one; then twice as long.
const AGAIN: Duration = Duration::from_millis(100);

/// Bytes of a value.
const SIZE_MAX: usize = 256 << 10;

/// For how long the server holds a question for a change.
const WAIT: Duration = Duration::from_mins(1);

/// How much longer we wait for that.
const WAIT_GRACE: Duration = Duration::from_secs(10);

/// The metadata server of this instance.
#[derive(Clone, Debug)]
pub struct Metadata {
    client: Client,
    host: String,
    /// Whether there is a reason to believe that it is there.
    is_expected: bool,
}

/// Why a value is not known.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MetadataError {
    /// There is no such value.
    #[error("the metadata server knows no {0}")]
    NotThere(String),
    /// The server does not want to say it, or says something else.
    #[error("the metadata server does not tell {path}: {reason}")]
    Refused {
        /// What it was asked for.
        path: String,
        /// What it answered.
        reason: String,
    },
    /// Somebody else answers.
    #[error("{0} answers, and is not a metadata server")]
    Stranger(String),
    /// Nobody answers.
    #[error("the metadata server at {host} does not answer: {reason}")]
    Away {
        /// Where it should be.
        host: String,
        /// What happened instead.
        reason: String,
    },
}

impl Metadata {
    /// The server that the environment names, or the usual one. Nothing is asked yet.
    ///
    /// # Errors
    /// `GCE_METADATA_HOST` is not a host with a port or without, or HTTP cannot be set up.
    pub fn from_environment() -> Result<Self, String> {
        let named = std::env::var("GCE_METADATA_HOST").ok().filter(|host| !host.is_empty());
        let is_expected = named.is_some() || is_google_hardware();
        Self::new(named.as_deref().unwrap_or(HOST), is_expected)
    }

    pub(super) fn new(host: &str, is_expected: bool) -> Result<Self, String> {
        let is_host = |url: &reqwest::Url| {
            url.path() == "/" && url.query().is_none() && url.username().is_empty()
        };
        if !reqwest::Url::parse(&format!("http://{host}")).is_ok_and(|url| is_host(&url)) {
            return Err(format!(
                "GCE_METADATA_HOST={host} names no metadata server; write a host, or a host and a \
                 port, without a scheme: metadata.google.internal"
            ));
        }
        let client = client(false, CONNECT_TIMEOUT)?;
        Ok(Self { client, host: host.to_owned(), is_expected })
    }

    /// Whether this machine looks like an instance of Compute Engine, or was told that it is one.
    pub fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// The address of the interface `name`, or of the only one there is; without a name, of the
    /// first. IPv6 where it has nothing else.
    ///
    /// # Errors
    /// The server does not say.
    pub async fn address(&self, name: &str) -> Result<IpAddr, MetadataError> {
        let asked = if name.is_empty() { Some("0") } else { name.strip_prefix("nic") };
        let number = match asked {
            // Interfaces that come and go, nic0.7, stand elsewhere.
            Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return Err(MetadataError::NotThere(format!("interface {name}"))),
        };
        match self.address_of(number).await {
            Err(MetadataError::NotThere(_)) => {}
            answered => return answered,
        }
        match &self.list("instance/network-interfaces/").await?[..] {
            [only] => self.address_of(only.trim_end_matches('/')).await,
            _ => Err(MetadataError::NotThere(format!("address of nic{number}"))),
        }
    }

    async fn address_of(&self, number: &str) -> Result<IpAddr, MetadataError> {
        let interface = format!("instance/network-interfaces/{number}");
        let texts = match self.list(&format!("{interface}/ip")).await {
            Err(MetadataError::NotThere(_)) => self.list(&format!("{interface}/ipv6s")).await?,
            answered => answered?,
        };
        let address = texts.iter().find_map(|text| text.parse().ok());
        address.ok_or_else(|| MetadataError::NotThere(format!("address of nic{number}")))
    }

    /// The values at `path`, which come as lines or as JSON.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, MetadataError> {
        let text = self.get(path).await?;
        let values = text.split(|c: char| c.is_whitespace() || "[]\",".contains(c));
        Ok(values.filter(|value| !value.is_empty()).map(str::to_owned).collect())
    }

    /// The value at `path`, below `computeMetadata/v1/`.
    pub(super) async fn get(&self, path: &str) -> Result<String, MetadataError> {
        let asked = async {
            let mut pause = AGAIN;
            let mut tries = 1;
            loop {
                match self.ask(path, "", TRY_TIMEOUT).await {
                    Ok(answer) => return Ok(answer.text().trim().to_owned()),
                    Err(error @ MetadataError::Away { .. }) if tries == TRIES => return Err(error),
                    Err(MetadataError::Away { .. }) => {}
                    Err(error) => return Err(error),
                }
                tries += 1;
                sleep(pause.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
                pause *= 2;
            }
        };
        let late = |_| self.away(&Unanswered::Late(TIMEOUT).to_string());
        timeout(TIMEOUT, asked).await.map_err(late)?
    }

    /// The value at `path` as soon as it is another one than that with the tag `etag`, or after
    /// a minute; and its tag, if it has one.
    pub(super) async fn wait_for_change(
        &self,
        path: &str,
        etag: &str,
    ) -> Result<(String, Option<String>), MetadataError> {
        let seconds = WAIT.as_secs();
        let query = format!("?wait_for_change=true&last_etag={etag}&timeout_sec={seconds}");
        let answer = self.ask(path, &query, WAIT + WAIT_GRACE).await?;
        let tag =
            answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).filter(|tag| {
                !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        Ok((answer.text().trim().to_owned(), tag.map(str::to_owned)))
    }

    /// Asks once.
    async fn ask(&self, path: &str, query: &str, time: Duration) -> Result<Answer, MetadataError> {
        let url = format!("http://{}/computeMetadata/v1/{path}{query}", self.host);
        let request = self.client.get(url).header(FLAVOR.0, FLAVOR.1);
        let answer = ask(request, time, SIZE_MAX).await;
        let answer = answer.map_err(|error| self.away(&error.to_string()))?;
        let is_passing = answer.status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS]
                .contains(&answer.status);
        if is_passing {
            return Err(self.away(&format!("it says {}", answer.status)));
        }
        let flavor = answer.headers.get(FLAVOR.0).and_then(|flavor| flavor.to_str().ok());
        if flavor != Some(FLAVOR.1) {
            return Err(MetadataError::Stranger(self.host.clone()));
        }
        match answer.status {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(MetadataError::NotThere(path.to_owned())),
            status => Err(MetadataError::Refused {
                path: path.to_owned(),
                reason: format!("{status} {}", answer.beginning()),
            }),
        }
    }

    fn away(&self, reason: &str) -> MetadataError {
        MetadataError::Away { host: self.host.clone(), reason: reason.to_owned() }
    }

    /// As [`Metadata::address`], asking again for as long as `patience` where the server does
    /// not answer and yet should be there: on an instance that has just started, it may come a
    /// little later than this node.
    ///
    /// # Errors
    /// The last one.
    pub async fn address_within(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<IpAddr, MetadataError> {
        let began = Instant::now();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let asked = timeout(left, self.address(name)).await;
            let error = match asked {
                Ok(Ok(address)) => return Ok(address),
                Ok(Err(error)) => error,
                Err(_elapsed) => self.away(&Unanswered::Late(patience).to_string()),
            };
            let may_come = self.is_expected && matches!(error, MetadataError::Away { .. });
            if !may_come || began.elapsed() >= patience {
                return Err(error);
            }
            sleep(AGAIN * 5).await;
        }
    }
}

/// Whether the machine says of itself that it is one of Google's.
fn is_google_hardware() -> bool {
    let product = fs::read_to_string("/sys/class/dmi/id/product_name").unwrap_or_default();
    ["Google", "Google Compute Engine"].contains(&product.trim())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    /// Answers what the test says, connection by connection, and remembers what it was asked.
    struct Server {
        metadata: Metadata,
        asked: Arc<Mutex<Vec<String>>>,
        task: JoinHandle<()>,
    }

    impl Server {
        async fn says(answers: Vec<String>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let host = listener.local_addr().expect("an address").to_string();
            let asked = Arc::new(Mutex::new(Vec::new()));
            let heard = Arc::clone(&asked);
            let task = tokio::spawn(async move {
                for answer in answers {
                    let (mut stream, _) = listener.accept().await.expect("a connection");
                    let mut question = vec![0; 4_096];
                    let length = stream.read(&mut question).await.expect("a question");
                    let question = String::from_utf8_lossy(&question[..length]).into_owned();
                    heard.lock().expect("questions").push(question);
                    stream.write_all(answer.as_bytes()).await.expect("to answer");
                }
            });
            let metadata = Metadata::new(&host, true).expect("a host");
            Self { metadata, asked, task }
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().expect("questions").clone()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    /// An answer of the server, with its header.
    fn flavored(status: &str, body: &str) -> String {
        said(status, "Metadata-Flavor: Google\r\n", body)
    }

    fn said(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn what_passes_is_asked_for_again_and_what_does_not_is_not() {
        let whole = flavored("200 OK", "my-project");
        let truncated = whole[..whole.len() - 3].to_owned();
        let server = Server::says(vec![said("503 Service Unavailable", "", ""), truncated, whole]);
        let server = server.await;
        let told = server.metadata.get("project/project-id").await;
        assert_eq!(told, Ok("my-project".to_owned()));
        let asked = server.asked();
        assert_eq!(asked.len(), 3);
        for question in &asked {
            let question = question.to_ascii_lowercase();
            assert!(question.starts_with("get /computemetadata/v1/project/project-id http/1.1"));
            assert!(question.contains("metadata-flavor: google\r\n"), "{question}");
        }
        for (status, is_absent) in [("404 Not Found", true), ("403 Forbidden", false)] {
            let server = Server::says(vec![flavored(status, "no")]).await;
            let error = server.metadata.get("instance/id").await.expect_err(status);
            assert_eq!(matches!(error, MetadataError::NotThere(_)), is_absent, "{error}");
            assert_eq!(server.asked().len(), 1);
        }
    }

    #[tokio::test]
    async fn whoever_lacks_the_header_is_not_believed_and_leads_nobody_elsewhere() {
        for answer in [
            said("200 OK", "", "my-project"),
            said("200 OK", "Metadata-Flavor: Portal\r\n", "my-project"),
            said("302 Found", "Location: http://127.0.0.1:9/login\r\n", ""),
            said("404 Not Found", "", ""),
        ] {
            let server = Server::says(vec![answer]).await;
            let error = server.metadata.get("project/project-id").await.expect_err("a stranger");
            assert!(matches!(error, MetadataError::Stranger(_)), "{error}");
        }
        let large = "x".repeat(SIZE_MAX + 1);
        let answers = (0..TRIES).map(|_| flavored("200 OK", &large)).collect();
        let server = Server::says(answers).await;
        let error = server.metadata.get("instance/id").await.expect_err("too large").to_string();
        assert!(error.contains("has more than"), "{error}");
    }

    #[tokio::test]
    async fn a_change_is_waited_for_by_the_tag_of_what_is_known() {
        let headers = "Metadata-Flavor: Google\r\nETag: 2f1e\r\n";
        let server = Server::says(vec![said("200 OK", headers, "FALSE\n")]).await;
        let told = server.metadata.wait_for_change("instance/preempted", "0").await;
        assert_eq!(told, Ok(("FALSE".to_owned(), Some("2f1e".to_owned()))));
        let asked = &server.asked()[0];
        let query = "/instance/preempted?wait_for_change=true&last_etag=0&timeout_sec=60 ";
        assert!(asked.contains(query), "{asked}");
    }

    #[test]
    fn a_host_is_a_host() {
        for bad in ["http://metadata", "a/b", "a?b", "", "u@h", "a b"] {
            let error = Metadata::new(bad, true).expect_err(bad);
            assert!(error.contains("GCE_METADATA_HOST"), "{error}");
        }
        for good in ["metadata.google.internal", "127.0.0.1:8080", "[::1]:80"] {
            assert!(Metadata::new(good, true).is_ok(), "{good}");
        }
    }
}
