//! Certificates made for a test: an authority of one's own, and what it signs.
#![allow(dead_code, reason = "each test program uses a part of it")]

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// A certificate with its key, in the PEM format.
pub(crate) struct Certificate {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Somebody who signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) cert: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (mut params, key) = (params(&[], 2020, 2090), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), cert }
    }

    /// A certificate for these names that holds now.
    pub(crate) fn sign(&self, names: &[&str]) -> Certificate {
        self.sign_for(names, 2020, 2089)
    }

    /// One that holds from the start of a year to the start of another.
    pub(crate) fn sign_for(&self, names: &[&str], from: i32, until: i32) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let cert = params(names, from, until).signed_by(&key, &self.issuer).unwrap().pem();
        Certificate { cert, key: key.serialize_pem() }
    }
}

/// A certificate that signed itself; with `is_ca` as the usual tools make it.
pub(crate) fn self_signed(names: &[&str], until: i32, is_ca: bool) -> Certificate {
    let (mut params, key) = (params(names, 2000, until), KeyPair::generate().unwrap());
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    Certificate { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn params(names: &[&str], from: i32, until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    params
}
