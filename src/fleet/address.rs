//! Addresses, subnets and ranges, IPv4 and IPv6 apart: `10.7.0.5`, `10.7.0.0/16`, `10.7.0.5-10.7.0.90`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as a number with its family, so that addresses of one family are in their order. An IPv4 address in
/// IPv6 clothes is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    six: bool,
    bits: u128,
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(four) => Self { six: false, bits: u128::from(four.to_bits()) },
            IpAddr::V6(six) => Self { six: true, bits: six.to_bits() },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.bits) {
            Ok(bits) if !self.six => Ipv4Addr::from_bits(bits).fmt(f),
            _ => Ipv6Addr::from_bits(self.bits).fmt(f),
        }
    }
}

/// The addresses from the first to the last, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) first: Address,
    pub(super) last: Address,
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prefix {
    pub(super) start: Address,
    pub(super) free: u32,
}

impl Address {
    /// The subnet around it that leaves this many bits free.
    pub(super) fn prefix(self, free: u32) -> Prefix {
        let bits = self.bits.checked_shr(free).and_then(|bits| bits.checked_shl(free)).unwrap_or(0);
        Prefix { start: Self { bits, ..self }, free }
    }

    pub(super) const fn is_six(self) -> bool {
        self.six
    }
}

impl Range {
    /// Parses an address, a subnet or a range.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let address = |text: &str| {
            let text = text.trim();
            text.parse::<IpAddr>().map(Address::from).map_err(|_| format!("`{text}` is not an address"))
        };
        if let Some((from, to)) = text.split_once('-') {
            let (first, last) = (address(from)?, address(to)?);
            if first.six != last.six {
                return Err("a range is of one family, IPv4 or IPv6".to_owned());
            }
            if first > last {
                return Err(format!("the range ends before it begins: did you mean \"{last}-{first}\"?"));
            }
            return Ok(Self { first, last });
        }
        let Some((address_part, bits)) = text.split_once('/') else {
            return address(text).map(|one| Self { first: one, last: one });
        };
        let start = address(address_part)?;
        let width = if start.six { 128 } else { 32 };
        // 10.0.0.0/255.0.0.0 is how some consoles export them.
        let length = match bits.parse::<u32>() {
            Ok(length) if length <= width => length,
            _ if !start.six => mask_length(bits).ok_or_else(|| format!("`/{bits}` is not a mask"))?,
            _ => return Err(format!("`/{bits}` is not 0 to {width}")),
        };
        let prefix = start.prefix(width - length);
        if prefix.start != start {
            return Err(format!("it has bits behind its mask: did you mean \"{}/{length}\"?", prefix.start));
        }
        Ok(prefix.range())
    }

    pub(super) fn contains(&self, address: Address) -> bool {
        self.first <= address && address <= self.last
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The subnets that make it up, at most two for each bit of an address.
    pub(super) fn prefixes(&self) -> Vec<Prefix> {
        let width = if self.first.six { 128 } else { 32 };
        let mut prefixes = Vec::new();
        let mut next = Some(self.first.bits);
        while let Some(bits) = next.filter(|bits| *bits <= self.last.bits) {
            let left = self.last.bits - bits;
            // The largest subnet that begins here and does not end behind the range.
            let fits = left.checked_add(1).map_or(128, u128::ilog2);
            let free = bits.trailing_zeros().min(fits).min(width);
            prefixes.push(Prefix { start: Address { bits, ..self.first }, free });
            next = 1_u128.checked_shl(free).and_then(|size| bits.checked_add(size));
        }
        prefixes
    }
}

impl Prefix {
    fn range(self) -> Range {
        let within = 1_u128.checked_shl(self.free).map_or(u128::MAX, |size| size - 1);
        Range { first: self.start, last: Address { bits: self.start.bits | within, ..self.start } }
    }
}

fn mask_length(text: &str) -> Option<u32> {
    let mask = text.parse::<Ipv4Addr>().ok()?.to_bits();
    (mask.leading_ones() + mask.trailing_zeros() == 32).then(|| mask.leading_ones())
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.first.six { 128 } else { 32 };
        match self.prefixes().as_slice() {
            [one] if one.free == 0 => self.first.fmt(f),
            [one] => write!(f, "{}/{}", self.first, width - one.free),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_subnets_and_ranges_of_both_families_are_read() {
        for (text, shown) in [
            ("10.7.0.5", "10.7.0.5"),
            ("10.7.0.0/16", "10.7.0.0/16"),
            ("10.7.0.0/255.255.0.0", "10.7.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.7.0.5 - 10.7.0.90", "10.7.0.5-10.7.0.90"),
            ("10.7.0.0-10.7.0.255", "10.7.0.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("fe80::1", "fe80::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(Range::parse(text).map(|range| range.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for (text, why) in [
            ("10.7", "not an address"),
            ("10.7.0.1/16", "\"10.7.0.0/16\""),
            ("10.0.0.0/33", "mask"),
            ("10.0.0.0/255.0.255.0", "mask"),
            ("::/129", "128"),
            ("10.0.0.9-10.0.0.1", "\"10.0.0.1-10.0.0.9\""),
            ("10.0.0.1-::1", "one family"),
            ("", "not an address"),
        ] {
            let error = Range::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_range_is_its_subnets_and_nothing_else() {
        let range = Range::parse("10.0.0.5-10.0.3.9").expect("a range");
        let size: u128 = range.prefixes().iter().map(|prefix| 1_u128 << prefix.free).sum();
        assert_eq!(size, range.last.bits - range.first.bits + 1);
        assert!(range.prefixes().iter().all(|prefix| range.covers(&prefix.range())));
        let all = Range::parse("::/0").expect("all");
        assert_eq!(all.prefixes().len(), 1);
        let most = Range::parse("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").expect("a range");
        assert_eq!(most.prefixes().len(), 254);
    }

    #[test]
    fn the_families_are_apart() {
        let all_six = Range::parse("::/0").expect("all");
        let four: IpAddr = "10.0.0.1".parse().expect("an address");
        let clothed: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(!all_six.contains(four.into()) && !all_six.contains(clothed.into()));
        assert!(Range::parse("10.0.0.0/8").expect("a subnet").contains(clothed.into()));
    }
}
