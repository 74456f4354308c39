//! Whom a follower believes to be its upstream: https with a certificate that holds, or plain http where
//! nobody can listen in or a person said so (IRON-073, REP-089). Its token goes nowhere else.

use super::BadUpstream;
use crate::{TransportError, Validity};
use reqwest::Url;
use ropeway_core::time::Time;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{error::Error, io, net::IpAddr, sync::Arc};

/// What ends every sentence of this room.
const KEPT: &str = "Nothing was sent, everything is kept";

/// What to do about a certificate that was made at home.
const IF_YOUR_OWN: &str = "If the certificate is your own, name it or its authority with --upstream-ca FILE; if not, \
     somebody else answers there, such as the login page of a network";

/// Why an address may not be followed at all.
pub(super) fn refusal(base: &Url, trusted_hosts: &[String]) -> Option<String> {
    let host = base.host_str()?;
    let named = |trusted: &String| bare(trusted).eq_ignore_ascii_case(bare(host));
    if base.scheme() == "https" || is_loopback(host) || trusted_hosts.iter().any(named) {
        return None;
    }
    Some(format!(
        "{base} is not encrypted, and everybody on the way could read the token. {KEPT}. Give the address with \
         https://, or list `{host}` as a trusted host where this network is yours alone"
    ))
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || bare(host).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// A client that believes these certificates and those that they signed, and nobody else's.
pub(super) fn only(pem: &[u8]) -> Result<ClientConfig, BadUpstream> {
    let bad = |why: String| BadUpstream(format!("the upstream's trusted certificates: {why}"));
    let given: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let given = given.map_err(|e| bad(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in &given {
        roots.add(certificate.clone()).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("the file has no certificate in the PEM format".into()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let signed = signed.map_err(|e| bad(e.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| bad(e.to_string()))?;
    let verifier = Arc::new(Given { given, signed });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Believes the certificates that a person gave, and those that they signed.
///
/// The usual verifier alone refuses a certificate that signed itself as its own authority, which is what
/// the usual tools make for a machine in a private network.
#[derive(Debug)]
struct Given {
    given: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Given {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if !self.given.contains(end_entity) {
            return self.signed.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        let seconds = |time: Time| UnixTime::since_unix_epoch(std::time::Duration::from_secs(whole(time)));
        let held = Validity::of(end_entity).ok_or(CertificateError::BadEncoding)?;
        let (not_before, not_after) = (seconds(held.from), seconds(held.until));
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

fn whole(time: Time) -> u64 {
    u64::try_from(time.0 / 1_000_000).unwrap_or(0)
}

/// What a failed exchange means: a certificate that is not believed is for a person to mend, all else is
/// being offline.
pub(super) fn failed(error: reqwest::Error, host: &str) -> TransportError {
    match refused_certificate(&error) {
        Some(why) => TransportError::Untrusted(sentence(why, host)),
        None => TransportError::Offline(super::chain(error)),
    }
}

fn refused_certificate<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(TlsError::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    // An error of the system hides what it carries from `source`.
    let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let cause = carried.map(|carried| carried as &(dyn Error + 'static)).or_else(|| error.source());
    cause.and_then(refused_certificate)
}

fn sentence(why: &CertificateError, host: &str) -> String {
    let time = |time: &UnixTime| Time(i64::try_from(time.as_secs()).unwrap_or(0).saturating_mul(1_000_000));
    let (what, next) = match why {
        CertificateError::ExpiredContext { time: now, not_after } => (
            format!("its certificate ran out at {}, and here it is {}", time(not_after), time(now)),
            "Renew it there, or set the clock of this machine if that is wrong",
        ),
        CertificateError::NotValidYetContext { time: now, not_before } => (
            format!("its certificate holds from {} on, and here it is {}", time(not_before), time(now)),
            "Set the clock of this machine, or wait if the certificate is meant for later",
        ),
        CertificateError::NotValidForNameContext { presented, .. } => (
            format!("its certificate is for {}, not for {host}", listed(presented)),
            "Give the address by a name that is in the certificate, or have one made for this name",
        ),
        CertificateError::UnknownIssuer => {
            (format!("nobody whom this machine believes has signed the certificate of {host}"), IF_YOUR_OWN)
        }
        other => (format!("the certificate of {host} is not accepted: {other}"), IF_YOUR_OWN),
    };
    format!("{what}. {KEPT}. {next}")
}

/// The names in a certificate, which come as `DnsName("host")` or `IpAddress(1.2.3.4)`.
fn listed(names: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    match names {
        [] => "nobody".into(),
        names => names.iter().map(plain).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_hosts_that_a_person_trusts() {
        let trusted = ["192.168.4.1".to_owned(), "Pi.local".to_owned(), "fd00::7".to_owned()];
        let refused = |url: &str| refusal(&Url::parse(url).unwrap(), &trusted);
        for fine in [
            "https://cloud.example",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:80",
            "http://localhost:8080/base",
            "http://192.168.4.1:8080",
            "http://pi.LOCAL",
            "http://[fd00::7]:1",
        ] {
            assert_eq!(refused(fine), None, "{fine}");
        }
        for open in [
            "http://cloud.example",
            "http://192.168.4.2",
            "http://0.0.0.0:80",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://other.pi.local",
            "http://[fd00::8]",
        ] {
            let why = refused(open).unwrap_or_else(|| panic!("{open} may be followed"));
            assert!(why.contains("https://") && why.contains("kept"), "{why}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        for bad in [&b""[..], b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(only(bad).is_err());
        }
    }
}
