//! What a request must pass before a route sees it: its length, how often its address may ask, whose token it bears.
//!
//! Not what is asked, which is for the routes. Invariants: whoever is refused gets a [`Problem`] and is counted by
//! status; no token is kept, compared or shown here; health words are for everyone, so that a load balancer needs no
//! token and an address that asks too much is not taken for a process that is ill.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::{HeaderMap, Uri, header};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::problem::Problem;
use crate::router::{HEALTH, READY};

/// Addresses remembered before those that have been quiet are forgotten.
const ADDRESSES_KEPT: usize = 16 * 1024;
/// Bits of an IPv6 address that are one subscriber's.
const SUBSCRIBER_BITS: u32 = 64;
const SCHEME: &str = "bearer ";

/// Who may read, where not everyone may.
pub trait Readers: Send + Sync + 'static {
    /// Judges a token, in a time that does not tell how much of it was right.
    fn admit(&self, token: &[u8]) -> Admission;
}

/// What [`Readers`] say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may read.
    Admitted,
    /// It is known and may not read.
    NotReader,
    /// It is not known.
    Unknown,
}

pub(crate) struct Door {
    uri_bytes_max: usize,
    rate: Option<(NonZeroU32, DefaultKeyedRateLimiter<IpAddr>)>,
    readers: Option<Arc<dyn Readers>>,
}

impl Door {
    pub(crate) fn new(
        uri_bytes_max: usize,
        requests_per_second_max: Option<NonZeroU32>,
        readers: Option<Arc<dyn Readers>>,
    ) -> Self {
        let rate = requests_per_second_max.map(|rate| (rate, RateLimiter::keyed(Quota::per_second(rate))));
        Self { uri_bytes_max, rate, readers }
    }

    /// Whether a request from an address may go on to its route.
    pub(crate) fn pass(&self, uri: &Uri, headers: &HeaderMap, from: IpAddr) -> Result<(), Problem> {
        let bytes = uri.path_and_query().map_or(0, |asked| asked.as_str().len());
        if bytes > self.uri_bytes_max {
            return Err(Problem::uri_too_long(bytes, self.uri_bytes_max));
        }
        if matches!(uri.path(), HEALTH | READY) {
            return Ok(());
        }
        self.pass_rate(from)?;
        match &self.readers {
            None => Ok(()),
            Some(readers) => match bearer(headers).map(|token| readers.admit(token)) {
                Some(Admission::Admitted) => Ok(()),
                Some(Admission::NotReader) => Err(Problem::not_a_reader()),
                Some(Admission::Unknown) => {
                    Err(Problem::unauthorized("the token is not known; send one that is in use"))
                }
                None => Err(Problem::unauthorized("send a token that may read, as `Authorization: Bearer TOKEN`")),
            },
        }
    }

    fn pass_rate(&self, from: IpAddr) -> Result<(), Problem> {
        let Some((allowed, rate)) = &self.rate else { return Ok(()) };
        if rate.len() > ADDRESSES_KEPT {
            rate.retain_recent();
        }
        rate.check_key(&subscriber(from)).map_err(|_| Problem::too_many_requests(allowed.get()))
    }
}

/// The token of a request, if it bears one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME.as_bytes()).then(|| token.trim_ascii())
}

/// What counts as one address: of IPv6 the part that a network gives to one subscriber.
pub(crate) fn subscriber(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> SUBSCRIBER_BITS << SUBSCRIBER_BITS)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subscriber_is_one_address() {
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::1"), of("2001:db8:1:2:4::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_others_are_none() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(read("Bearer one").unwrap(), b"one");
        assert_eq!(read("bEARER  two").unwrap(), b"two");
        for other in ["Basic b25l", "Bearer", "one", ""] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
