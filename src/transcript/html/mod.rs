//! A transcript as HTML, one fragment per item, and the page around them.
//!
//! Whatever an agent wrote is text to begin with: tags are written by this room
//! alone, Markdown's included, and all else goes through `escape`. No fragment
//! needs a script, a style of its own or anything from a network.

mod page;
mod fragment;
mod parts;
mod markdown;
mod escape;

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::store::EventRow;

use super::item::{Block, Item, Place, Placed, Voice};
use super::timeline::Timeline;
use fragment::Fragments;

pub use fragment::Fragment;
pub use page::{CONTENT_SECURITY_POLICY, Page, STYLE};

/// A message is written when it is whole; a longer one in several fragments.
const MESSAGE_BYTES: usize = 512 * 1024;

/// Blocks of one message that wait for it to be whole.
const MESSAGE_BLOCKS: usize = 200;

/// Base64 of all pictures of one transcript: browsers hold the whole page.
const PICTURE_CHARACTERS: usize = 32 * 1024 * 1024;

/// Takes events in order and gives fragments for [`Page`], each whole in itself.
#[derive(Clone)]
pub struct HtmlRenderer {
    timeline: Timeline,
    fragments: Fragments,
    open: Option<Message>,
    /// Waits for the end of the turn, to be on one line with it.
    usage: Option<(Place, String)>,
    prompts: u64,
    /// When the turn began, until it ends.
    begun: Option<Place>,
}

/// What somebody says, as far as it is known.
#[derive(Clone)]
struct Message {
    voice: Voice,
    id: Option<String>,
    first: Place,
    last: Place,
    blocks: Vec<Block>,
    bytes: usize,
}

impl HtmlRenderer {
    /// Times are shown as in `zone`.
    pub fn new(zone: TimeZone) -> HtmlRenderer {
        HtmlRenderer {
            timeline: Timeline::new(false),
            fragments: Fragments::new(zone, PICTURE_CHARACTERS),
            open: None,
            usage: None,
            prompts: 0,
            begun: None,
        }
    }

    /// Goes on behind so many prompts, for a transcript that is not read from its
    /// beginning: any prompt is a place to begin at.
    pub fn behind_prompts(self, prompts: u64) -> HtmlRenderer {
        HtmlRenderer { prompts, ..self }
    }

    /// What is held back, as it is now. What a turn used is left to its end.
    pub fn unsettled(&self) -> Vec<Fragment> {
        let mut copy = self.clone();
        copy.usage = None;
        copy.timeline.forget_usage();
        copy.finish()
    }

    /// Gives what is whole after this event.
    pub fn feed(&mut self, event: &EventRow) -> Vec<Fragment> {
        for placed in self.timeline.feed_placed(event) {
            self.item(placed);
        }
        self.fragments.take()
    }

    /// Gives what was held back.
    pub fn finish(&mut self) -> Vec<Fragment> {
        for placed in self.timeline.finish_placed() {
            self.item(placed);
        }
        self.close();
        self.end_usage();
        self.fragments.take()
    }

    fn item(&mut self, Placed { place, item }: Placed) {
        if let Item::Chunk {
            voice,
            message,
            block,
        } = item
        {
            self.end_usage();
            return self.say(place, voice, message, block);
        }
        self.close();
        if !matches!(item, Item::TurnEnd { .. } | Item::Usage(_)) {
            self.end_usage();
        }
        match item {
            Item::Prompt(blocks) => {
                self.prompts += 1;
                self.begun = Some(place);
                self.fragments.prompt(place, self.prompts, &blocks);
            }
            Item::Chunk { .. } => {}
            Item::Tool(tool) => self.fragments.tool(place, &tool),
            Item::Plan(entries) => self.fragments.plan(place, &entries),
            Item::Permission(permission) => self.fragments.permission(place, &permission),
            Item::Note(note) => self.fragments.note(place, &note),
            Item::Usage(usage) => {
                self.end_usage();
                self.usage = Some((place, usage));
            }
            Item::Problem { text, details } => self.fragments.problem(place, &text, &details),
            Item::TurnEnd { reason } => {
                let took = self.begun.take().map(|begun| between(begun, place));
                let usage = self.usage.take().map(|(_, usage)| usage);
                self.fragments
                    .turn_end(place, &reason, took, usage.as_deref());
            }
        }
    }

    /// A turn that did not end by itself still has its usage.
    fn end_usage(&mut self) {
        if let Some((place, usage)) = self.usage.take() {
            self.fragments.note(place, &usage);
        }
    }

    /// Adds to the open message, or opens one.
    fn say(&mut self, place: Place, voice: Voice, id: Option<String>, block: Block) {
        let is_same = self
            .open
            .as_ref()
            .is_some_and(|open| open.voice == voice && open.id == id);
        if !is_same {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Message {
            voice,
            id,
            first: place,
            last: place,
            blocks: Vec::new(),
            bytes: 0,
        });
        open.last = place;
        if let Some(rest) = open.add(block) {
            let (voice, id) = (open.voice, open.id.clone());
            self.close();
            self.open = Some(Message {
                voice,
                id,
                first: place,
                last: place,
                bytes: rest.len(),
                blocks: vec![Block::Text(rest)],
            });
        } else if open.is_full() {
            self.close();
        }
    }

    /// Writes the message that is open.
    fn close(&mut self) {
        if let Some(message) = self.open.take() {
            let Message {
                voice,
                first,
                last,
                blocks,
                ..
            } = message;
            self.fragments.message(voice, first, last, &blocks);
        }
    }
}

impl Message {
    /// Takes a block. What it gives back belongs to the next fragment, since
    /// this one is long enough up to its last whole line.
    fn add(&mut self, block: Block) -> Option<String> {
        match (self.blocks.last_mut(), block) {
            (Some(Block::Text(text)), Block::Text(more)) => {
                self.bytes += more.len();
                text.push_str(&more);
                if self.bytes <= MESSAGE_BYTES {
                    return None;
                }
                let cut = text.rfind('\n').map_or(text.len(), |at| at + 1);
                let rest = text.split_off(cut);
                (!rest.is_empty()).then_some(rest)
            }
            (_, block) => {
                self.bytes += match &block {
                    Block::Text(text) | Block::Placeholder(text) => text.len(),
                    Block::Image(image) => image.data.len(),
                };
                self.blocks.push(block);
                None
            }
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > MESSAGE_BYTES || self.blocks.len() >= MESSAGE_BLOCKS
    }
}

/// Nothing, where the clock went back.
fn between(from: Place, to: Place) -> Duration {
    let milliseconds = to.time.saturating_sub(from.time);
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}
