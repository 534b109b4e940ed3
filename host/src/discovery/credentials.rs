//! What a registry asks this node for: passwords, certificates, whom to trust. Everything is
//! read when it is needed, so that files may be replaced; nothing of it is in any text.

use std::{
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;
use tokio::task::spawn_blocking;

use crate::config::secrets::{SecretSource, read as source};

/// Bytes of a file of certificates: that of all public authorities has a quarter.
const FILE_MAX: u64 = 1 << 20;

/// Bytes of a secret.
const SECRET_MAX: usize = 64 << 10;

/// Files for TLS; an empty path is none.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    /// Authorities that alone may vouch for the server, or whom this machine trusts.
    pub(super) ca: PathBuf,
    /// What this node shows.
    pub(super) cert: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
}

/// The secret in the file at `path`.
pub(super) async fn secret_file(path: PathBuf) -> Result<String, String> {
    let read = spawn_blocking(move || file(&path).and_then(|bytes| secret(bytes, &path)));
    read.await.map_err(|error| error.to_string())?
}

/// The secret that `reference` names, as `env:VARIABLE` or `file:PATH` below `base_dir`.
pub(super) async fn referenced(reference: &str, base_dir: &Path) -> Result<String, String> {
    match source(reference).map_err(|refusal| refusal.title)? {
        SecretSource::File(path) => secret_file(base_dir.join(path)).await,
        SecretSource::Env(name) => {
            let value = env::var_os(&name).ok_or_else(|| {
                format!("there is no variable `{name}` in the node's environment; set it")
            })?;
            secret(value.into_encoded_bytes(), Path::new(&name))
        }
    }
}

fn secret(bytes: Vec<u8>, place: &Path) -> Result<String, String> {
    let shown = place.display();
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.len() > SECRET_MAX {
        return Err(format!("{shown} is empty, or longer than any secret"));
    }
    Ok(text.to_owned())
}

/// A client's side of TLS with these files. The provider is named here rather than installed
/// for the process, which may embed us beside another one.
pub(super) async fn tls(files: TlsFiles) -> Result<ClientConfig, String> {
    let made = spawn_blocking(move || made(&files)).await;
    made.map_err(|error| error.to_string())?
}

fn made(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let builder = if files.ca.as_os_str().is_empty() {
        let verifier = Verifier::new(provider)
            .map_err(|error| format!("this machine trusts no authority: {error}; set `ca_file`"))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|error| damaged(&files.ca, &error))?;
        }
        builder.with_root_certificates(roots)
    };
    let mut config = if files.cert.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let key = PrivateKeyDer::from_pem_slice(&file(&files.key)?)
            .map_err(|error| damaged(&files.key, &format!("{error:?}")))?;
        builder
            .with_client_auth_cert(certificates(&files.cert)?, key)
            .map_err(|error| damaged(&files.cert, &error))?
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file(path)?).collect();
    let certificates = parsed.map_err(|error| damaged(path, &format!("{error:?}")))?;
    if certificates.is_empty() {
        return Err(damaged(path, &"it has no line `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(certificates)
}

fn damaged(path: &Path, error: &impl ToString) -> String {
    format!("{} is of no use: {}; export it again as PEM", path.display(), error.to_string())
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    bytes(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: to open a named pipe is to wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_read_without_the_newline_at_its_end_and_never_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        for (bytes, expected) in
            [(&b"hunter2\r\n"[..], Ok("hunter2")), (b"a\n\n", Ok("a\n")), (b"\n", Err("empty"))]
        {
            std::fs::write(&path, bytes).expect("written");
            match (referenced("file:secret", folder.path()).await, expected) {
                (Ok(secret), Ok(expected)) => assert_eq!(secret, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        std::fs::write(&path, "hunter2".repeat(10_000)).expect("written");
        let why = secret_file(path).await.expect_err("too long");
        assert!(!why.contains("hunter2"), "{why}");
        let why = referenced("env:NOBODY_SETS_THIS", folder.path()).await.expect_err("unset");
        assert!(why.contains("NOBODY_SETS_THIS"), "{why}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let files = TlsFiles { ca: path.clone(), cert: PathBuf::new(), key: PathBuf::new() };
        let why = tls(files.clone()).await.expect_err("no file");
        assert!(why.contains("cannot read") && why.contains("ca.pem"), "{why}");
        std::fs::write(&path, "hello").expect("written");
        let why = tls(files.clone()).await.expect_err("no certificate");
        assert!(why.contains("BEGIN CERTIFICATE"), "{why}");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(&path, certificate.pem()).expect("written");
        tls(files.clone()).await.expect("good");
        // A key that is another's.
        let other = folder.path().join("other.key");
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        std::fs::write(&other, pem).expect("written");
        let pair = TlsFiles { cert: path, key: other, ..files };
        assert!(tls(pair).await.expect_err("no pair").contains("ca.pem is of no use"));
    }
}
