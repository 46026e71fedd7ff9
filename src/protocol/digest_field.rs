//! `Repr-Digest` (RFC 9530) and the entity tag made from a digest.

use http::HeaderValue;

use crate::base::digest::Digest;

/// `Repr-Digest: sha-256=:…:` of a whole representation.
pub fn repr_digest(digest: &Digest) -> HeaderValue {
    let mut text = String::from("sha-256=:");
    base64_into(&mut text, &digest.0);
    text.push(':');
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("sha-256=::"))
}

/// The strong entity tag of a representation whose origin gave it none: `"sha256-<hex>"`. The same on every
/// handler and after every restart, so that transfers resume anywhere.
pub fn digest_tag(digest: &Digest) -> HeaderValue {
    HeaderValue::try_from(format!("\"sha256-{digest}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Base64 with padding (RFC 4648 §4).
fn base64_into(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS.get((bits >> shift & 63) as usize).copied().unwrap_or(b'=');
            out.push(char::from(if at > chunk.len() { b'=' } else { digit }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648 §10.
    #[test]
    fn base64_is_as_in_the_rfc() {
        for (plain, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            let mut out = String::new();
            base64_into(&mut out, plain.as_bytes());
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_digest_of_nothing_is_known() {
        let empty = Digest::of(b"");
        assert_eq!(repr_digest(&empty), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        assert!(digest_tag(&empty).to_str().unwrap().starts_with("\"sha256-e3b0c442"));
    }
}
