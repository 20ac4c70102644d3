//! Text into HTML: what keeps words from becoming markup.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Appends text for an element or a quoted attribute.
pub(super) fn escape(text: &str, out: &mut String) {
    out.reserve(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            _ => "&#39;",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// [`escape`] for use within `format!`.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    escape(text, &mut out);
    out
}

/// `<time>` with the time of day, the day in its title. Empty for times beyond
/// every calendar.
pub(super) fn time(milliseconds: i64, zone: &TimeZone) -> String {
    let Ok(timestamp) = Timestamp::from_millisecond(milliseconds) else {
        return String::new();
    };
    let zoned = timestamp.to_zoned(zone.clone());
    format!(
        "<time datetime=\"{timestamp}\" title=\"{}\">{}</time>",
        zoned.strftime("%Y-%m-%d %H:%M:%S %:z"),
        zoned.strftime("%H:%M:%S")
    )
}

/// `<time>` with the day too.
pub(super) fn date_and_time(milliseconds: i64, zone: &TimeZone) -> String {
    let Ok(timestamp) = Timestamp::from_millisecond(milliseconds) else {
        return String::new();
    };
    let zoned = timestamp.to_zoned(zone.clone());
    let words = zoned.strftime("%Y-%m-%d %H:%M:%S %:z");
    format!("<time datetime=\"{timestamp}\">{words}</time>")
}

/// `0.8 s`, `12 s`, `3 min 5 s`, `2 h 10 min`
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_begins_markup_is_left() {
        assert_eq!(
            escaped(r#"<a href="x" title='y'>&amp; ü</a>"#),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;amp; ü&lt;/a&gt;"
        );
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        let check = |milliseconds, expected| {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        };
        check(0, "0.0 s");
        check(1234, "1.2 s");
        check(59_999, "59 s");
        check(185_000, "3 min 5 s");
        check(7_800_000, "2 h 10 min");
    }

    #[test]
    fn a_time_beyond_every_calendar_is_left_out() {
        assert_eq!(time(i64::MAX, &TimeZone::UTC), "");
        assert_eq!(
            time(1_000, &TimeZone::UTC),
            "<time datetime=\"1970-01-01T00:00:01Z\" title=\"1970-01-01 00:00:01 +00:00\">00:00:01</time>"
        );
    }
}
