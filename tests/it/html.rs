//! Exported pages, in a real browser: what a person sees, and that nothing an
//! agent said does anything.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use acpbox::store::EventRow;
use acpbox::transcript::{HtmlRenderer, Page};
use serde_json::{Value, json};

use crate::cli::Place;
use crate::render::{every_kind, row, variants};
use crate::support::browser::{Browser, View};
use crate::support::transcripts::{CONVERSATION, SESSION, Transcript};

const PHONE: View = View {
    width: 360,
    height: 740,
    is_phone: true,
    is_dark: false,
};

const DESK: View = View {
    width: 1280,
    height: 900,
    is_phone: false,
    is_dark: false,
};

/// Every text whose colour is too close to what is behind it (WCAG 2, AA).
const FAINT: &str = r#"(() => {
    document.querySelectorAll('details').forEach(it => it.open = true);
    const rgb = text => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let it = element; it; it = it.parentElement) {
            const color = rgb(getComputedStyle(it).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const element of document.querySelectorAll('body *')) {
        const texts = [...element.childNodes].filter(it => it.nodeType == 3 && it.data.trim());
        if (!texts.length) continue;
        const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint.push(`${element.className} ${contrast} ${texts[0].data}`);
    }
    return faint;
})()"#;

#[test]
fn a_page_reads_well_on_a_phone_and_a_desk_by_day_and_by_night() {
    let (_place, page) = exported(CONVERSATION);
    let mut browser = Browser::start();
    for (name, view) in [("phone", PHONE), ("desk", DESK)] {
        for is_dark in [false, true] {
            let view = View { is_dark, ..view };
            browser.open(&page, view);
            let seen = browser.value("innerWidth");
            assert_eq!(seen, view.width, "the page is as wide as the {name}");
            let width = browser.value("document.documentElement.scrollWidth");
            assert!(
                width.as_u64() <= Some(view.width.into()),
                "{name}: {width} wide"
            );
            let faint = browser.value(FAINT);
            assert_eq!(faint, json!([]), "{name}, {is_dark}");
            let width = browser.value("document.documentElement.scrollWidth");
            assert!(
                width.as_u64() <= Some(view.width.into()),
                "{name}, unfolded: {width}"
            );
            browser.open(&page, view);
            let light = if is_dark { "dark" } else { "light" };
            browser.screenshot(&format!("{name}-{light}.png"));
        }
    }
    // The policy lets the style in, and pictures.
    let border = "getComputedStyle(document.querySelector('.prompt')).borderLeftWidth";
    assert_eq!(browser.value(border), "4px");
    let picture = "document.querySelector('.prompt img').decode().then(() => \
                   document.querySelector('.prompt img').naturalWidth)";
    assert_eq!(browser.value(picture), 96);
    let address = format!("file://{}", page.display());
    let others: Vec<&str> = (browser.requests().into_iter())
        .filter(|url| *url != address && !url.starts_with("data:image/png;base64,"))
        .collect();
    assert_eq!(others, [""; 0], "nothing is asked for");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn a_page_can_be_folded_and_is_made_of_what_screen_readers_know() {
    let (_place, page) = exported(CONVERSATION);
    let mut browser = Browser::start();
    browser.open(&page, PHONE);
    let is_open = "document.querySelector('details.thought').open";
    let height = "document.querySelector('details.thought').offsetHeight";
    assert_eq!(browser.value(is_open), false);
    let folded = browser.value(height).as_u64();
    browser.click("details.thought > summary .label");
    assert_eq!(browser.value(is_open), true);
    assert!(browser.value(height).as_u64() > folded);
    // And back, with the keyboard.
    browser.value("document.querySelector('details.thought > summary').focus()");
    browser.press_enter();
    assert_eq!(browser.value(is_open), false);

    let check = |browser: &mut Browser, expression: &str, expected: Value| {
        assert_eq!(browser.value(expression), expected, "{expression}");
    };
    let words = |selector: &str| {
        format!("[...document.querySelectorAll('{selector}')].map(it => it.textContent)")
    };
    check(&mut browser, "document.documentElement.lang", json!("en"));
    check(
        &mut browser,
        "document.title",
        json!("Fix the greeting and the button"),
    );
    check(
        &mut browser,
        &words("h1"),
        json!(["Fix the greeting and the button"]),
    );
    check(&mut browser, &words("h2"), json!(["Prompt 1", "Prompt 2"]));
    check(&mut browser, &words("h4"), json!(["What changed"]));
    check(
        &mut browser,
        &words("th"),
        json!(["file", "change", "lines"]),
    );
    // Without colours: the signs are text.
    check(
        &mut browser,
        &words(".diff:first-of-type ins"),
        json!([
            "+//! Says hello.",
            "+",
            "+    println!(\"hello\");",
            "+  width: min(100%, 480px);"
        ]),
    );
    check(
        &mut browser,
        &words(".diff del"),
        json!(["-    println!(\"hullo\");", "-  width: 480px;"]),
    );
    check(
        &mut browser,
        &words(".answer strong"),
        json!(["Allow once", "Reject"]),
    );
    check(
        &mut browser,
        &words(".failed .title"),
        json!(["cargo test --workspace --all-features -- --nocapture"]),
    );
    check(
        &mut browser,
        &words(".turn-end .label"),
        json!(["Turn ended", "Turn ended: cancelled"]),
    );
    check(
        &mut browser,
        &words(".problem p"),
        json!(["Problem the agent ended: killed by signal 9 (SIGKILL)"]),
    );
    let text = browser.value("document.querySelector('.turn-end').textContent");
    let text = text.as_str().unwrap();
    for part in ["after 34 s", "1,820 out", "24 %", "0.1834 USD"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    // Every item begins at an event of its own, in order; the link to it is its time.
    let ids = browser.value("[...document.querySelectorAll('main > [id]')].map(it => it.id)");
    let ids: Vec<i64> = (ids.as_array().unwrap().iter())
        .map(|id| id.as_str().unwrap()[1..].parse().unwrap())
        .collect();
    assert!(
        ids.len() > 20 && ids.windows(2).all(|two| two[0] < two[1]),
        "{ids:?}"
    );
    let dangling = "[...document.querySelectorAll('a.at')].filter(it => !document.querySelector(it.hash)).length";
    check(&mut browser, dangling, json!(0));
    let times = "[...document.querySelectorAll('time')].filter(it => isNaN(Date.parse(it.dateTime))).length";
    check(&mut browser, times, json!(0));
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

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

#[test]
fn a_hundred_thousand_events_take_little_memory_and_open_well() {
    let mut transcript = Transcript::new();
    while transcript.seq < 100_000 {
        let turn = transcript.seq;
        transcript.prompt(3000, &format!("Prompt at {turn}"));
        for number in 0..60 {
            let id = format!("t{number}");
            let call = json!({"sessionUpdate": "tool_call", "toolCallId": id, "title": format!("Read file {number}"), "kind": "read"});
            let output = json!([{"type": "content", "content": {"type": "text", "text": "line of output\n".repeat(15)}}]);
            let done = json!({"sessionUpdate": "tool_call_update", "toolCallId": id, "status": "completed", "content": output});
            transcript.update(20, &call).update(20, &done);
        }
        for number in 0..80 {
            transcript.chunk(20, &format!("Word {number} of a *long* reply. "));
        }
        transcript.end_turn(20);
    }
    let place = Place::new();
    let file = place.file("many.jsonl");
    std::fs::write(&file, &transcript.text).unwrap();
    let (ended, _) = with_peak(&place, &["sessions", "import", file.to_str().unwrap()]);
    assert!(ended.contains(SESSION), "{ended}");
    let page = place.file("many.html");
    let args = [
        "sessions",
        "export",
        SESSION,
        "--format",
        "html",
        "--output",
        page.to_str().unwrap(),
    ];
    let (_, peak) = with_peak(&place, &args);
    let size = std::fs::metadata(&page).unwrap().len();
    assert!(size > 12 << 20, "a large page: {size}");
    assert!(peak < 64 << 10, "{peak} KiB for a page of {size} bytes");

    let mut browser = Browser::start();
    let begun = Instant::now();
    browser.open(&page, PHONE);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let prompts = browser.value("document.querySelectorAll('h2').length");
    assert_eq!(
        prompts.as_i64(),
        Some(transcript.text.matches("\"session/prompt\"").count() as i64 / 2)
    );
    let last = browser.value("[...document.querySelectorAll('main > [id]')].at(-1).id");
    let begun = Instant::now();
    browser.value(&format!("location.hash = {last}"));
    let top = browser.value(&format!(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => \
         done(document.getElementById({last}).getBoundingClientRect().top))))"
    ));
    assert!(
        top.as_f64()
            .is_some_and(|top| (0.0..=f64::from(PHONE.height)).contains(&top)),
        "the end is seen: {top}"
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// What acpbox printed, and the most memory that it had, in KiB.
fn with_peak(place: &Place, args: &[&str]) -> (String, u64) {
    let mut child = place
        .command(args)
        .stderr(std::process::Stdio::inherit())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let known = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let line = known.unwrap_or_default();
        let line = line.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success());
    let mut printed = String::new();
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut stdout, &mut printed).unwrap();
    assert!(peak > 0, "it was measured");
    (printed, peak)
}

#[test]
fn a_page_is_private_and_names_the_session() {
    let (place, page) = exported(CONVERSATION);
    let html = std::fs::read_to_string(&page).unwrap();
    let printed = place.acpbox(&["sessions", "export", SESSION, "--format", "html"]);
    assert_eq!(printed.expect(0).stdout, html);
    for words in [SESSION, "acpbox-07595d5e", "/home/me/src/greeter"] {
        assert!(html.contains(words), "{words}");
    }
    let metadata = std::fs::metadata(&page).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    assert_eq!(mode & 0o077, 0);
    // No id twice: links and searches lead to one place.
    let ids: Vec<&str> = html.split(" id=\"").skip(1).collect();
    let ids = ids.iter().map(|rest| rest.split('"').next().unwrap());
    let all: Vec<&str> = ids.collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

/// The page of a transcript, through the commands.
fn exported(transcript: &str) -> (Place, PathBuf) {
    let place = Place::new();
    let mut file = std::fs::File::create(place.file("transcript.jsonl")).unwrap();
    file.write_all(transcript.as_bytes()).unwrap();
    let file = place.file("transcript.jsonl");
    place
        .acpbox(&["sessions", "import", file.to_str().unwrap()])
        .expect(0);
    let page = place.file("page.html");
    let output = page.to_str().unwrap();
    place
        .acpbox(&[
            "sessions", "export", SESSION, "--format", "html", "--output", output,
        ])
        .expect(0);
    (place, page)
}
