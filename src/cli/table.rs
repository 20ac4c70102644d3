//! Tables for people: columns without lines, one line per row.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table};

use super::output::Output;
use crate::transcript::printable_line;

/// A row's cells, cleaned of what a terminal would obey.
pub(super) type Cells = Vec<String>;

/// Prints a table. On a terminal, columns from number `elastic` on share the
/// room that the others leave, and are cut to it. On a pipe nothing is cut.
pub(super) fn print(
    output: &mut Output,
    header: &[&str],
    elastic: usize,
    rows: impl IntoIterator<Item = Cells>,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if output.is_terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(output.width).unwrap_or(u16::MAX));
    }
    table.set_truncation_indicator("…");
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    for row in rows {
        let cells = row.iter().map(|cell| Cell::new(printable_line(cell)));
        let mut row = Row::from(cells.collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index < elastic {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    for line in table.lines() {
        output.line(line.trim_end())?;
    }
    Ok(())
}

/// A time as people read it, in their own zone.
pub(super) fn local_time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(
        |_| String::new(),
        |time| {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        },
    )
}

/// How long ago a time was, in one unit; for a table's narrow column.
pub(super) fn age(milliseconds: i64) -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    age_of(now.saturating_sub(milliseconds) / 1000)
}

fn age_of(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    // A clock may have been set back since: below zero is now, too.
    if seconds < MINUTE {
        "now".to_owned()
    } else if seconds < HOUR {
        format!("{} min", seconds / MINUTE)
    } else if seconds < DAY {
        format!("{} h", seconds / HOUR)
    } else {
        format!("{} d", seconds / DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::age_of;

    #[test]
    fn ages_are_in_the_largest_whole_unit() {
        for (seconds, shown) in [
            (-5, "now"),
            (59, "now"),
            (60, "1 min"),
            (3599, "59 min"),
            (7200, "2 h"),
            (86_400 * 400, "400 d"),
        ] {
            assert_eq!(age_of(seconds), shown);
        }
    }
}
