//! Nothing that an agent said does anything, and no fragment reaches beyond itself.

use acpbox::store::EventRow;
use acpbox::transcript::{HtmlRenderer, Page};
use serde_json::{Value, json};

use super::DESK;
use crate::render::{every_kind, row, variants};
use crate::support::browser::Browser;

/// What would show that something came through: other elements, handlers,
/// addresses, styles and scripts than the page's own.
const FOREIGN: &str = r#"(() => {
    const known = new Set(`html head meta title style body a header h1 h2 h3 h4 h5 h6 dl div dt dd
        main article section details summary footer p span pre code strong em s ul ol li blockquote
        hr br table tbody tr th td figure figcaption ins del img time`.split(/\s+/));
    const attributes = new Set(`lang charset http-equiv content name class href id dir title rel src
        alt loading data-last datetime tabindex role aria-label aria-hidden open start scope`.split(/\s+/));
    const found = [];
    for (const element of document.querySelectorAll('*')) {
        if (!known.has(element.localName)) found.push(element.outerHTML.slice(0, 200));
        for (const {name, value} of element.attributes)
            if (!attributes.has(name)) found.push(`${element.localName} ${name}=${value}`);
        if (element.localName == 'a' && !/^(https?:|mailto:|file:.*#)/.test(element.href)) found.push(element.href);
        if (element.localName == 'img' && !/^data:image\/(png|jpeg|gif|webp);base64,/.test(element.src)) found.push(element.src);
        if (element.closest('main') && element.localName == 'a' && !element.className
            && element.rel != 'noopener noreferrer nofollow') found.push(element.outerHTML);
    }
    if (document.querySelectorAll('style').length != 1) found.push('styles');
    if (window.hit) found.push('a script ran');
    if (document.querySelector('main').parentElement != document.body) found.push('main was closed');
    return found;
})()"#;

#[test]
fn nothing_that_an_agent_says_becomes_more_than_text() {
    const PAYLOADS: [&str; 9] = [
        r#""><script>hit=1</script><img src=x onerror=hit=1>"#,
        r#"' onmouseover='hit=1' x='"#,
        "</style></title></textarea><svg onload=hit=1>",
        "</div></details></article></section></main></body><iframe src=//example.org>",
        "[a](javascript:hit=1) <javascript:hit=1> [b](data:text/html,<script>hit=1</script>) ![c](//example.org/c.png)",
        "\n\n<script>\nhit=1\n</script>\n\n<base href=//example.org>",
        "```\"><script>hit=1</script>\n</code></pre><script>hit=1</script>\n```",
        "&lt;script&gt;hit=1&lt;/script&gt; &#60;img src=x onerror=hit=1&#62; &#x202e;",
        "| <b> | [x](vbscript:hit=1) |\n|---|---|\n| <script>hit=1</script> | ![y](javascript:hit=1) |",
    ];
    let mut renderer = HtmlRenderer::new(jiff::tz::TimeZone::UTC);
    let mut html = String::new();
    let mut seq = 0;
    for payload in PAYLOADS {
        for mut event in every_kind()
            .into_iter()
            .flat_map(|event| spoilt(&event, payload))
        {
            seq += 1;
            event.seq = seq;
            html.extend(renderer.feed(&event).into_iter().map(|it| it.html));
        }
    }
    html.extend(renderer.finish().into_iter().map(|it| it.html));
    assert!(html.contains("hit=1"), "the words themselves are there");
    let zone = jiff::tz::TimeZone::UTC;
    let page = Page {
        title: PAYLOADS[2],
        facts: &[("Folder", PAYLOADS[0].to_owned())],
        times: &[],
        zone: &zone,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, format!("{}{html}{}", page.head(), page.foot())).unwrap();
    let mut browser = Browser::start();
    browser.open(&file, DESK);
    assert_eq!(browser.value(FOREIGN), json!([]));
    let address = format!("file://{}", file.display());
    let others: Vec<&str> = (browser.requests().into_iter())
        .filter(|url| *url != address && !url.starts_with("data:image/"))
        .collect();
    assert_eq!(others, [""; 0]);
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
    let bad = html.chars().find(|character| {
        (character.is_control() && !matches!(character, '\n' | '\t')) || *character == '\u{202e}'
    });
    assert_eq!(bad, None, "nothing unseen either");
}

/// The event with something at the end of every string, with and without the
/// words that decide what it is left whole.
fn spoilt(event: &EventRow, payload: &str) -> Vec<EventRow> {
    fn spoil(value: &mut Value, payload: &str) {
        match value {
            Value::String(text) => *text = format!("{text}{payload}"),
            Value::Array(values) => values.iter_mut().for_each(|value| spoil(value, payload)),
            Value::Object(members) => {
                for (key, value) in members.iter_mut() {
                    let decides = ["method", "sessionUpdate", "type", "status", "mimeType"];
                    if !decides.contains(&key.as_str()) {
                        spoil(value, payload);
                    }
                }
                members.insert(format!("key{payload}"), json!(1));
            }
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&event.raw) else {
        return Vec::new();
    };
    spoil(&mut value, payload);
    let kind = format!("{}{payload}", event.kind);
    vec![
        EventRow {
            raw: value.to_string().into(),
            ..event.clone()
        },
        EventRow {
            raw: value.to_string().into(),
            kind: kind.into(),
            ..event.clone()
        },
    ]
}

#[test]
fn every_fragment_is_whole_whatever_the_message() {
    let mut renderer = HtmlRenderer::new(jiff::tz::TimeZone::UTC);
    let mut count = 0;
    let mut seq = 0;
    for event in every_kind() {
        let Ok(whole) = serde_json::from_str(&event.raw) else {
            continue;
        };
        for variant in variants(&whole) {
            seq += 1;
            let event = EventRow {
                seq,
                raw: variant.to_string().into(),
                ..event.clone()
            };
            for fragment in renderer.feed(&event) {
                assert_eq!(unbalanced(&fragment.html), None, "{}", fragment.html);
                assert!(fragment.first <= fragment.last && fragment.last <= seq);
                count += 1;
            }
        }
    }
    assert!(count > 300, "{count}");
}

/// The first tag that does not close what was opened last.
fn unbalanced(html: &str) -> Option<&str> {
    let mut open = Vec::new();
    for piece in html.split('<').skip(1) {
        let tag = piece.split('>').next().unwrap();
        match tag.strip_prefix('/') {
            Some(name) if open.pop() == Some(name) => {}
            Some(_) => return Some(tag),
            None => {
                let name = tag.split(' ').next().unwrap();
                if !["img", "br", "hr"].contains(&name) {
                    open.push(name);
                }
            }
        }
    }
    open.pop()
}

#[test]
fn pictures_are_embedded_while_there_are_not_too_many() {
    let picture = |mime: &str, data: String| {
        let content = json!({"type": "image", "mimeType": mime, "data": data});
        let update = json!({"sessionUpdate": "agent_message_chunk", "content": content});
        let message = json!({"method": "session/update", "params": {"update": update}});
        EventRow {
            raw: message.to_string().into(),
            ..row()
        }
    };
    let html = |events: &[EventRow]| {
        let mut renderer = HtmlRenderer::new(jiff::tz::TimeZone::UTC);
        let mut fragments = Vec::new();
        for event in events {
            fragments.extend(renderer.feed(event));
        }
        fragments.extend(renderer.finish());
        let html = fragments.into_iter().map(|fragment| fragment.html);
        html.collect::<String>()
    };
    for mime in ["image/png", "image/jpeg", "image/gif", "image/webp"] {
        let html = html(&[picture(mime, "AAAA".into())]);
        assert!(
            html.contains(&format!("src=\"data:{mime};base64,AAAA\"")),
            "{html}"
        );
    }
    for (mime, data) in [
        ("image/svg+xml", "AAAA".to_owned()),
        ("text/html", "AAAA".into()),
        ("IMAGE/PNG", "AAAA".into()),
        ("image/png", "AA\" onerror=\"x".into()),
        ("image/png", String::new()),
        ("image/png", "A".repeat(5 << 20)),
    ] {
        let html = html(&[picture(mime, data)]);
        assert!(
            html.contains("placeholder\">[image") && !html.contains("<img"),
            "{html:.300}"
        );
    }
    let many = vec![picture("image/png", "A".repeat(3 << 20)); 12];
    let html = html(&many);
    assert_eq!(html.matches("<img").count(), 10);
    assert_eq!(html.matches("this page has many pictures").count(), 2);
    assert!(html.len() < 33 << 20);
}
