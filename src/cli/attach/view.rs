//! What is shown of the session: its events as text, and what is said beside.

use crate::cli::output::{Output, Stream};
use crate::store::EventRow;
use crate::transcript::{TerminalOptions, TerminalRenderer, printable_line};

/// Columns of text where no terminal says how many: long lines of tools are cut.
const PIPE_WIDTH: usize = 120;

pub(super) struct View {
    out: Stream,
    renderer: TerminalRenderer,
    color: bool,
    /// Whether what was shown last asks for a line.
    is_asking: bool,
}

impl View {
    /// Call within a tokio runtime.
    pub(super) fn new() -> View {
        let out = Stream::new();
        let Output { color, width, .. } = Output::new();
        let options = TerminalOptions {
            color,
            width: match out.is_terminal {
                true => width,
                false => PIPE_WIDTH,
            },
            live: true,
            ..TerminalOptions::default()
        };
        View {
            out,
            renderer: TerminalRenderer::new(options),
            color,
            is_asking: false,
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.out.is_terminal
    }

    pub(super) async fn event(&mut self, event: &EventRow) -> anyhow::Result<()> {
        let mut text = String::new();
        self.renderer.feed(event, &mut text)?;
        // It comes below what is asked, and what is half typed there.
        if self.is_asking && !text.is_empty() {
            self.is_asking = false;
            self.out.break_lines(1).await?;
        }
        self.out.write(&text).await
    }

    /// Takes an event that the person sees already: the prompt just typed.
    pub(super) fn skip(&mut self, event: &EventRow) -> anyhow::Result<()> {
        let mut text = String::new();
        self.renderer.feed(event, &mut text)?;
        Ok(self.renderer.finish(&mut text)?)
    }

    /// A line beside the conversation.
    pub(super) async fn note(&mut self, text: &str) -> anyhow::Result<()> {
        self.settle().await?;
        let style = match self.color {
            true => anstyle::Style::new().dimmed(),
            false => anstyle::Style::new(),
        };
        let line = printable_line(text);
        self.out.write(&format!("{style}{line}{style:#}\n")).await
    }

    /// Text of our own making, as it is.
    pub(super) async fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.settle().await?;
        self.out.write(text).await
    }

    /// What asks for a line.
    pub(super) async fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        self.text(text).await?;
        self.is_asking = true;
        Ok(())
    }

    /// Whether nothing was shown since.
    pub(super) fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// The person ended the line that was open, on the same terminal.
    pub(super) fn typed(&mut self) {
        self.is_asking = false;
        if self.out.is_terminal {
            self.out.was_ended();
        }
    }

    /// Ends the line that is open.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        self.is_asking = false;
        let mut text = String::new();
        self.renderer.finish(&mut text)?;
        self.out.write(&text).await?;
        self.out.break_lines(1).await
    }
}
