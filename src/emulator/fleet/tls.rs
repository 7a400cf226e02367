//! The fleet's own certificate authority, and the certificates of its endpoints.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::error::FleetError;

/// Signs the certificates of endpoints. Clients trust it by its file, and nothing else does.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Takes the authority of a state directory, or makes one.
    pub(super) fn open(folder: &Path) -> Result<Self, FleetError> {
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |e| FleetError::copy("read or write", &path, e)
        };
        fs::create_dir_all(folder).map_err(fail(folder))?;
        if let (Ok(pem), Ok(secret)) = (fs::read_to_string(&certificate), fs::read_to_string(&key))
        {
            let issuer = Issuer::new(authority(), KeyPair::from_pem(&secret)?);
            return Ok(Self { issuer, pem });
        }
        let pair = KeyPair::generate()?;
        let pem = authority().self_signed(&pair)?.pem();
        // The key first: a certificate without its key would be taken for a whole authority.
        write(&key, 0o600, &pair.serialize_pem()).map_err(fail(&key))?;
        write(&certificate, 0o644, &pem).map_err(fail(&certificate))?;
        Ok(Self { issuer: Issuer::new(authority(), pair), pem })
    }

    /// The authority's certificate, for clients.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Ends TLS for a listener on this address, which is also `localhost`.
    pub(super) fn acceptor(&self, host: IpAddr) -> Result<TlsAcceptor, FleetError> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "lakeops emulator");
        params.subject_alt_names.push(SanType::IpAddress(host));
        if host != IpAddr::from([127, 0, 0, 1]) {
            params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let pair = KeyPair::generate()?;
        let certificate = params.signed_by(&pair, &self.issuer)?;
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)?;
        // Asked for by clients that begin with TLS instead of asking for it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "lakeops emulator authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_private() {
        let place = tempfile::tempdir().unwrap();
        let first = Authority::open(place.path()).unwrap();
        let again = Authority::open(place.path()).unwrap();
        assert_eq!(first.pem(), again.pem());
        assert!(again.acceptor([127, 9, 8, 7].into()).is_ok());
        let mode = fs::metadata(place.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
