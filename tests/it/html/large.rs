//! A page of a hundred thousand events.

use std::time::{Duration, Instant};

use serde_json::json;

use super::PHONE;
use crate::cli::Place;
use crate::support::browser::Browser;
use crate::support::transcripts::{SESSION, Transcript};

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
