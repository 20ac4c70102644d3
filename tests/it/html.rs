//! Exported pages, in a real browser: what a person sees.

mod hostile;
mod large;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::Place;
use crate::support::browser::{Browser, View};
use crate::support::transcripts::{CONVERSATION, SESSION};

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
pub const FAINT: &str = r#"(() => {
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

    // Paper shows all of it.
    browser.call("Emulation.setEmulatedMedia", json!({"media": "print"}));
    let shown = "document.querySelector('details.thought .text').checkVisibility()";
    assert_eq!(browser.value(shown), true);
    let width = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.value(width), true);
    browser.call("Emulation.setEmulatedMedia", json!({"media": "screen"}));
    assert_eq!(browser.value(shown), false);

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
