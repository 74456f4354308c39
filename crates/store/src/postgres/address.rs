//! Where the server is, whether others may listen in on the way to it, and who it has to be
//! ([ADR 0024](../../../../docs/adr/0024-a-database-elsewhere-has-to-show-who-it-is.md)).

use super::errors::Done;
use crate::StoreError;
use percent_encoding::percent_decode_str;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier;
use std::{error::Error, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What every session is told: no statement, no lock and no forgotten transaction lasts for ever, and a
/// commit is on disk when it is answered. And that every statement goes by an index, with one plan for all values:
/// right after a table was filled the server's statistics say nothing, and a guess that reads whole tables stays
/// for as long as the connection lives.
const SESSION: &str = "-c statement_timeout=60000 -c lock_timeout=15000 \
  -c idle_in_transaction_session_timeout=60000 -c synchronous_commit=on -c client_min_messages=warning \
  -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
  -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// `sslmode`, with the meaning that PostgreSQL's own programs give it, except that nothing but `disable` allows
/// plain text to another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Plain text.
    Disable,
    /// Encrypted where the server can, whoever it is.
    Prefer,
    /// Encrypted, whoever it is.
    Require,
    /// Encrypted, and signed by somebody who is named.
    VerifyCa,
    /// And the certificate is for the host that was asked for.
    VerifyFull,
}

/// Whose signature is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    /// Those whom the machine believes.
    System,
    /// Those in a file.
    File(PathBuf),
}

/// An address that was understood.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// How to connect.
    pub(super) config: Config,
    mode: Mode,
    root: Option<Root>,
}

impl Address {
    /// Reads `postgresql://user:password@host/database?sslmode=…&sslrootcert=…`. An error tells what is wrong
    /// with it and nothing that it holds.
    pub(super) fn read(url: &str) -> Done<Self> {
        let (rest, mode, root) = take_out(url)?;
        let mut config: Config = rest.parse().map_err(|e| unclear(format!("{e}")))?;
        config.application_name("ropeway").connect_timeout(Duration::from_secs(10)).options(SESSION);
        let mode = effective(mode, is_here(&config));
        match (mode, &root) {
            (Mode::VerifyCa, None) => return Err(unclear("sslmode=verify-ca needs sslrootcert=FILE".into())),
            (Mode::VerifyFull, _) | (_, None | Some(Root::File(_))) => {}
            (_, Some(Root::System)) => {
                return Err(unclear("sslrootcert=system needs sslmode=verify-full".into()));
            }
        }
        let is_local = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
        config.ssl_mode(match mode {
            _ if is_local && config.get_hostaddrs().is_empty() => SslMode::Disable,
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        Ok(Self { config, mode, root })
    }

    /// What makes a connection safe, as far as the address asks for it.
    pub(super) fn tls(&self) -> Done<MakeRustlsConnect> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| away(format!("no TLS: {e}")))?;
        let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Done<Arc<dyn ServerCertVerifier>> {
        let (algorithms, by_name) =
            (provider.signature_verification_algorithms, self.mode == Mode::VerifyFull);
        let whom = match (&self.root, self.mode) {
            (_, Mode::Disable) | (None, Mode::Prefer | Mode::Require | Mode::VerifyCa) => Whom::Anybody,
            (None | Some(Root::System), _) => {
                let system = Verifier::new(provider.clone());
                return Ok(Arc::new(system.map_err(|e| away(format!("whom this machine believes: {e}")))?));
            }
            (Some(Root::File(file)), _) => {
                let bad = |why: String| away(format!("sslrootcert {}: {why}", file.display()));
                let pem = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
                let given: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
                let given = given.map_err(|e| bad(e.to_string()))?;
                let mut roots = RootCertStore::empty();
                for certificate in &given {
                    roots.add(certificate.clone()).map_err(|e| bad(e.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(bad("it has no certificate in the PEM format".into()));
                }
                Whom::Signed { given, roots, by_name }
            }
        };
        Ok(Arc::new(Believes { whom, algorithms }))
    }
}

/// Takes out of an address what is said about TLS.
fn take_out(url: &str) -> Done<(String, Option<Mode>, Option<Root>)> {
    // A password may hold a question mark.
    let after = url.find('@').unwrap_or(0);
    let Some(at) = url[after..].find('?').map(|at| after + at) else { return Ok((url.into(), None, None)) };
    let (mut mode, mut root, mut rest) = (None, None, Vec::new());
    for pair in url[at + 1..].split('&') {
        match pair.split_once('=') {
            Some(("sslmode", said)) => mode = Some(mode_of(said)?),
            Some(("sslrootcert", "system")) => root = Some(Root::System),
            Some(("sslrootcert", file)) => {
                let file = percent_decode_str(file).decode_utf8();
                let file = file.map_err(|_| unclear("sslrootcert is not UTF-8".into()))?;
                root = Some(Root::File(PathBuf::from(&*file)));
            }
            _ => rest.push(pair),
        }
    }
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{}{query}", &url[..at]), mode, root))
}

fn mode_of(said: &str) -> Done<Mode> {
    Ok(match said {
        "disable" => Mode::Disable,
        "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        _ => {
            let known = "it may be disable, prefer, require, verify-ca or verify-full";
            return Err(unclear(format!("sslmode is none of those that are known: {known}")));
        }
    })
}

/// On this machine nobody listens in. To another one nothing goes in plain text unless a person said just that.
fn effective(said: Option<Mode>, is_here: bool) -> Mode {
    match (said, is_here) {
        (None, true) => Mode::Disable,
        (None, false) => Mode::VerifyFull,
        (Some(Mode::Prefer), false) => Mode::Require,
        (Some(said), _) => said,
    }
}

fn is_here(config: &Config) -> bool {
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().all(IpAddr::is_loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    })
}

/// Who may be the server.
#[derive(Debug)]
enum Whom {
    Anybody,
    /// Whoever is in the list or was signed by somebody in it; with `by_name`, under the name asked for.
    Signed {
        given: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        by_name: bool,
    },
}

#[derive(Debug)]
struct Believes {
    whom: Whom,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Whom::Signed { given, roots, by_name } = &self.whom {
            let shown = ParsedCertificate::try_from(end_entity)?;
            // A certificate that signed itself is believed where it is named itself: the usual tools make
            // those for a server in a private network.
            if !given.contains(end_entity) {
                let all = self.algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&shown, roots, intermediates, now, all)?;
            }
            if *by_name {
                verify_server_name(&shown, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a server is not believed, and what to do about it. `None`: that is not what went wrong.
pub(super) fn refusal(error: &tokio_postgres::Error) -> Option<String> {
    let source = error.source()?;
    if source.to_string() == "server does not support TLS" {
        return Some(
            "the database server does not speak TLS: switch `ssl` on there, or say sslmode=disable where the \
             network is yours alone"
                .into(),
        );
    }
    let carried = source.downcast_ref::<io::Error>()?.get_ref()?;
    let Some(TlsError::InvalidCertificate(why)) = carried.downcast_ref() else { return None };
    Some(match why {
        CertificateError::UnknownIssuer => {
            "nobody who is believed has signed the database server's certificate: name the one who did with \
             sslrootcert=FILE; if you did, somebody else answers there"
                .into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "nobody".into() } else { presented.join(", ") };
            format!(
                "the database server's certificate is for {presented}, not for {}: use a name that is in it, or \
                 have one made for this name",
                expected.to_str()
            )
        }
        why => format!("the database server's certificate is not accepted: {why}"),
    })
}

fn unclear(why: String) -> StoreError {
    away(format!("the database address cannot be understood: {why}"))
}

fn away(what: String) -> StoreError {
    StoreError::Unavailable { what, source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_disable_allows_plain_text_to_another_machine() {
        let mode = |url: &str| {
            let address = Address::read(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            (address.mode, address.config.get_ssl_mode())
        };
        use Mode::*;
        for (url, expected, asked) in [
            ("postgresql://u@127.0.0.1/d", Disable, SslMode::Disable),
            ("postgresql://u@[::1]:1/d", Disable, SslMode::Disable),
            ("postgresql://u@localhost/d?sslmode=prefer", Prefer, SslMode::Prefer),
            ("postgresql://u@%2Frun%2Fpg/d", Disable, SslMode::Disable),
            ("postgresql://u@%2Frun%2Fpg/d?sslmode=require", Require, SslMode::Disable),
            ("postgresql://u@db.example/d", VerifyFull, SslMode::Require),
            ("postgresql://u@10.0.0.2/d", VerifyFull, SslMode::Require),
            ("postgresql://u@localhost,db.example/d", VerifyFull, SslMode::Require),
            ("postgresql://u@localhost/d?hostaddr=10.0.0.2", VerifyFull, SslMode::Require),
            ("postgresql://u@db.example/d?sslmode=prefer", Require, SslMode::Require),
            ("postgresql://u@db.example/d?sslmode=disable", Disable, SslMode::Disable),
            (
                "postgresql://u:what?@db.example/d?sslmode=verify-ca&sslrootcert=/x",
                VerifyCa,
                SslMode::Require,
            ),
        ] {
            assert_eq!(mode(url), (expected, asked), "{url}");
        }
        let said =
            Address::read("postgresql://u@h/d?sslrootcert=/my%20ca.pem&target_session_attrs=any").unwrap();
        assert_eq!(said.root, Some(Root::File("/my ca.pem".into())));
    }

    #[test]
    fn an_address_that_asks_for_what_cannot_be_is_refused_without_its_secrets() {
        for (bad, why) in [
            ("postgresql://me:secret@h/d?sslmode=allow", "none of those that are known"),
            ("postgresql://me:secret@h/d?sslmode=verify-ca", "needs sslrootcert=FILE"),
            ("postgresql://me:secret@h/d?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
            ("postgresql://me:secret@h:port/d", "cannot be understood"),
            ("postgresql://me:secret@h/d?sslkey=secret", "cannot be understood"),
        ] {
            let told = Address::read(bad).unwrap_err().to_string();
            assert!(told.contains(why) && !told.contains("secret"), "{told}");
        }
    }
}
