//! `acpbox sessions replay`: a transcript as it happened, in time.

use std::io::Read;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Place;
use crate::support::transcripts::{CONVERSATION, SESSION, Transcript};

#[test]
fn a_pipe_gets_all_of_it_at_once() {
    let place = imported(CONVERSATION);
    let begun = Instant::now();
    let ended = place
        .acpbox(&["sessions", "replay", &SESSION[..6]])
        .expect(0);
    assert!(begun.elapsed() < Duration::from_secs(20), "not 150 s");
    let mut rest = ended.stdout.as_str();
    for words in [
        SESSION,
        "> The greeting on the start page is wrong.",
        "│ The user wants two things fixed.",
        "I'll look at where the greeting is made first.",
        "○ read Read src/greet.rs",
        "✓ read Read src/greet.rs",
        "+    println!(\"hello\");",
        "? Run `cargo test",
        "→ Allow once",
        "✗ execute cargo test",
        "Both are fixed.",
        "■ the turn ended: cancelled",
        "! the agent ended: killed by signal 9",
    ] {
        let at = rest.find(words);
        let at = at.unwrap_or_else(|| panic!("no {words:?}, or not there, in {}", ended.stdout));
        rest = &rest[at..];
    }
    assert!(!ended.stdout.contains('\x1b'), "{:?}", ended.stdout);
    let instant = place.acpbox(&["sessions", "replay", SESSION, "--instant"]);
    assert_eq!(instant.stdout, ended.stdout);
}

#[test]
fn pauses_are_as_recorded_chunk_by_chunk() {
    let mut transcript = Transcript::new();
    transcript.prompt(0, "go");
    for number in 0..6 {
        transcript.chunk(800, &format!("<{number}>"));
    }
    let place = imported(&transcript.text);
    // 800 ms each, four times as fast.
    let times = arrivals(&place, &["--speed", "4"], 6);
    for two in times.windows(2) {
        let pause = two[1] - two[0];
        assert!(pause > Duration::from_millis(120), "{times:?}");
    }
    let all = times[5] - times[0];
    assert!(
        (Duration::from_millis(950)..Duration::from_secs(8)).contains(&all),
        "{times:?}"
    );
    // The cap comes first: 100 ms each.
    let times = arrivals(&place, &["--speed", "1", "--max-pause", "0.1"], 6);
    let all = times[5] - times[0];
    assert!(
        (Duration::from_millis(450)..Duration::from_secs(3)).contains(&all),
        "{times:?}"
    );
}

#[test]
fn a_clock_that_jumped_holds_nothing_up() {
    let mut transcript = Transcript::new();
    let day = 86_400_000;
    for after in [
        0,
        -400 * day,
        400 * day,
        i64::MIN / 4,
        i64::MAX / 4,
        40 * day,
    ] {
        transcript.chunk(after, "word ");
    }
    let place = imported(&transcript.text);
    let begun = Instant::now();
    let args = ["sessions", "replay", SESSION, "--speed", "10"];
    let ended = place.acpbox(&args).expect(0);
    assert!(ended.stdout.contains(&"word ".repeat(6)), "{ended:?}");
    // Three gaps of two seconds at most.
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(550)..Duration::from_secs(15)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn ctrl_c_ends_it_in_the_middle_of_a_pause() {
    let mut transcript = Transcript::new();
    transcript.chunk(0, "before").chunk(3_600_000, "after");
    let place = imported(&transcript.text);
    let args = [
        "sessions",
        "replay",
        SESSION,
        "--speed",
        "1",
        "--max-pause",
        "600",
    ];
    let mut child = place.command(&args).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("before") {
        let mut bytes = [0; 256];
        let count = stdout.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{seen:?}");
        seen.extend(&bytes[..count]);
    }
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    stdout.read_to_end(&mut seen).unwrap();
    let status = child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(status.code(), Some(4));
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.ends_with("before\n"), "{seen:?}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = imported(CONVERSATION);
    for (args, words) in [
        (&["--speed", "0"][..], "0.01 to 10000"),
        (&["--speed", "nan"], "0.01 to 10000"),
        (&["--speed=-1"], "0.01 to 10000"),
        (&["--max-pause", "inf"], "0 to 86400"),
        (&["--speed", "2", "--instant"], "--instant"),
    ] {
        place
            .acpbox(&[&["sessions", "replay", SESSION], args].concat())
            .expect_words(2, &[words]);
    }
    place
        .acpbox(&["sessions", "replay", "zz"])
        .expect_words(2, &["zz"]);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let mut transcript = Transcript::new();
    for _ in 0..8_000 {
        transcript.chunk(0, "a line of many\n");
    }
    let place = imported(&transcript.text);
    let mut child = place
        .command(&["sessions", "replay", SESSION])
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"");
}

/// When each of `<0>`, `<1>`, … was read.
fn arrivals(place: &Place, options: &[&str], count: usize) -> Vec<Instant> {
    let args = [&["sessions", "replay", SESSION], options].concat();
    let mut child = place.command(&args).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut times = Vec::new();
    while times.len() < count {
        let mut bytes = [0; 256];
        let read = stdout.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        while times.len() < count && seen.contains(&format!("<{}>", times.len())) {
            times.push(Instant::now());
        }
    }
    assert!(child.wait().unwrap().success());
    times
}

fn imported(transcript: &str) -> Place {
    let place = Place::new();
    let file = place.file("import.jsonl");
    std::fs::write(&file, transcript).unwrap();
    place
        .acpbox(&["sessions", "import", file.to_str().unwrap()])
        .expect(0);
    place
}
