//! What somebody looks for, from what they typed.

use std::ops::Range;

use super::words::{self, Column};

/// The longest query, in bytes, and the most words in it.
const QUERY_BYTES: usize = 1000;
const QUERY_WORDS: usize = 32;

/// Letters before a `*`: fewer begin too many words.
const PREFIX_CHARACTERS: usize = 3;

/// Words that must all occur in one document. `"Several words"` in quotes must
/// stand together, as must the words of `src/main.rs` or `snake_case`; a `*` at
/// the end of a word stands for the rest of it. Nothing else means anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchQuery {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("`query` is empty; give words to look for")]
    Empty,
    #[error("`query` holds no word, only signs; give letters or digits to look for")]
    NoWord,
    #[error("`query` is {bytes} bytes long; give at most {QUERY_BYTES}")]
    TooLong { bytes: usize },
    #[error("`query` has {words} words; give at most {QUERY_WORDS}")]
    TooManyWords { words: usize },
    #[error(
        "`{0}*` begins too many words; give at least {PREFIX_CHARACTERS} letters before the `*`"
    )]
    ShortPrefix(String),
}

/// One of several phrases.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    phrases: Vec<Vec<String>>,
    /// Whether the last word of each is only the beginning of one.
    is_prefix: bool,
}

/// Where a query's words are in a text.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// How often each term occurs.
    pub(super) counts: Vec<usize>,
    /// In bytes, ascending, apart from each other.
    pub(super) places: Vec<Range<usize>>,
}

impl SearchQuery {
    /// Errors: a query without words, or one over a bound.
    pub fn parse(text: &str) -> Result<SearchQuery, QueryError> {
        if text.len() > QUERY_BYTES {
            return Err(QueryError::TooLong { bytes: text.len() });
        }
        if text.trim().is_empty() {
            return Err(QueryError::Empty);
        }
        let mut terms = Vec::new();
        for (chunk, is_prefix) in chunks(text) {
            terms.extend(Term::of(chunk, is_prefix)?);
        }
        terms.dedup();
        let words = terms.iter().map(|term| term.phrases[0].len()).sum();
        match words {
            0 => Err(QueryError::NoWord),
            1..=QUERY_WORDS => Ok(SearchQuery { terms }),
            _ => Err(QueryError::TooManyWords { words }),
        }
    }

    /// The query as FTS5 takes it. Words hold nothing that would need an escape.
    pub(super) fn expression(&self) -> String {
        let terms = self.terms.iter().map(|term| {
            let star = if term.is_prefix { "*" } else { "" };
            let phrases = term.phrases.iter();
            let phrases: Vec<String> = phrases
                .map(|phrase| format!("\"{}\"{star}", phrase.join(" ")))
                .collect();
            format!("({})", phrases.join(" OR "))
        });
        terms.collect::<Vec<_>>().join(" AND ")
    }

    /// Finds the words again as the index did.
    pub(super) fn find(&self, text: &str) -> Found {
        let (mut whole, mut parts) = (Words::default(), Words::default());
        words::each(text, |column, word, place| match column {
            Column::Word => whole.push(word, place),
            Column::Part => parts.push(word, place),
        });
        let mut found = Found::default();
        for term in &self.terms {
            let before = found.places.len();
            for phrase in &term.phrases {
                whole.find(phrase, term.is_prefix, &mut found.places);
                parts.find(phrase, term.is_prefix, &mut found.places);
            }
            found.counts.push(found.places.len() - before);
        }
        found.places.sort_by_key(|place| (place.start, place.end));
        found.places.dedup_by(|next, before| {
            let is_overlapping = next.start < before.end;
            if is_overlapping {
                before.end = before.end.max(next.end);
            }
            is_overlapping
        });
        found
    }
}

/// What stands between spaces or quotes, and whether a `*` follows its last word.
fn chunks(text: &str) -> Vec<(&str, bool)> {
    let mut chunks = Vec::new();
    for (index, quoted) in text.split('"').enumerate() {
        if index % 2 == 1 {
            chunks.push((quoted, false));
            continue;
        }
        let mut rest = quoted;
        // `"two words"*`
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            if let Some(last) = chunks.last_mut() {
                last.1 = true;
            }
        }
        chunks.extend(rest.split_whitespace().map(|chunk| (chunk, false)));
    }
    for (chunk, is_prefix) in &mut chunks {
        let begun = chunk.trim_end_matches('*');
        if begun.len() < chunk.len() {
            (*chunk, *is_prefix) = (begun, true);
        }
    }
    chunks
}

impl Term {
    /// `None` if there is no word in it.
    fn of(chunk: &str, is_prefix: bool) -> Result<Option<Term>, QueryError> {
        let (mut whole, mut parts, mut end) = (Vec::new(), Vec::new(), 0);
        words::each(chunk, |column, word, place| {
            end = end.max(place.end);
            match column {
                Column::Word => whole.push(word.to_owned()),
                Column::Part => parts.push(word.to_owned()),
            }
        });
        let Some(last) = whole.last() else {
            return Ok(None);
        };
        // A `*` after something else than a word completes nothing.
        let is_prefix = is_prefix && end == chunk.len();
        let is_short = last.is_ascii() && last.len() < PREFIX_CHARACTERS;
        if is_prefix && whole.len() == 1 && is_short {
            return Err(QueryError::ShortPrefix(last.clone()));
        }
        let is_one_word = whole.len() == 1;
        let mut phrases = vec![whole];
        if is_one_word && !parts.is_empty() {
            phrases.push(parts);
        }
        Ok(Some(Term { phrases, is_prefix }))
    }
}

/// A text's words in one string, with their places.
#[derive(Default)]
struct Words {
    letters: String,
    words: Vec<(Range<usize>, Range<usize>)>,
}

impl Words {
    fn push(&mut self, word: &str, place: Range<usize>) {
        let start = self.letters.len();
        self.letters.push_str(word);
        self.words.push((start..self.letters.len(), place));
    }

    fn find(&self, phrase: &[String], is_prefix: bool, places: &mut Vec<Range<usize>>) {
        for window in self.words.windows(phrase.len()) {
            let mut pairs = phrase.iter().zip(window).enumerate();
            let is_here = pairs.all(|(index, (wanted, (word, _)))| {
                let word = &self.letters[word.clone()];
                match is_prefix && index + 1 == phrase.len() {
                    true => word.starts_with(wanted.as_str()),
                    false => word == wanted,
                }
            });
            if is_here && let (Some(first), Some(last)) = (window.first(), window.last()) {
                places.push(first.1.start..last.1.end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let query = SearchQuery::parse(text).unwrap();
        assert_eq!(query.expression(), expected, "{text}");
    }

    #[test]
    fn words_are_joined_and_phrases_kept() {
        check("two words", r#"("two") AND ("words")"#);
        check(r#""two words" more"#, r#"("two words") AND ("more")"#);
        check("src/main.rs", r#"("src main rs")"#);
        check("relay*", r#"("relay"*)"#);
        check(r#""the rel"* "the rel*""#, r#"("the rel"*)"#);
        check("parseHttp*", r#"("parsehttp"* OR "parse http"*)"#);
        check("漢字", r#"("漢 字")"#);
    }

    #[test]
    fn signs_mean_nothing() {
        check(
            "NEAR(a b) -c ^d col:e + AND OR",
            r#"("near a") AND ("b") AND ("c") AND ("d") AND ("col e") AND ("and") AND ("or")"#,
        );
        check(r#"un"closed phrase"#, r#"("un") AND ("closed phrase")"#);
        check(r#"a""b"" * ** ('c')"#, r#"("a") AND ("b") AND ("c")"#);
        check("c++*", r#"("c")"#);
    }

    #[test]
    fn what_cannot_be_looked_for_is_named() {
        let error = |text: &str| SearchQuery::parse(text).unwrap_err().to_string();
        assert!(error(" \n").contains("empty"));
        assert!(error("\" * () -").contains("no word"));
        assert!(error(&"x".repeat(1001)).contains("1001 bytes"));
        assert!(error(&"x y ".repeat(40)).contains("80 words"));
        assert!(error("ab*").contains("`ab*`"));
        assert!(SearchQuery::parse("漢*").is_ok());
    }

    #[test]
    fn places_of_words_are_found_again() {
        let check = |query: &str, text: &str, expected: &[&str]| {
            let found = SearchQuery::parse(query).unwrap().find(text);
            let places: Vec<&str> = found.places.iter().map(|it| &text[it.clone()]).collect();
            assert_eq!(places, expected, "{query}");
        };
        check("b a", "a c B", &["a", "B"]);
        check("\"a b\"", "b a, b; a x b", &["a, b"]);
        check("http", "see parseHttpUrl.", &["Http"]);
        check(
            "ParseHttp*",
            "see parseHttpUrl and parsehttp",
            &["parseHttpUrl", "parsehttp"],
        );
        check("\"a b c\"", "a b", &[]);
    }
}
