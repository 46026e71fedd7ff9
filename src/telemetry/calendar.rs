//! A moment as people and log tools write it, in UTC.

use std::fmt;

use super::access_line::push_digits;
use crate::base::clock::Timestamp;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The fields of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u64,
}

impl Calendar {
    /// Days to a date by Howard Hinnant's `civil_from_days`, for days from 1970 on.
    pub(super) const fn of(time: Timestamp) -> Self {
        let seconds = time.0 / 1_000;
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let in_era = days % 146_097;
        let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * in_year + 2) / 153;
        let day = in_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year + era * 400 + (month <= 2) as u64;
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        Self { year, month, day, hour, minute, second, millis: time.0 % 1_000 }
    }

    /// As its `Display`, appended.
    pub(super) fn push_rfc3339(self, line: &mut Vec<u8>) {
        let Self { year, month, day, hour, minute, second, millis } = self;
        let fields = [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (hour, 2, b':'),
            (minute, 2, b':'),
            (second, 2, b'.'),
            (millis, 3, b'Z'),
        ];
        for (number, width, behind) in fields {
            push_digits(line, number, width);
            line.push(behind);
        }
    }

    /// `10/Oct/2000:13:55:36 +0000`, as in NCSA logs.
    pub(super) fn ncsa(self) -> String {
        let index = usize::try_from(self.month).unwrap_or(1).saturating_sub(1);
        let month = MONTHS.get(index).copied().unwrap_or("Jan");
        let Self { year, day, hour, minute, second, .. } = self;
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }
}

/// RFC 3339 with milliseconds.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, millis } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for (millis, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (971_186_136_001, "2000-10-10T13:55:36.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Calendar::of(Timestamp(millis)).to_string(), want);
        }
        assert_eq!(Calendar::of(Timestamp(971_186_136_001)).ncsa(), "10/Oct/2000:13:55:36 +0000");
    }
}
