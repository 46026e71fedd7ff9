//! Quantities with units as people write them: `"200GiB"`, `"20MiB/s"`, `"30s"`.
//!
//! A bare number is refused everywhere: nobody remembers whether it meant bytes or megabytes.

use std::time::Duration;

/// What is wrong with a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No number at the front.
    #[error("no number found; write it like {example}")]
    NoNumber {
        /// A quantity of the right kind.
        example: &'static str,
    },
    /// No unit, or one that is not known.
    #[error("unknown unit `{unit}`; use one of {units}")]
    Unit {
        /// What stood behind the number.
        unit: String,
        /// The units that are known.
        units: &'static str,
    },
    /// The value does not fit.
    #[error("the value is too large")]
    TooLarge,
}

const SIZE_UNITS: &str = "B, KB, KiB, MB, MiB, GB, GiB, TB, TiB";
const TIME_UNITS: &str = "ms, s, m, h, d";

/// Parses a size in bytes: `64KiB`, `1.5 GiB`, `200GB`.
///
/// # Errors
/// Says what is missing and which units there are.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    scale(text, "\"200GiB\"", SIZE_UNITS, |unit| {
        Some(match unit.to_ascii_lowercase().as_str() {
            "b" => 1,
            "kb" => 1_000,
            "kib" | "k" => 1 << 10,
            "mb" => 1_000_000,
            "mib" | "m" => 1 << 20,
            "gb" => 1_000_000_000,
            "gib" | "g" => 1 << 30,
            "tb" => 1_000_000_000_000,
            "tib" | "t" => 1 << 40,
            _ => return None,
        })
    })
}

/// Parses a rate in bytes per second: `20MiB/s`, or in bits per second: `100Mbit/s`.
///
/// # Errors
/// Says what is missing and which units there are.
pub fn parse_rate(text: &str) -> Result<u64, QuantityError> {
    const UNITS: &str = "B/s, KiB/s, MiB/s, GiB/s, Kbit/s, Mbit/s, Gbit/s";
    const EXAMPLE: &str = "\"20MiB/s\" or \"100Mbit/s\"";
    let number = text.trim().trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let unit = text.trim().get(number.len()..).unwrap_or_default().trim();
    let lower = unit.to_ascii_lowercase();
    if let Some(bits) = lower.strip_suffix("bit/s") {
        let factor = match bits {
            "k" => 1_000,
            "m" => 1_000_000,
            "g" => 1_000_000_000,
            _ => return Err(QuantityError::Unit { unit: unit.to_owned(), units: UNITS }),
        };
        return Ok(multiply(number, factor, EXAMPLE)? / 8);
    }
    match lower.strip_suffix("/s") {
        Some(size) if !size.is_empty() => parse_size(&format!("{number}{size}")),
        _ => Err(QuantityError::Unit { unit: unit.to_owned(), units: UNITS }),
    }
}

/// Parses a duration: `250ms`, `30s`, `5m`, `12h`, `7d`.
///
/// # Errors
/// Says what is missing and which units there are.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let millis = scale(text, "\"30s\"", TIME_UNITS, |unit| {
        Some(match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        })
    })?;
    Ok(Duration::from_millis(millis))
}

/// A size for people, in IEC units with at most one decimal: `1.5 GiB`.
pub fn render_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || (value.fract() * 10.0).round() == 0.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn scale(
    text: &str,
    example: &'static str,
    units: &'static str,
    factor: impl Fn(&str) -> Option<u64>,
) -> Result<u64, QuantityError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let unit = unit.trim();
    if number.is_empty() {
        return Err(QuantityError::NoNumber { example });
    }
    let Some(factor) = factor(unit) else {
        return Err(QuantityError::Unit { unit: unit.to_owned(), units });
    };
    multiply(number, factor, example)
}

/// `number` (with an optional fraction) times `factor`, without rounding through floating point.
fn multiply(number: &str, factor: u64, example: &'static str) -> Result<u64, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| -> Result<u64, QuantityError> {
        if text.is_empty() {
            return Ok(0);
        }
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::NoNumber { example });
        }
        text.parse().map_err(|_| QuantityError::TooLarge)
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(QuantityError::NoNumber { example });
    }
    let fraction = fraction.get(..fraction.len().min(6)).unwrap_or(fraction);
    let places = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(6));
    let part = u128::from(digits(fraction)?) * u128::from(factor) / u128::from(places);
    let whole = digits(whole)?.checked_mul(factor).ok_or(QuantityError::TooLarge)?;
    whole.checked_add(u64::try_from(part).unwrap_or(u64::MAX)).ok_or(QuantityError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_administrators_write_them() {
        assert_eq!(parse_size("200GiB"), Ok(200 << 30));
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("0B"), Ok(0));
    }

    #[test]
    fn rates_in_bytes_and_in_bits() {
        assert_eq!(parse_rate("20MiB/s"), Ok(20 << 20));
        assert_eq!(parse_rate("100Mbit/s"), Ok(12_500_000));
        assert!(matches!(parse_rate("20MiB"), Err(QuantityError::Unit { .. })));
        assert!(matches!(parse_rate("20"), Err(QuantityError::Unit { .. })));
        assert!(matches!(parse_rate("20/s"), Err(QuantityError::Unit { .. })));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert!(matches!(parse_duration("30"), Err(QuantityError::Unit { .. })));
    }

    #[test]
    fn rubbish_is_named() {
        assert!(matches!(parse_size("GiB"), Err(QuantityError::NoNumber { .. })));
        assert!(matches!(parse_size("-1GiB"), Err(QuantityError::NoNumber { .. })));
        assert!(matches!(parse_size("1.2.3GiB"), Err(QuantityError::NoNumber { .. })));
        assert_eq!(parse_size("99999999999TiB"), Err(QuantityError::TooLarge));
        assert_eq!(parse_size("99999999999999999999GiB"), Err(QuantityError::TooLarge));
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(render_size(0), "0 B");
        assert_eq!(render_size(1536), "1.5 KiB");
        assert_eq!(render_size(50 << 20), "50 MiB");
        assert_eq!(render_size(u64::MAX), "16384 PiB");
    }
}
