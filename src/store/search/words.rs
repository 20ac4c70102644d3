//! Text as words: what a search compares.
//!
//! Upper and lower case, accents and compatibility forms (`ﬁ`, full width) are
//! the same. `_`, `/`, `.`, `-` and the like divide words, so that a path and
//! `snake_case` are phrases. A word with capitals inside, as `parseHttpUrl`, is
//! one word and its parts besides. Scripts that put no space between words are
//! taken character by character. Changing any of it needs a migration that
//! empties the index: what is deleted from it is cut into words anew.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longer words are compared by so many bytes: nobody types more of a hash.
const WORD_BYTES: usize = 64;

/// The columns of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Word,
    /// A part of the word that comes next.
    Part,
}

/// Gives each word of `text`, folded, with its place in bytes. It holds ASCII
/// digits and small letters and characters that are not ASCII, nothing else.
pub(super) fn each(text: &str, give: impl FnMut(Column, &str, Range<usize>)) {
    let mut cutter = Cutter {
        give,
        folded: String::new(),
        start: 0,
        end: 0,
        seams: Vec::new(),
        case: Case::None,
        last: (0, 0),
    };
    for (at, character) in text.char_indices() {
        cutter.take(at, character);
    }
    cutter.finish_word();
}

/// The words of one column, with a space between two.
pub(super) fn joined(text: &str) -> (String, String) {
    let (mut words, mut parts) = (String::new(), String::new());
    each(text, |column, word, _| {
        let all = match column {
            Column::Word => &mut words,
            Column::Part => &mut parts,
        };
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(word);
    });
    (words, parts)
}

struct Cutter<F> {
    give: F,
    /// The word at hand.
    folded: String,
    start: usize,
    end: usize,
    /// Where its parts after the first begin: in `folded` and in the text.
    seams: Vec<(usize, usize)>,
    case: Case,
    /// Where its last character begins, likewise.
    last: (usize, usize),
}

/// What the word's last characters were.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    None,
    Lower,
    Upper,
    /// Two capitals or more.
    Capitals,
}

impl<F: FnMut(Column, &str, Range<usize>)> Cutter<F> {
    fn take(&mut self, at: usize, character: char) {
        if character.is_ascii() {
            if character.is_ascii_alphanumeric() {
                self.join(at, character);
            } else {
                self.finish_word();
            }
        } else if is_unseen(character) {
            self.end += if self.folded.is_empty() {
                0
            } else {
                character.len_utf8()
            };
        } else if stands_alone(character) {
            self.finish_word();
            let folded: String = std::iter::once(character).nfkc().collect();
            (self.give)(Column::Word, &folded, at..at + character.len_utf8());
        } else if character.is_alphanumeric() || is_combining_mark(character) {
            self.join(at, character);
        } else {
            self.finish_word();
        }
    }

    fn join(&mut self, at: usize, character: char) {
        if self.folded.is_empty() {
            self.start = at;
            self.case = Case::None;
        }
        self.end = at + character.len_utf8();
        let here = (self.folded.len(), at);
        let is_upper = character.is_uppercase();
        match (self.case, is_upper) {
            (Case::Lower, true) => self.seams.push(here),
            // `HTTPServer`: the last capital belongs to what follows.
            (Case::Capitals, false) if character.is_alphabetic() => self.seams.push(self.last),
            _ => {}
        }
        self.case = match (self.case, is_upper) {
            (case, false) if character.is_numeric() => case,
            (_, false) => Case::Lower,
            (Case::None | Case::Lower, true) => Case::Upper,
            (Case::Upper | Case::Capitals, true) => Case::Capitals,
        };
        self.last = here;
        if self.folded.len() >= WORD_BYTES {
            return;
        }
        if character.is_ascii() {
            self.folded.push(character.to_ascii_lowercase());
            return;
        }
        for decomposed in std::iter::once(character).nfkd() {
            for lower in decomposed.to_lowercase() {
                match lower {
                    'ς' => self.folded.push('σ'),
                    lower if is_accent(lower) => {}
                    lower if lower.is_alphanumeric() || is_combining_mark(lower) => {
                        self.folded.push(lower);
                    }
                    _ => {}
                }
            }
        }
    }

    fn finish_word(&mut self) {
        if !self.folded.is_empty() {
            if self.folded.len() < WORD_BYTES {
                self.give_parts();
            }
            (self.give)(Column::Word, &self.folded, self.start..self.end);
            self.folded.clear();
        }
        self.seams.clear();
    }

    fn give_parts(&mut self) {
        if self.seams.is_empty() {
            return;
        }
        let mut begin = (0, self.start);
        for end in self.seams.drain(..).chain([(self.folded.len(), self.end)]) {
            if begin.0 < end.0 {
                (self.give)(Column::Part, &self.folded[begin.0..end.0], begin.1..end.1);
            }
            begin = end;
        }
    }
}

/// Accents, which make no other word.
fn is_accent(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// What may stand in a word without being part of it: soft hyphens, joiners,
/// variation selectors.
fn is_unseen(character: char) -> bool {
    is_accent(character)
        || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{fe00}'..='\u{fe0f}')
}

/// Characters that are words by themselves: of scripts that are written without
/// spaces, and pictures.
fn stands_alone(character: char) -> bool {
    matches!(character,
        // Thai, Lao, Myanmar, Khmer.
        '\u{e01}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Hangul, kana, Han, with half-width forms.
        | '\u{1100}'..='\u{11ff}' | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}'
        | '\u{309d}'..='\u{30fa}' | '\u{30fc}'..='\u{318e}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}' | '\u{20000}'..='\u{3ffff}'
        // Arrows, mathematics and pictures, but for the lines of boxes.
        | '\u{2190}'..='\u{23ff}' | '\u{25a0}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, words: &str, parts: &str) {
        assert_eq!(joined(text), (words.to_owned(), parts.to_owned()), "{text}");
    }

    #[test]
    fn text_is_cut_into_words() {
        check("Hello, World!", "hello world", "");
        check("src/main.rs:12 snake_case", "src main rs 12 snake case", "");
        check("don't (NEAR) -x \"q\" *", "don t near x q", "");
        check("utf8 V2.1 sha256", "utf8 v2 1 sha256", "");
    }

    #[test]
    fn capitals_inside_divide_a_word_into_parts_besides() {
        check("parseHttpUrl", "parsehttpurl", "parse http url");
        check("HTTPServer", "httpserver", "http server");
        check("GitHub github", "github github", "git hub");
        check("README Readme I", "readme readme i", "");
    }

    #[test]
    fn case_accents_and_forms_of_a_letter_are_the_same() {
        check("Crème BRÛLÉE", "creme brulee", "");
        check("cre\u{300}me", "creme", "");
        check("ｆｕｌｌ ﬁne Ⅳ", "full fine iv", "");
        check("ΟΔΟΣ οδός İstanbul", "οδοσ οδοσ istanbul", "");
        check("soft\u{ad}hyphen", "softhyphen", "");
    }

    #[test]
    fn scripts_without_spaces_and_pictures_are_words_by_character() {
        check("漢字テスト", "漢 字 テ ス ト", "");
        check("한국어 test", "한 국 어 test", "");
        check("ship it 🚀👍🏽!", "ship it 🚀 👍 🏽", "");
        check("┌──┐ │ … —", "", "");
        check("हिन्दी", "हिन्दी", "");
    }

    #[test]
    fn a_long_word_is_compared_by_its_beginning() {
        let (words, parts) = joined(&"aB".repeat(5000));
        assert_eq!((words.len(), parts.as_str()), (WORD_BYTES, ""));
    }

    #[test]
    fn places_are_those_in_the_text() {
        let text = "é parseHttp_漢";
        let mut found = Vec::new();
        each(text, |_, word, place| {
            found.push((word.to_owned(), &text[place]))
        });
        let found: Vec<_> = found
            .iter()
            .map(|(word, place)| (word.as_str(), *place))
            .collect();
        assert_eq!(
            found,
            [
                ("e", "é"),
                ("parse", "parse"),
                ("http", "Http"),
                ("parsehttp", "parseHttp"),
                ("漢", "漢")
            ]
        );
    }
}
