//! What the page looks like, to the eye, to a keyboard and to a screen reader.

use serde_json::{Value, json};

use super::{DESK, PHONE, import, patient, see, visitor};
use crate::html::FAINT;
use crate::http::Web;
use crate::support::browser::{Browser, View};
use crate::support::transcripts::{CONVERSATION, SESSION};

#[test]
fn it_reads_well_on_a_phone_and_a_desk_by_day_and_by_night() {
    let setup = patient();
    import(&setup, CONVERSATION);
    let web = Web::start(&setup);
    let mut browser = visitor(&web, DESK);
    browser.expect("document.querySelectorAll('#sessions a').length == 1");
    for (name, view) in [("phone", PHONE), ("desk", DESK)] {
        for is_dark in [false, true] {
            let view = View { is_dark, ..view };
            browser.look(view);
            let light = if is_dark { "dark" } else { "light" };
            check(&mut browser, view, "list");
            see(&mut browser, SESSION);
            browser.expect("document.querySelectorAll('main > *').length > 20");
            check(&mut browser, view, "session");
            browser.value("document.activeElement.blur(), 0");
            for (key, what) in [("?", "help"), ("n", "new")] {
                browser.press(key);
                browser.expect("document.querySelector('dialog[open]') != null");
                let fits = "(() => { const r = document.querySelector('dialog[open]').getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth && r.bottom <= innerHeight; })()";
                assert_eq!(browser.value(fits), true, "{name}, {what}");
                browser.screenshot(&format!("web-{name}-{light}-{what}.png"));
                browser.press("Escape");
                browser.expect("document.querySelector('dialog[open]') == null");
            }
            browser.value("location.hash = '#/'");
            browser.expect("document.querySelector('#composer').hidden");
        }
    }
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

/// Nothing sticks out, and all can be read.
fn check(browser: &mut Browser, view: View, what: &str) {
    let width = browser.value("document.documentElement.scrollWidth");
    assert_eq!(width, view.width, "{view:?}, {what}");
    let light = if view.is_dark { "dark" } else { "light" };
    let name = if view.is_phone { "phone" } else { "desk" };
    browser.screenshot(&format!("web-{name}-{light}-{what}.png"));
    assert_eq!(browser.value(FAINT), json!([]), "{view:?}, {what}");
    let wide = "[...document.querySelectorAll('#scroller, nav')].filter(it => it.scrollWidth > it.clientWidth).length";
    assert_eq!(browser.value(wide), 0, "{view:?}, {what}, unfolded");
}

#[test]
fn everything_is_reached_by_tab_in_the_order_that_is_seen_and_has_a_name() {
    let setup = patient();
    import(&setup, CONVERSATION);
    let web = Web::start(&setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, SESSION);
    browser.expect("document.querySelectorAll('main > *').length > 20");
    browser.value("document.activeElement.blur(), 0");
    let focus = "(() => { const it = document.activeElement; return it.id || (it.closest('main') ? 'in the transcript' : it.className || it.localName); })()";
    let mut order: Vec<String> = Vec::new();
    // From wherever it begins, once around.
    for _ in 0..80 {
        browser.press("Tab");
        let name = browser.value(focus).as_str().unwrap().to_owned();
        let ring = browser.value("getComputedStyle(document.activeElement).outlineStyle");
        assert!(name == "body" || ring != "none", "{name} shows no focus");
        if order.last() != Some(&name) {
            order.push(name);
        }
    }
    let start = order.iter().position(|name| name == "skip").unwrap();
    let found: Vec<&str> = order[start..].iter().map(String::as_str).collect();
    let expected = [
        "skip",
        "brand",
        "help-button",
        "new-button",
        "search",
        "a",
        "actions-button",
        "transcript",
        "in the transcript",
        "prompt",
        "send",
    ];
    let found = &found[..expected.len().min(found.len())];
    assert_eq!(found, expected);
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let is_focusable = |node: &&Value| {
        let properties = node["properties"].as_array();
        properties
            .into_iter()
            .flatten()
            .any(|it| it["name"] == "focusable" && it["value"]["value"] == true)
    };
    let mut count = 0;
    for node in nodes.iter().filter(is_focusable) {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        if ["RootWebArea", "generic", "none", "Pre", "pre"].contains(&role)
            || node["ignored"] == true
        {
            continue;
        }
        count += 1;
        let name = node["name"]["value"].as_str().unwrap_or_default();
        assert!(
            !name.trim().is_empty() || role == "DisclosureTriangle",
            "{node}"
        );
    }
    assert!(count > 15, "{count}");
    for role in ["main", "navigation", "complementary", "search", "status"] {
        assert!(
            nodes.iter().any(|node| node["role"]["value"] == role),
            "{role}"
        );
    }
}
