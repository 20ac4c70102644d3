//! What an agent wrote, made harmless for a terminal: it may name a tool, not
//! move the cursor, set the clipboard or turn the reading direction.

use std::borrow::Cow;

/// The text without control sequences, control characters, bidirectional
/// overrides and other characters that are there to be unseen.
///
/// Newlines and tabs stay, a lone carriage return becomes a newline (it would
/// let the next words replace the line). A sequence that is closed goes as a
/// whole; of one that is not, only the start goes, so that no text is hidden
/// behind it. Emoji joiners and variation selectors stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_suspect) else {
        return Cow::Borrowed(text);
    };
    let mut clean = String::with_capacity(text.len());
    clean.push_str(&text[..first]);
    let mut rest = &text[first..];
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        rest = match character {
            '\r' => {
                if !after.starts_with('\n') {
                    clean.push('\n');
                }
                after
            }
            '\x1b' => after_escape(after),
            '\u{9b}' => after_csi(after),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => after_string(after),
            character if is_suspect(character) => after,
            _ => {
                let end = rest.find(is_suspect).unwrap_or(rest.len());
                clean.push_str(&rest[..end]);
                &rest[end..]
            }
        };
    }
    Cow::Owned(clean)
}

/// [`printable`] on one line: every run of white space is one space.
pub fn printable_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in printable(text).split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

fn is_suspect(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // C0, DEL and C1.
        '\0'..='\x1f' | '\x7f'..='\u{9f}' => true,
        // Bidirectional marks, embeddings, overrides and isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            true
        }
        // Byte order mark, annotations and tags: text that nobody sees.
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// What follows ESC: CSI, a control string, or two or three characters.
fn after_escape(rest: &str) -> &str {
    let mut characters = rest.chars();
    match characters.next() {
        Some('[') => after_csi(characters.as_str()),
        Some(']' | 'P' | 'X' | '^' | '_') => after_string(characters.as_str()),
        // Intermediate bytes, then a final one: character sets and the like.
        Some(' '..='/') => {
            let end = rest
                .find(|character| !matches!(character, ' '..='/'))
                .unwrap_or(rest.len());
            match rest[end..].chars().next() {
                Some('0'..='~') => &rest[end + 1..],
                _ => &rest[end..],
            }
        }
        Some('0'..='~') => characters.as_str(),
        _ => rest,
    }
}

/// Parameter and intermediate bytes up to the final byte; all of it stays as
/// text when there is none.
fn after_csi(rest: &str) -> &str {
    match rest.find(|character| !matches!(character, ' '..='?')) {
        Some(end) if matches!(rest.as_bytes()[end], b'@'..=b'~') => &rest[end + 1..],
        _ => rest,
    }
}

/// A control string up to BEL, ST or ESC \.
fn after_string(rest: &str) -> &str {
    match rest.find(['\x07', '\u{9c}', '\x1b']) {
        Some(end) => match &rest[end..] {
            ended if ended.starts_with("\x1b\\") => &ended[2..],
            // Another sequence begins: what was before it was not a string.
            begun if begun.starts_with('\x1b') => rest,
            ended => ended
                .get(ended.chars().next().map_or(0, char::len_utf8)..)
                .unwrap_or(""),
        },
        None => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let clean = printable(text);
        assert_eq!(clean, expected);
        assert!(!clean.contains(is_suspect));
        assert_eq!(
            printable(&clean),
            expected,
            "doing it twice changes nothing"
        );
    }

    #[test]
    fn ordinary_text_is_borrowed() {
        for text in [
            "",
            "plain",
            "tab\tand\nnewline",
            "Grüße, 日本語, 👩‍👩‍👧 ❤️",
            "a [0m b ]52;c",
        ] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn csi_sequences_are_removed() {
        check("\x1b[31mred\x1b[0m", "red");
        check("a\x1b[2J\x1b[1;1Hb", "ab");
        check("a\x1b[?25lb", "ab");
        check("a\x1b[ qb", "ab");
        check("\u{9b}31mred", "red");
        check("cut off \x1b[31", "cut off 31");
    }

    #[test]
    fn control_strings_are_removed_with_their_payload() {
        check("a\x1b]52;c;ZXZpbA==\x07b", "ab");
        check("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb");
        check("a\x1b]0;title\u{9c}b", "ab");
        check("a\u{9d}0;title\x07b", "ab");
        check("a\x1bPq#0;2;0;0;0\x1b\\b", "ab");
        check("a\x1b_payload\x1b\\b\x1b^x\x1b\\c\x1bXy\x1b\\d", "abcd");
    }

    #[test]
    fn an_unclosed_control_string_hides_nothing() {
        check(
            "a\x1b]0;the rest of the message",
            "a0;the rest of the message",
        );
        check("a\x1b]0;x\x1b[31mred", "a0;xred");
        check("a\x1bPrest", "arest");
    }

    #[test]
    fn short_escapes_are_removed() {
        check("a\x1bcb", "ab");
        check("a\x1b(0b", "ab");
        check("a\x1b#8b", "ab");
        check("a\x1b7b\x1b8c", "abc");
        check("end\x1b", "end");
        check("a\x1b\x1b[31mb", "ab");
        check("a\x1büb", "aüb");
    }

    #[test]
    fn control_characters_are_removed() {
        check("a\x08\x08b\x07\0\x7f\u{85}c", "abc");
        check("a\r\nb", "a\nb");
        check("safe\rspoof", "safe\nspoof");
        check("\x0e\x0fshift", "shift");
    }

    #[test]
    fn what_turns_or_hides_text_is_removed() {
        check("gpj.\u{202e}exe", "gpj.exe");
        check("a\u{2066}b\u{2069}c\u{200f}d\u{61c}e", "abcde");
        check("\u{feff}a\u{e0041}\u{e007f}b", "ab");
    }

    #[test]
    fn a_line_has_no_line_breaks() {
        assert_eq!(
            printable_line(" a\n\tb\r\nc \x1b[1m d\u{2028}e "),
            "a b c d e"
        );
    }

    #[test]
    fn every_short_string_of_dangerous_characters_comes_out_clean() {
        let alphabet = [
            '\x1b', '[', ']', 'P', '\\', '\x07', '\u{9c}', '\u{9b}', '\r', '3', 'm', 'ü',
        ];
        let count = alphabet.len();
        for n in 0..count.pow(4) {
            let text: String = (0..4)
                .map(|place| alphabet[n / count.pow(place) % count])
                .collect();
            let clean = printable(&text);
            assert!(!clean.contains(is_suspect), "{text:?} became {clean:?}");
        }
    }
}
