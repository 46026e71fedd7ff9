//! A walk over DER, value by value: for the few facts of a certificate that its verifier checks and does not tell.

/// The tag of an INTEGER.
pub const INTEGER: u8 = 0x02;
/// The tag of an OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// The tag of an OBJECT IDENTIFIER.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// The tag of a SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// The tag of a SET.
pub const SET: u8 = 0x31;
/// The tag of a certificate's version, which old ones leave out.
const VERSION: u8 = 0xa0;
/// The tag of a certificate's extensions.
const EXTENSIONS: u8 = 0xa3;
/// `id-ce-subjectAltName`, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// The next value, if it is of this tag; `from` begins behind it then.
pub fn expect<'a>(from: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(from).filter(|(found, _)| *found == tag).map(|(_, value)| value)
}

/// The next tag and its value; `from` begins behind it then. `None` at the end, and where the bytes are cut.
pub fn next<'a>(from: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
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

/// What stands in a certificate from its validity on (RFC 5280 §4.1): validity, subject, key, extensions.
pub fn from_validity(certificate: &[u8]) -> Option<&[u8]> {
    let mut certificate = expect(&mut &*certificate, SEQUENCE)?;
    let mut body = expect(&mut certificate, SEQUENCE)?;
    if body.first() == Some(&VERSION) {
        next(&mut body)?;
    }
    expect(&mut body, INTEGER)?;
    let [_algorithm, _issuer] = [expect(&mut body, SEQUENCE)?, expect(&mut body, SEQUENCE)?];
    Some(body)
}

/// The alternative names of a certificate, one value each (RFC 5280 §4.2.1.6); `None` where it has none.
pub fn alternative_names(certificate: &[u8]) -> Option<&[u8]> {
    let mut body = from_validity(certificate)?;
    let mut wrapped = std::iter::from_fn(|| next(&mut body)).find(|(tag, _)| *tag == EXTENSIONS)?.1;
    let mut extensions = expect(&mut wrapped, SEQUENCE)?;
    while let Some(mut extension) = expect(&mut extensions, SEQUENCE) {
        if expect(&mut extension, OBJECT_IDENTIFIER)? == ALTERNATIVE_NAMES {
            // Whether it is critical may stand between.
            let mut value =
                std::iter::from_fn(|| next(&mut extension)).find(|(tag, _)| *tag == OCTET_STRING)?.1;
            return expect(&mut value, SEQUENCE);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_one_by_one_and_a_cut_ends_them() {
        let mut bytes = &[0x02, 1, 7, 0x30, 0x81, 2, 0x04, 0][..];
        assert_eq!(expect(&mut bytes, INTEGER), Some(&[7][..]));
        let mut inner = expect(&mut bytes, SEQUENCE).unwrap();
        assert_eq!((next(&mut inner), next(&mut bytes)), (Some((OCTET_STRING, &[][..])), None));
        for cut in [&[0x30][..], &[0x30, 2, 1], &[0x30, 0x85, 0, 0, 0, 0, 0], &[0x30, 0x80], &[0x30, 0x82, 1]]
        {
            assert_eq!(next(&mut &*cut).map(|(_, value)| value.len()).unwrap_or(0), 0, "{cut:?}");
        }
    }
}
