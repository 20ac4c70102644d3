//! Tables for people: columns without lines, one line per row.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table};

use super::output::Output;
use super::render::printable_line;

/// A row's cells, cleaned of what a terminal would obey.
pub(super) type Cells = Vec<String>;

/// Prints a table. Columns are as wide as they need to be; what does not fit
/// is cut from the last ones. On a pipe nothing is cut.
pub(super) fn print(
    output: &mut Output,
    header: &[&str],
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
        // Names and ids are there to be copied.
        if index == 0 {
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
            zoned.strftime("%Y-%m-%d %H:%M").to_string()
        },
    )
}
