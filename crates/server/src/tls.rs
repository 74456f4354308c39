//! The certificate that a host shows, renewed while it serves: whoever is connected stays, whoever comes
//! next sees the new one. A new one that is of no use is refused, and the old one stays (IRON-073).

use crate::Host;
use ropeway_core::time::Time;
use ropeway_protocol::Validity;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::{sync::Notify, time::sleep};
use tokio_rustls::TlsAcceptor;

/// What can be spoken after the handshake, the best first.
const SPOKEN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate is of no use. The sentence names the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// A certificate with its key, from two files that may be replaced at any time. Cheap to clone; all clones
/// show the same.
#[derive(Debug, Clone)]
pub struct Tls {
    inner: Arc<Files>,
    acceptor: TlsAcceptorOf,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    shown: Arc<Shown>,
    /// What the files held when they were last looked at, good or bad: nothing is told of twice.
    seen: Mutex<Result<Bytes, String>>,
    /// Somebody wants the files looked at now.
    asked: Notify,
}

/// The two files' content.
type Bytes = (Vec<u8>, Vec<u8>);

#[derive(Debug)]
struct Shown(RwLock<(Arc<CertifiedKey>, Validity)>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

/// An acceptor that has a `Debug`.
#[derive(Clone)]
struct TlsAcceptorOf(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

impl Tls {
    /// Reads a chain of certificates, the host's own first, and the private key, both in the PEM format.
    /// Whether the certificate has run out is not asked here: a machine may start before its clock is set.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let seen = bytes(certificate, key)?;
        let (shown, validity) = read(certificate, key, &seen)?;
        let shown = Arc::new(Shown(RwLock::new((Arc::new(shown), validity))));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|e| TlsError(format!("TLS cannot be set up: {e}")))?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = SPOKEN.map(<[u8]>::to_vec).into();
        let inner = Files {
            certificate: certificate.into(),
            key: key.into(),
            shown,
            seen: Mutex::new(Ok(seen)),
            asked: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner), acceptor: TlsAcceptorOf(TlsAcceptor::from(Arc::new(config))) })
    }

    /// When the certificate that is shown holds.
    pub fn validity(&self) -> Validity {
        self.inner.shown.0.read().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Has the serving host look at the files now and not at its next round.
    pub fn look(&self) {
        self.inner.asked.notify_one();
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor.0
    }

    /// Reads the files anew and shows what they hold. `Ok(false)`: they hold what they held before. An error
    /// changes nothing.
    fn renew(&self, now: Time) -> Result<bool, TlsError> {
        let Files { certificate, key, shown, seen, .. } = &*self.inner;
        let found = bytes(certificate, key).map_err(|error| error.0);
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == found {
                return Ok(false);
            }
            seen.clone_from(&found);
        }
        let (renewed, validity) = read(certificate, key, &found.map_err(TlsError)?)?;
        if validity.until < now {
            let shown = certificate.display();
            return Err(TlsError(format!("the certificate in {shown} ran out at {}", validity.until)));
        }
        *shown.0.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(renewed), validity);
        Ok(true)
    }
}

/// Looks at the files again and again until the host is told to stop.
pub(crate) async fn keep_renewed(host: Host, tls: Tls) {
    loop {
        let until = tls.validity().until;
        host.inner.metrics.certificate_until.set(until.0 / 1_000_000);
        let asked = tokio::select! {
            () = host.inner.drain.cancelled() => return,
            () = tls.inner.asked.notified() => true,
            () = sleep(host.limits().tls_look) => false,
        };
        let looked = tls.clone();
        let now = host.node().clock().now();
        let renewed = tokio::task::spawn_blocking(move || looked.renew(now)).await;
        match renewed {
            Ok(Ok(true)) => tracing::info!(until = %tls.validity().until, "the certificate was renewed"),
            Ok(Ok(false)) if asked => {
                tracing::info!("the files of the certificate hold what they held before")
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                host.inner.metrics.certificates_refused.inc();
                tracing::error!("{error}; the old certificate, good until {until}, is shown on");
            }
            Err(error) => tracing::error!(%error, "the certificate was not looked at"),
        }
    }
}

fn bytes(certificate: &Path, key: &Path) -> Result<Bytes, TlsError> {
    let read = |path: &Path| fs::read(path).map_err(|e| TlsError(format!("{}: {e}", path.display())));
    Ok((read(certificate)?, read(key)?))
}

fn read(certificate: &Path, key: &Path, bytes: &Bytes) -> Result<(CertifiedKey, Validity), TlsError> {
    let bad = |path: &Path, why: String| TlsError(format!("{}: {why}", path.display()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes.0).collect();
    let chain = chain.map_err(|e| bad(certificate, format!("no certificate in the PEM format: {e}")))?;
    let own = chain.first().ok_or_else(|| bad(certificate, "it has no certificate".into()))?;
    let validity = Validity::of(own).ok_or_else(|| bad(certificate, "the certificate is broken".into()))?;
    let key_of = PrivateKeyDer::from_pem_slice(&bytes.1)
        .map_err(|e| bad(key, format!("no private key in the PEM format: {e}")))?;
    let certified = CertifiedKey::from_der(chain, key_of, &aws_lc_rs::default_provider())
        .map_err(|e| bad(key, format!("the key and the certificate do not go together: {e}")))?;
    Ok((certified, validity))
}
