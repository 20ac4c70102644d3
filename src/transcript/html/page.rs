//! The page around the fragments: one file that needs nothing else.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::escape::{date_and_time, escaped};

/// The style of fragments, light and dark, on a phone, a desk and paper.
pub const STYLE: &str = include_str!("style.css");

/// No script, no request, no form; no style but [`STYLE`], whose hash a test compares.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    style-src 'sha256-+rwQk4ki0vipm9CJ6cJvioikjowGBoxmrham9gNHNiY='; \
    img-src data:; base-uri 'none'; form-action 'none'";

/// What stands at the top.
pub struct Page<'a> {
    pub title: &'a str,
    /// Names and values, in order.
    pub facts: &'a [(&'a str, String)],
    /// A name and milliseconds since 1970.
    pub times: &'a [(&'a str, i64)],
    pub zone: &'a TimeZone,
}

impl Page<'_> {
    /// What comes in front of the first fragment.
    pub fn head(&self) -> String {
        let title = escaped(self.title);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{CONTENT_SECURITY_POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"robots\" content=\"noindex\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#transcript\">Skip to the transcript</a>\n\
             <header>\n<h1 dir=\"auto\">{title}</h1>\n<dl>\n"
        );
        for (name, value) in self.facts {
            let _ = writeln!(
                html,
                "<div><dt>{}</dt><dd>{}</dd></div>",
                escaped(name),
                escaped(value)
            );
        }
        for (name, time) in self.times {
            let time = date_and_time(*time, self.zone);
            let _ = writeln!(html, "<div><dt>{}</dt><dd>{time}</dd></div>", escaped(name));
        }
        html.push_str("</dl>\n</header>\n<main id=\"transcript\">\n");
        html
    }

    /// What comes behind the last one.
    pub fn foot(&self) -> String {
        format!(
            "</main>\n<footer>Exported by acpbox {}</footer>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_policy_allows_the_style_and_no_other() {
        let hash = base64(&sha256(STYLE));
        assert!(
            CONTENT_SECURITY_POLICY.contains(&format!("'sha256-{hash}'")),
            "the style has changed; its hash is now sha256-{hash}"
        );
    }

    #[test]
    fn a_title_is_text() {
        let page = Page {
            title: "</title><script>x</script>",
            facts: &[("\"><b>", "<i>".into())],
            times: &[("<u>", 0)],
            zone: &TimeZone::UTC,
        };
        let head = page.head();
        for tag in ["<script", "<b>", "<i>", "<u>"] {
            assert!(!head.contains(tag), "{head}");
        }
        assert_eq!(head.matches("</title>").count(), 1);
    }

    fn sha256(text: &str) -> Vec<u8> {
        let mut child = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let hex = String::from_utf8(output.stdout).unwrap();
        (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let number = (0..3).fold(0, |all, at| {
                all << 8 | u32::from(three.get(at).copied().unwrap_or(0))
            });
            for at in 0..4 {
                let digit = usize::try_from(number >> (18 - 6 * at) & 63).unwrap();
                text.push(match at > three.len() {
                    true => '=',
                    false => char::from(DIGITS[digit]),
                });
            }
        }
        text
    }
}
