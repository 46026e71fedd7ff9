//! An index as lines, whatever it is packed with: unpacked as it is read, within a bound of bytes and of memory.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::super::text;
use crate::base::limits::{CATALOGUE_LINE_BYTES, CATALOGUE_UNPACKED_BYTES, UNPACK_MEMORY_KIB};
use crate::repository::listing::CatalogueError;

/// The lines of an index.
pub(super) struct Lines<'a> {
    from: Box<dyn BufRead + 'a>,
    line: Vec<u8>,
    number: u64,
    /// Bytes that may still come.
    left: u64,
}

/// How packings that are not read begin: bzip2, LZMA, Zstandard, LZ4. apt has `.xz` or `.gz` beside them.
const NOT_READ: [&[u8]; 4] = [b"BZh", b"\x5d\0\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"];

/// The lines of `body`; `None`: it is packed with something that is not read.
pub(super) fn lines(body: &[u8]) -> Option<Lines<'_>> {
    let from: Box<dyn BufRead + '_> = if body.starts_with(b"\x1f\x8b") {
        Box::new(BufReader::new(MultiGzDecoder::new(body)))
    } else if body.starts_with(b"\xfd7zXZ\0") {
        Box::new(BufReader::new(XzReader::new_mem_limit(body, true, UNPACK_MEMORY_KIB)))
    } else if NOT_READ.iter().any(|magic| body.starts_with(magic)) {
        return None;
    } else {
        Box::new(text::without_mark(body))
    };
    Some(Lines { from, line: Vec::new(), number: 0, left: CATALOGUE_UNPACKED_BYTES })
}

impl Lines<'_> {
    /// The next line without its end, with its number from 1. No UTF-8 is promised: some publishers have other text
    /// in fields that nobody here reads.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, CatalogueError> {
        self.number = self.number.saturating_add(1);
        self.line.clear();
        // One byte more than is allowed, and the line's end.
        let most = u64::try_from(CATALOGUE_LINE_BYTES + 2).unwrap_or(u64::MAX);
        let mut line = (&mut self.from).take(most);
        let read = line.read_until(b'\n', &mut self.line);
        let refuse = |reason: String| CatalogueError::at(self.number, reason);
        let read = read.map_err(|error| refuse(format!("cannot be unpacked: {error}")))?;
        if read == 0 {
            return Ok(None);
        }
        let left = u64::try_from(read).ok().and_then(|read| self.left.checked_sub(read));
        self.left =
            left.ok_or_else(|| refuse(format!("unpacks to more than {CATALOGUE_UNPACKED_BYTES} bytes")))?;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > CATALOGUE_LINE_BYTES {
            return Err(refuse(format!("is longer than {CATALOGUE_LINE_BYTES} bytes")));
        }
        if line.contains(&0) {
            return Err(refuse("has a NUL".to_owned()));
        }
        Ok(Some((self.number, line)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(body: &[u8]) -> Result<Vec<String>, CatalogueError> {
        let mut lines = lines(body).unwrap();
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next()? {
            assert_eq!(number, all.len() as u64 + 1);
            all.push(String::from_utf8_lossy(line).into_owned());
        }
        Ok(all)
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    /// `a`, an empty line and `b`, as `xz -9` packs them.
    const XZ: &[u8] = include_bytes!("../../../../tests/fuzz/corpus/packages/three-lines.xz");

    #[test]
    fn a_body_is_the_same_lines_however_it_is_packed() {
        let expected = ["a", "", "b"];
        assert_eq!(all(b"a\n\nb\n").unwrap(), expected);
        assert_eq!(all(b"\xef\xbb\xbfa\r\n\r\nb").unwrap(), expected);
        assert_eq!(all(&gzip(b"a\n\nb\n")).unwrap(), expected);
        assert_eq!(all(&[gzip(b"a\n"), gzip(b"\nb\n")].concat()).unwrap(), expected);
        assert_eq!(all(XZ).unwrap(), expected);
        assert_eq!(all(b"").unwrap(), [""; 0]);
    }

    #[test]
    fn a_packing_that_is_not_read_is_said() {
        assert!(lines(b"BZh91AY").is_none() && lines(b"\x28\xb5\x2f\xfd\0").is_none());
    }

    #[test]
    fn damage_is_an_error() {
        let packed = gzip(&b"a line\n".repeat(100));
        for cut in [3, 15, packed.len() - 1] {
            assert!(all(&packed[..cut]).is_err(), "{cut}");
        }
        for at in 8..XZ.len() {
            let mut body = XZ.to_vec();
            body[at] ^= 1;
            assert!(all(&body).is_err(), "{at}");
        }
        assert!(all(&[XZ, b"rest"].concat()).is_err());
        assert_eq!(all(b"a\nb\0\n").unwrap_err().line, 2);
    }

    #[test]
    fn a_bomb_is_an_error_after_bounded_work() {
        let bomb = gzip(&b"a line\n".repeat(100_000));
        assert!(bomb.len() < 10_000);
        let mut lines = lines(&bomb).unwrap();
        assert_eq!(lines.left, CATALOGUE_UNPACKED_BYTES);
        lines.left = 70;
        let error = std::iter::repeat_with(|| lines.next().map(|_| ())).find_map(Result::err).unwrap();
        assert_eq!((error.line, error.reason.contains("unpacks to more")), (11, true));
        let long = gzip(&vec![b'x'; CATALOGUE_LINE_BYTES + 1]);
        assert!(all(&long).unwrap_err().reason.contains("longer"));
        assert_eq!(all(&gzip(&vec![b'x'; CATALOGUE_LINE_BYTES])).unwrap().len(), 1);
    }

    #[test]
    fn a_dictionary_that_nobody_needs_is_refused() {
        // The size of the dictionary is the byte before the padding of the block's header; its CRC is made right.
        let mut body = XZ.to_vec();
        assert_eq!(&body[12..16], [2, 0, 0x21, 1], "one filter, LZMA2");
        body[16] = 40;
        let crc = crc32(&body[12..20]);
        body[20..24].copy_from_slice(&crc.to_le_bytes());
        let error = all(&body).unwrap_err();
        assert!(error.reason.contains("memory") || error.reason.contains("mem_limit"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }
}
