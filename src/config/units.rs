//! Sizes such as `8GiB` and durations such as `15m`.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// Bytes: `8GiB`, `512MiB`, `64KiB`, `10GB`, or a bare number.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// `500ms`, `30s`, `15m`, `2h` or `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// A time: a duration before `now` (`7d`), a date, which is its first moment
/// here, or an RFC 3339 time. Both are milliseconds since 1970.
pub fn parse_moment(text: &str, now: i64) -> Option<i64> {
    if let Some(before) = parse_duration(text) {
        let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        return Some(now.saturating_sub(before));
    }
    let text = text.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    // What says more than a day must say its zone.
    let is_date = text.len() == "2026-11-01".len();
    let date = text.parse::<jiff::civil::Date>().ok()?;
    let zoned = date.to_zoned(jiff::tz::TimeZone::system()).ok()?;
    is_date.then(|| zoned.timestamp().as_millisecond())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// A size in bytes, for serde's `deserialize_with`.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

pub(super) fn optional_size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    size(deserializer).map(Some)
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size(deserializer)?.try_into().map_err(de::Error::custom)
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A duration, or `None` for `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience(pub(super) Option<Duration>);

impl<'de> Deserialize<'de> for Patience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Patience, D::Error> {
        deserializer.deserialize_any(PatienceVisitor)
    }
}

/// A duration, or `None` for `never`, for serde's `deserialize_with`.
pub(super) fn patience<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    Ok(Patience::deserialize(deserializer)?.0)
}

/// A duration, for serde's `deserialize_with`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor)
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a size such as \"8GiB\", \"512MiB\" or a number")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        number
            .try_into()
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse_size(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a duration such as \"15m\", \"30s\" or \"500ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

struct PatienceVisitor;

impl Visitor<'_> for PatienceVisitor {
    type Value = Patience;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a duration such as \"15m\", \"30s\" or \"500ms\", or \"never\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Patience, E> {
        if text.trim() == "never" {
            return Ok(Patience(None));
        }
        parse_duration(text)
            .map(|duration| Patience(Some(duration)))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        assert_eq!(parse_size("8GiB"), Some(8 << 30));
        assert_eq!(parse_size("512 MiB"), Some(512 << 20));
        assert_eq!(parse_size("10GB"), Some(10_000_000_000));
        assert_eq!(parse_size("42"), Some(42));
        assert_eq!(parse_size("8 furlongs"), None);
        assert_eq!(parse_size("99999999TiB"), None);
        assert_eq!(parse_duration("15m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("15"), None);
        assert_eq!(parse_duration(""), None);
    }

    #[test]
    fn a_moment_is_a_duration_before_now_a_date_or_a_time() {
        let now = 1_795_000_000_000;
        assert_eq!(parse_moment("7d", now), Some(now - 7 * 86_400_000));
        assert_eq!(parse_moment("12h", now), Some(now - 12 * 3_600_000));
        assert_eq!(
            parse_moment("2026-11-01T10:00:00Z", now),
            Some(1_793_527_200_000)
        );
        assert_eq!(
            parse_moment("2026-11-01T12:00:00+02:00", now),
            Some(1_793_527_200_000)
        );
        let midnight = parse_moment("2026-11-01", now).unwrap();
        let here = jiff::Timestamp::from_millisecond(midnight)
            .unwrap()
            .to_zoned(jiff::tz::TimeZone::system());
        assert_eq!(here.strftime("%F %T").to_string(), "2026-11-01 00:00:00");
        for wrong in [
            "",
            "yesterday",
            "2026-11",
            "2026-13-01",
            "2026-11-01T10:00",
            "7",
        ] {
            assert_eq!(parse_moment(wrong, now), None, "{wrong}");
        }
    }
}
