//! What is read of an X.509 certificate: for how long it holds, and who made it.

use ropeway_core::time::Time;
use x509_parser::{parse_x509_certificate, time::ASN1Time};

/// When a certificate holds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: Time,
    /// Not after.
    pub until: Time,
}

impl Validity {
    /// Reads it from a certificate's DER. `None`: this is no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let validity = certificate.validity();
        Some(Self { from: time(validity.not_before), until: time(validity.not_after) })
    }
}

/// Certificates are dated in whole seconds.
fn time(time: ASN1Time) -> Time {
    Time(time.timestamp().saturating_mul(1_000_000))
}
