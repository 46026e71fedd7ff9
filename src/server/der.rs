//! A walk over DER (X.690), as far as certificates need it: the parser that comes with TLS checks them and does not tell
//! what they say.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const VERSION: u8 = 0xa0;
pub(super) const EXTENSIONS: u8 = 0xa3;

/// The next value of this tag.
pub(super) fn expect<'a>(from: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(from).filter(|(found, _)| *found == tag).map(|(_, value)| value)
}

/// The next tag and its value.
pub(super) fn next<'a>(from: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = from.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut len = usize::from(*first);
    if let Some(digits) = first.checked_sub(0x80) {
        // Four bytes of length are more than a credential file may have.
        let (length, value) = rest.split_at_checked(usize::from(digits)).filter(|(it, _)| it.len() <= 4)?;
        len = length.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        rest = value;
    }
    let (value, rest) = rest.split_at_checked(len)?;
    *from = rest;
    Some((*tag, value))
}
