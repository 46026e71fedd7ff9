//! When a certificate expires, out of its DER. A walk of a few steps, because the parser that comes with TLS checks
//! that date and does not tell it.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::der::{SEQUENCE, expect, from_validity, next};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate (RFC 5280 §4.1); dates before 1970 become 0.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let mut body = from_validity(der)?;
    let mut validity = expect(&mut body, SEQUENCE)?;
    next(&mut validity)?;
    match next(&mut validity)? {
        (UTC_TIME, text) => {
            // Two digits stand for 1950 to 2049 (RFC 5280 §4.1.2.5.1).
            let (year, rest) = number(text, 2)?;
            moment(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, text) => number(text, 4).and_then(|(year, rest)| moment(year, rest)),
        _ => None,
    }
}

fn number(text: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(|number| (number, rest))
}

/// `MMDDHHMMSSZ` of a year.
fn moment(year: u64, rest: &[u8]) -> Option<Timestamp> {
    let mut fields = [0; 5];
    let mut rest = rest;
    for field in &mut fields {
        (*field, rest) = number(rest, 2)?;
    }
    let [month, day, hours, minutes, seconds] = fields;
    let right = rest == b"Z" && (1..=12).contains(&month) && (1..=31).contains(&day);
    // Days since 1970, with the year beginning in March, so that leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let since = days.saturating_sub(719_468) * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    right.then(|| Timestamp::default().after(Duration::from_secs(since)))
}

#[cfg(test)]
mod tests {
    use super::super::Tls;
    use super::*;
    use crate::testkit::pki::Authority;

    #[test]
    fn the_date_of_a_certificate_is_read() {
        let expired = Authority::new("a CA with a longer name than most").expired(&["localhost"]);
        assert_eq!(Tls::expiry(expired.cert.as_bytes()), Some(Timestamp(978_307_200_000)), "2001-01-01");
        // What the test kit makes is good for ever, which takes a year of four digits.
        let usual = Authority::new("ca").server(&["localhost", "127.0.0.1"]);
        assert_eq!(Tls::expiry(usual.cert.as_bytes()), Some(Timestamp(67_090_118_400_000)), "4096-01-01");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |year, rest: &str| moment(year, rest.as_bytes()).map(|at| at.0 / 1_000);
        assert_eq!(at(1970, "0101000000Z"), Some(0));
        assert_eq!(at(2024, "0229235959Z"), Some(1_709_251_199));
        assert_eq!(at(2026, "1231000000Z"), Some(1_798_675_200));
        assert_eq!(at(2026, "1331000000Z"), None);
        assert_eq!(at(2026, "123100000+"), None);
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_has_no_date_and_makes_no_trouble() {
        let pem = Authority::new("ca").server(&["localhost"]).cert;
        assert!(Tls::expiry(pem.as_bytes()).is_some());
        for len in 0..pem.len() - 30 {
            let _ = Tls::expiry(&pem.as_bytes()[..len]);
        }
        let der: Vec<u8> = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30, 0x80, 0xa0].repeat(20);
        for start in 0..der.len() {
            assert_eq!(not_after(&der[start..]), None);
        }
    }
}
