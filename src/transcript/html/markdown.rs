//! Markdown of agents as HTML: its structure becomes tags of a fixed list, all
//! else, raw HTML included, is text.

use std::fmt::Write as _;

use pulldown_cmark::{Alignment, CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};

use super::escape::{escape, escaped};
use crate::transcript::printable::printable;

/// Quotes in lists in quotes: what is deeper is written without tags of its own.
const DEPTH: usize = 20;

/// The schemes that a link may have.
const SCHEMES: [&str; 3] = ["http://", "https://", "mailto:"];

/// Text as it was typed.
pub(super) fn plain(text: &str, html: &mut String) {
    html.push_str("<div class=\"typed\" dir=\"auto\">");
    escape(text.trim_matches('\n'), html);
    html.push_str("</div>");
}

/// Text as Markdown.
pub(super) fn render(text: &str, html: &mut String) {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer {
        html,
        open: Vec::new(),
        deep: 0,
        alignments: Vec::new(),
        column: 0,
        is_head: false,
        links: 0,
    };
    writer.html.push_str("<div class=\"text\" dir=\"auto\">");
    for event in Parser::new_ext(text, options) {
        writer.event(event);
    }
    // The parser closes what it opens; this holds whatever it does.
    while let Some(close) = writer.open.pop() {
        writer.html.push_str(close);
    }
    writer.html.push_str("</div>");
}

struct Writer<'a> {
    html: &'a mut String,
    /// What closes the open elements, outermost first; "" where none was written.
    open: Vec<&'static str>,
    /// How many of the open elements were not written because they are too deep.
    deep: usize,
    alignments: Vec<Alignment>,
    column: usize,
    is_head: bool,
    /// Links that are open: one within another is no link.
    links: usize,
}

impl Writer<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(end) => self.end(end),
            // A message is not to bring back by an entity what was taken out of it.
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                escape(&printable(&text), self.html);
            }
            Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.html.push_str("<code>");
                escape(&printable(&text), self.html);
                self.html.push_str("</code>");
            }
            Event::FootnoteReference(name) => escape(&printable(&name), self.html),
            Event::SoftBreak => self.html.push('\n'),
            Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            Event::TaskListMarker(true) => self.html.push_str("☑ "),
            Event::TaskListMarker(false) => self.html.push_str("☐ "),
        }
    }

    fn start(&mut self, tag: &Tag) {
        if self.open.len() - self.deep >= DEPTH {
            self.deep += 1;
            return self.open.push("");
        }
        let (open, close) = match tag {
            Tag::Paragraph => ("<p>", "</p>"),
            Tag::Heading { level, .. } => {
                // The page has two levels of its own above.
                let (open, close) = match *level as usize {
                    1 => ("<h3>", "</h3>"),
                    2 => ("<h4>", "</h4>"),
                    3 => ("<h5>", "</h5>"),
                    _ => ("<h6>", "</h6>"),
                };
                (open, close)
            }
            Tag::BlockQuote(_) => ("<blockquote>", "</blockquote>"),
            Tag::CodeBlock(kind) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.split([' ', ',']).next(),
                    CodeBlockKind::Indented => None,
                };
                let label = match language.filter(|language| !language.is_empty()) {
                    Some(language) => format!("code, {}", printable(language)),
                    None => "code".to_owned(),
                };
                // Wide code scrolls, with the keyboard too.
                let _ = write!(
                    self.html,
                    "<pre tabindex=\"0\" role=\"region\" aria-label=\"{}\" dir=\"ltr\">",
                    escaped(&label)
                );
                ("<code>", "</code></pre>")
            }
            Tag::HtmlBlock => ("<p class=\"typed\">", "</p>"),
            Tag::List(None) => ("<ul>", "</ul>"),
            Tag::List(Some(first)) => {
                let _ = write!(self.html, "<ol start=\"{first}\">");
                ("", "</ol>")
            }
            Tag::Item => ("<li>", "</li>"),
            Tag::Table(alignments) => {
                self.alignments.clone_from(alignments);
                let open = "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"table\"><table>";
                (open, "</table></div>")
            }
            Tag::TableHead | Tag::TableRow => {
                self.column = 0;
                self.is_head = matches!(tag, Tag::TableHead);
                ("<tr>", "</tr>")
            }
            Tag::TableCell => self.cell(),
            Tag::Emphasis => ("<em>", "</em>"),
            Tag::Strong => ("<strong>", "</strong>"),
            Tag::Strikethrough => ("<s>", "</s>"),
            Tag::Superscript => ("<sup>", "</sup>"),
            Tag::Subscript => ("<sub>", "</sub>"),
            Tag::Link {
                link_type,
                dest_url,
                ..
            } => {
                let mail = matches!(link_type, LinkType::Email);
                let target = match mail {
                    true => format!("mailto:{dest_url}"),
                    false => dest_url.to_string(),
                };
                ("", self.link(&target))
            }
            Tag::Image { dest_url, .. } => {
                // Nothing is loaded: a picture elsewhere would tell who reads this.
                self.html.push_str("[image: ");
                ("", self.link(dest_url))
            }
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::MetadataBlock(_) => ("", ""),
        };
        self.html.push_str(open);
        self.open.push(close);
    }

    fn end(&mut self, end: TagEnd) {
        let Some(close) = self.open.pop() else { return };
        // Elements that are too deep are innermost, so they close first.
        if self.deep > 0 {
            self.deep -= 1;
            return;
        }
        self.html.push_str(close);
        if close == "</a>" {
            self.links -= 1;
        }
        if end == TagEnd::Image {
            self.html.push(']');
        }
    }

    fn cell(&mut self) -> (&'static str, &'static str) {
        let alignment = self.alignments.get(self.column);
        self.column += 1;
        let (element, close) = match self.is_head {
            true => ("th scope=\"col\"", "</th>"),
            false => ("td", "</td>"),
        };
        let class = match alignment {
            Some(Alignment::Right) => " class=\"right\"",
            Some(Alignment::Center) => " class=\"center\"",
            _ => "",
        };
        let _ = write!(self.html, "<{element}{class}>");
        ("", close)
    }

    /// Opens a link, or for a target that none may have a mere note of it.
    fn link(&mut self, target: &str) -> &'static str {
        let target = printable(target);
        let is_safe = SCHEMES.iter().any(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let target = escaped(&target);
        if is_safe && self.links == 0 {
            self.links += 1;
            let _ = write!(
                self.html,
                "<a href=\"{target}\" title=\"{target}\" rel=\"noopener noreferrer nofollow\">"
            );
            "</a>"
        } else {
            let _ = write!(self.html, "<span class=\"target\" title=\"{target}\">");
            "</span>"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut html = String::new();
        render(text, &mut html);
        let inner = html.strip_prefix("<div class=\"text\" dir=\"auto\">");
        let inner = inner.and_then(|html| html.strip_suffix("</div>"));
        assert_eq!(inner, Some(expected), "{text:?}");
    }

    #[test]
    fn structure_becomes_tags() {
        check(
            "# A\n\nb **c** `<d>`\n",
            "<h3>A</h3><p>b <strong>c</strong> <code>&lt;d&gt;</code></p>",
        );
        check("- [x] a\n- b", "<ul><li>☑ a</li><li>b</li></ul>");
        check("7. a", "<ol start=\"7\"><li>a</li></ol>");
        check("~~a~~  \nb", "<p><s>a</s><br>b</p>");
        check(
            "|a|b|\n|-|-:|\n|1|2|",
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"table\"><table>\
             <tr><th scope=\"col\">a</th><th scope=\"col\" class=\"right\">b</th></tr>\
             <tr><td>1</td><td class=\"right\">2</td></tr></table></div>",
        );
        check(
            "```r\"><b>\nx<y\n```",
            "<pre tabindex=\"0\" role=\"region\" aria-label=\"code, r&quot;&gt;&lt;b&gt;\" dir=\"ltr\">\
             <code>x&lt;y\n</code></pre>",
        );
    }

    #[test]
    fn html_is_text() {
        check(
            "<script>x</script>",
            "<p class=\"typed\">&lt;script&gt;x&lt;/script&gt;</p>",
        );
        check(
            "a <img src=x onerror=y> b",
            "<p>a &lt;img src=x onerror=y&gt; b</p>",
        );
        check("&lt;b&gt; &#60;i&#62;", "<p>&lt;b&gt; &lt;i&gt;</p>");
        check("a&#8238;b&#27;[31mc", "<p>ab[31mc</p>");
    }

    #[test]
    fn links_lead_to_the_web_or_to_mail() {
        let link = |target: &str, text: &str| {
            format!(
                "<p><a href=\"{target}\" title=\"{target}\" rel=\"noopener noreferrer nofollow\">{text}</a></p>"
            )
        };
        let note = |target: &str, text: &str| {
            format!("<p><span class=\"target\" title=\"{target}\">{text}</span></p>")
        };
        check(
            "[a](https://example.org/?a=1&b)",
            &link("https://example.org/?a=1&amp;b", "a"),
        );
        check("[a](HTTP://example.org)", &link("HTTP://example.org", "a"));
        check(
            "<me@example.org>",
            &link("mailto:me@example.org", "me@example.org"),
        );
        for target in [
            "javascript:alert(1)",
            "JaVaScRiPt:x",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "//example.org",
            "src/a.rs",
            "&#106;avascript:x",
        ] {
            let decoded = target.replace("&#106;", "j");
            check(&format!("[a]({target})"), &note(&decoded, "a"));
        }
        check("[a](<java\tscript:x>)", &note("java\tscript:x", "a"));
        check(
            "[a](https://example.org/\"onclick=x)",
            &link("https://example.org/&quot;onclick=x", "a"),
        );
    }

    #[test]
    fn pictures_elsewhere_are_not_loaded() {
        check(
            "![alt](https://example.org/x.png)",
            "<p>[image: <a href=\"https://example.org/x.png\" title=\"https://example.org/x.png\" rel=\"noopener noreferrer nofollow\">alt</a>]</p>",
        );
        check(
            "[![alt](javascript:x)](https://example.org/)",
            "<p><a href=\"https://example.org/\" title=\"https://example.org/\" rel=\"noopener noreferrer nofollow\">\
             [image: <span class=\"target\" title=\"javascript:x\">alt</span>]</a></p>",
        );
    }

    #[test]
    fn what_is_nested_deep_is_flat_and_quick() {
        let mut html = String::new();
        for nasty in [
            ">".repeat(50_000) + "x",
            "- ".repeat(50_000) + "x",
            "*a _b ".repeat(20_000),
            "[".repeat(50_000),
            "`".repeat(50_000) + "a",
            "![[](".repeat(20_000),
            "<!--".repeat(20_000),
            "|a".repeat(20_000) + "\n" + &"|-".repeat(20_000),
        ] {
            let begun = std::time::Instant::now();
            html.clear();
            render(&nasty, &mut html);
            assert!(begun.elapsed().as_secs() < 5, "{:.20}", nasty);
            let depth = html.matches("<blockquote>").count() + html.matches("<ul>").count();
            assert!(depth <= DEPTH, "{depth}");
        }
    }
}
