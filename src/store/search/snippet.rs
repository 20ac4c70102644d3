//! The piece of a text that shows best why it was found.

use std::ops::Range;

/// About how many characters a snippet has.
const CHARACTERS: usize = 200;

/// Characters before the first word that was found.
const BEFORE: usize = 40;

/// A piece of a snippet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnippetPart {
    pub text: String,
    /// Whether it is what was looked for.
    pub is_match: bool,
}

/// The stretch of `text` with the most `places` in it, on one line, `…` where
/// it is cut.
pub(super) fn snippet(text: &str, places: &[Range<usize>]) -> Vec<SnippetPart> {
    let is_short = after(text, 0, CHARACTERS) == text.len();
    let start = match best(text, places) {
        Some(best) if !is_short => cut_before(text, best),
        _ => 0,
    };
    let mut parts = Parts::default();
    if start > 0 {
        parts.push("…", false);
    }
    let end = after(text, start, CHARACTERS);
    let mut at = start;
    for place in places
        .iter()
        .filter(|place| place.start >= start && place.start < end)
    {
        parts.push(&text[at..place.start], false);
        // A long phrase is cut too.
        let to = place.end.min(after(text, place.start, CHARACTERS));
        parts.push(&text[place.start..to], true);
        at = to;
    }
    let end = cut_after(text, end.max(at)).max(at);
    parts.push(&text[at..end], false);
    if end < text.len() {
        parts.push("…", false);
    }
    parts.finish()
}

/// Places that are compared: a text may hold nothing else.
const COMPARED: usize = 200;

/// Where the place begins that has the most others close behind it.
fn best(text: &str, places: &[Range<usize>]) -> Option<usize> {
    let mut first = places.first()?.start;
    let (mut most, mut last) = (0, 0);
    for (index, place) in places.iter().enumerate().take(COMPARED) {
        let end = after(text, place.start, CHARACTERS - BEFORE);
        last = last.max(index);
        while places.get(last).is_some_and(|place| place.end <= end) {
            last += 1;
        }
        if last - index > most {
            (most, first) = (last - index, place.start);
        }
    }
    Some(first)
}

/// Some characters back, at the beginning of a word.
fn cut_before(text: &str, at: usize) -> usize {
    let from = text[..at].char_indices().rev().nth(BEFORE);
    let Some((from, _)) = from else { return 0 };
    match text[from..at].find(char::is_whitespace) {
        Some(space) => {
            let rest = &text[from + space..at];
            at - rest.trim_start().len()
        }
        None => from,
    }
}

/// Back from a place in the middle of a word, if the word began close by.
fn cut_after(text: &str, at: usize) -> usize {
    if at == text.len() {
        return at;
    }
    let from = text[..at].char_indices().rev().nth(BEFORE / 2);
    let from = from.map_or(0, |(from, _)| from);
    match text[from..at].rfind(char::is_whitespace) {
        Some(space) => from + space,
        None => at,
    }
}

fn after(text: &str, from: usize, characters: usize) -> usize {
    let end = text[from..].char_indices().nth(characters);
    end.map_or(text.len(), |(end, _)| from + end)
}

/// Pieces with every run of white space as one space.
#[derive(Default)]
struct Parts {
    parts: Vec<SnippetPart>,
    /// Whether a space is due before the next word.
    space: bool,
}

impl Parts {
    fn push(&mut self, text: &str, is_match: bool) {
        let mut clean = String::with_capacity(text.len());
        for character in text.chars() {
            if character.is_whitespace() {
                self.space = !clean.is_empty() || !self.parts.is_empty();
                continue;
            }
            if std::mem::take(&mut self.space) {
                match self.parts.last_mut() {
                    // A match begins with its own word.
                    Some(last) if clean.is_empty() && is_match && !last.is_match => {
                        last.text.push(' ');
                    }
                    Some(_) if clean.is_empty() && is_match => self.parts.push(SnippetPart {
                        text: " ".to_owned(),
                        is_match: false,
                    }),
                    _ => clean.push(' '),
                }
            }
            clean.push(character);
        }
        match self.parts.last_mut() {
            _ if clean.is_empty() => {}
            Some(last) if last.is_match == is_match && !is_match => last.text.push_str(&clean),
            _ => self.parts.push(SnippetPart {
                text: clean,
                is_match,
            }),
        }
    }

    fn finish(self) -> Vec<SnippetPart> {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::SearchQuery;
    use super::*;

    fn marked(query: &str, text: &str) -> String {
        let found = SearchQuery::parse(query).unwrap().find(text);
        let parts = snippet(text, &found.places).into_iter();
        parts
            .map(|part| match part.is_match {
                true => format!("[{}]", part.text),
                false => part.text,
            })
            .collect()
    }

    #[test]
    fn a_short_text_is_shown_whole_on_one_line() {
        assert_eq!(marked("two", "  one\n\n two\tthree "), "one [two] three");
        assert_eq!(marked("two one", "one two"), "[one] [two]");
        assert_eq!(marked("\"one two\"", "one,\n two"), "[one, two]");
        assert_eq!(marked("absent", "one two"), "one two");
    }

    #[test]
    fn the_place_with_the_most_words_is_shown() {
        let filling = "some filling words ".repeat(40);
        let text = format!("relay {filling} the relay's bench {filling}");
        let shown = marked("relay bench", &text);
        assert!(shown.contains("the [relay]'s [bench] some"), "{shown}");
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        assert!(shown.chars().count() < CHARACTERS + 10, "{shown}");
    }

    #[test]
    fn no_text_is_cut_inside_a_character() {
        let text = "漢字👩‍👩‍👧é".repeat(500);
        for query in ["漢字", "👧", "é"] {
            let shown = marked(query, &text);
            assert!(shown.contains('['), "{shown}");
        }
        let long = "x".repeat(100_000);
        assert!(marked("xxx*", &long).len() < 300);
        assert!(marked("aa", &format!("{long} aa {long}")).contains("[aa]"));
    }
}
