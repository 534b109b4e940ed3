//! Whom a plugin's HTTPS connections trust: whoever this machine trusts, and the
//! authorities that the plugin's settings name.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;
use tracing::warn;

/// Bytes of one file of certificates: that of all public authorities has a quarter.
const FILE_MAX: u64 = 1 << 20;

/// A client's side of TLS. The provider is named here rather than installed for the
/// process, which may embed us beside another one.
pub(super) fn client(ca_files: &[PathBuf], base_dir: &Path) -> Result<ClientConfig, String> {
    let mut extra = Vec::new();
    for file in ca_files {
        extra.extend(certificates(&base_dir.join(file))?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let mut config = match Verifier::new_with_extra_roots(extra, provider) {
        Ok(verifier) => {
            let verifier = Arc::new(verifier);
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Err(error) => {
            warn!(
                %error,
                "This machine has no root certificates: https reaches nothing but what \
                 network.ca_files names."
            );
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The authorities in the PEM file at `path`, each fit to be trusted.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let bytes = read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "network.ca_files: there is no file {shown}; check the path, which is relative to \
             the config file"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("network.ca_files: this user may not read {shown}; change its mode")
        }
        _ => format!("network.ca_files: cannot read {shown}: {error}"),
    })?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = parsed.map_err(|error| {
        format!("network.ca_files: {shown} is damaged: {error:?}; export the certificate again")
    })?;
    if certificates.is_empty() {
        return Err(format!(
            "network.ca_files: {shown} has no certificate; give a PEM file, which has a line \
             `-----BEGIN CERTIFICATE-----`"
        ));
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| {
            format!(
                "network.ca_files: {shown} has what is no certificate ({error}); export it again"
            )
        })?;
    }
    Ok(certificates)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: to open a named pipe is to wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB, and no file of certificates"));
    }
    Ok(bytes)
}
