//! Stored events become what people and programs read: text for a terminal,
//! Markdown, HTML.
//!
//! Rendering is pure: events in, text out. The way is [`EventRow`](crate::store::EventRow) →
//! `lenient` (JSON, however odd, with every string made [`printable`]) →
//! `timeline` (items, with answers and updates in their places) → `terminal`,
//! `markdown` or `html`. For searching it is `lenient` → [`documents`]. Nothing that an
//! agent sends makes it fail.
//!
//! [`Shown`] gives the messages themselves, as a client saw them.

mod printable;
mod terminal;
mod markdown;
mod html;
mod timeline;
mod queued;
mod item;
mod content;
mod notes;
mod diff;
mod lenient;
mod follower;
mod preamble;
mod echo;
mod shown;
pub mod meta;
pub mod terminal_content;
pub mod documents;

pub use echo::Echo;
pub use follower::Follower;
pub use html::{CONTENT_SECURITY_POLICY, Fragment, HtmlRenderer, Page, STYLE};
pub use markdown::{MarkdownRenderer, markdown};
pub use preamble::{PREAMBLE_KINDS, Preamble, preamble, preamble_weight};
pub use printable::{printable, printable_line};
pub use shown::{Shown, prompt_lines};
pub use terminal::{TerminalOptions, TerminalRenderer, terminal};
