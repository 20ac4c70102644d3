//! `acpbox sessions show`: a transcript for reading.

use serde_json::value::RawValue;

use super::Desk;
use crate::acp::extension::SessionUsage;
use crate::cli::args::SessionsShowArguments;
use crate::cli::exit::{self, Code};
use crate::cli::find;
use crate::cli::output::{self, Output};
use crate::cli::table::local_time;
use crate::server::extension;
use crate::session::interrupted::interruption;
use crate::session::usage;
use crate::store::SessionRow;
use crate::transcript::Follower;
use crate::transcript::{TerminalOptions, TerminalRenderer, printable_line};

/// Columns of text where no terminal says how many: long lines of tools are cut.
const PIPE_WIDTH: usize = 120;

pub(super) async fn run(desk: &Desk, arguments: &SessionsShowArguments) -> anyhow::Result<Code> {
    let row = find::session(&desk.store, &arguments.id).await?;
    let row = usage::caught_up(&desk.store, row).await?;
    let mut output = Output::new();
    if arguments.json {
        json(desk, &row, &mut output).await?;
    } else {
        text(desk, &row, &mut output).await?;
    }
    output.flush()?;
    Ok(exit::DONE)
}

async fn text(desk: &Desk, row: &SessionRow, output: &mut Output) -> anyhow::Result<()> {
    let style = if output.color {
        anstyle::Style::new().dimmed()
    } else {
        anstyle::Style::new()
    };
    let head = format!(
        "session {} · {} in {} · {} · {}",
        row.id,
        row.agent,
        row.vm,
        row.cwd.display(),
        local_time(row.created)
    );
    output.line(&format!("{style}{}{style:#}\n", printable_line(&head)))?;
    let mut renderer = TerminalRenderer::new(TerminalOptions {
        color: output.color,
        width: output.width.min(if output.is_terminal {
            usize::MAX
        } else {
            PIPE_WIDTH
        }),
        ..TerminalOptions::default()
    });
    let mut follower = Follower::new(&row.id, 0);
    let mut shown = String::new();
    loop {
        let events = follower.next(&desk.store).await?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            renderer.feed(event, &mut shown)?;
        }
        output.text(&std::mem::take(&mut shown))?;
    }
    if desk.holder(&row.id).is_none() {
        // Nobody has recorded yet how these ended.
        let open = desk.store.open_turns(&row.id).await?;
        for (turn, seq) in open.iter().zip(follower.last_seq() + 1..) {
            renderer.feed(&interruption(turn, seq, None), &mut shown)?;
        }
    }
    renderer.finish(&mut shown)?;
    output.text(&shown)?;
    if let Some(usage) = usage::shown(&row.usage) {
        let line = printable_line(&in_words(&usage));
        output.line(&format!("{style}{line}{style:#}"))?;
    }
    if let Some(holder) = desk.holder(&row.id) {
        output.flush()?;
        output::say(&format!(
            "the session is live in process {holder}; this is what it had said until now"
        ));
    }
    Ok(())
}

/// What the session has used, in one line.
fn in_words(usage: &SessionUsage) -> String {
    let mut parts = Vec::new();
    if usage.turns > 0 {
        let turns = match usage.turns {
            1 => "1 turn".to_owned(),
            turns => format!("{turns} turns"),
        };
        let kinds = [
            (usage.input_tokens, "input"),
            (usage.output_tokens, "output"),
            (usage.thought_tokens, "thought"),
            (usage.cached_read_tokens, "read from the cache"),
            (usage.cached_write_tokens, "written to the cache"),
        ];
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<_> = kinds
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect();
        parts.push(format!(
            "{} tokens in {turns} ({})",
            usage.total_tokens,
            kinds.join(", ")
        ));
    }
    if let (Some(used), Some(size)) = (usage.context_used, usage.context_size) {
        parts.push(format!("context {used} of {size}"));
    }
    let costs = usage.costs.iter();
    parts.extend(costs.map(|cost| format!("{:.4} {}", cost.amount, cost.currency)));
    format!("usage: {}", parts.join(" · "))
}

/// One object, written as it is read: `session`, then `events` byte for byte.
async fn json(desk: &Desk, row: &SessionRow, output: &mut Output) -> anyhow::Result<()> {
    let info = serde_json::to_string(&desk.info(row))?;
    let options =
        RawValue::from_string(row.options.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned());
    output.text(&format!(
        "{{\"session\":{info},\n\"options\":{options},\n\"events\":["
    ))?;
    let mut follower = Follower::new(&row.id, 0);
    let mut separator = "\n";
    loop {
        let events = follower.next(&desk.store).await?;
        if events.is_empty() {
            break;
        }
        for event in events {
            let event = serde_json::to_string(&extension::event(event)?)?;
            output.text(separator)?;
            output.text(&event)?;
            separator = ",\n";
        }
    }
    output.line("\n]}")
}
