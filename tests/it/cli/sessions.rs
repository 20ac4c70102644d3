//! `acpbox sessions` and `acpbox logs`.

use serde_json::Value;

use super::Place;

#[test]
fn sessions_are_listed_newest_first_and_filtered() {
    let place = Place::new();
    let first = place.session("[[say:one]]");
    let second = place.session("[[say:two]]");
    let ids = |args: &[&str]| -> Vec<String> {
        let all = place
            .acpbox(&[&["sessions", "list", "--json"], args].concat())
            .expect(0)
            .json();
        let ids = all.as_array().unwrap().iter();
        ids.map(|it| it["sessionId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&[]), [second.clone(), first.clone()]);
    assert_eq!(ids(&["--limit", "1"]), [second.as_str()]);
    assert_eq!(ids(&["--agent", "claude"]), [""; 0]);
    let workspace = place.workspace();
    assert_eq!(ids(&["--cwd", workspace.to_str().unwrap()]).len(), 2);
    assert_eq!(
        ids(&["--cwd", "."]).len(),
        2,
        "a relative folder is from here"
    );
    assert_eq!(ids(&["--cwd", "/"]).len(), 0);

    let table = place.acpbox(&["sessions", "list"]).expect(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID"), "{table}");
    assert!(
        lines[1].starts_with(&second) && lines[1].contains("[[say:two]]"),
        "{table}"
    );
    place
        .acpbox(&["sessions", "list", "--limit", "1"])
        .expect_words(0, &["more than 1"]);
}

#[test]
fn the_beginning_of_an_id_must_be_unique() {
    let place = Place::new();
    let first = place.session("[[say:one]]");
    let second = place.session("[[say:two]]");
    let same = first
        .chars()
        .zip(second.chars())
        .take_while(|(a, b)| a == b)
        .count();
    assert!(same > 0, "ids of one time begin alike");
    place
        .acpbox(&["sessions", "show", &first[..same]])
        .expect_words(2, &["several sessions", &first, &second]);
    let shown = place
        .acpbox(&["sessions", "show", &first[..=same]])
        .expect(0)
        .stdout;
    assert!(shown.contains(&first), "{shown}");
    let upper = first[..=same].to_uppercase();
    place.acpbox(&["sessions", "show", &upper]).expect(0);
}

#[test]
fn a_transcript_is_shown_for_reading() {
    let place = Place::new();
    let id = place.session("[[say:hello]] [[read:absent.txt]]");
    let shown = place.acpbox(&["sessions", "show", &id]).expect(0).stdout;
    for words in ["> [[say:hello]]", "\nhello", "✗ read Read absent.txt"] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    assert!(!shown.contains('\x1b'), "{shown:?}");
    let json = place
        .acpbox(&["sessions", "show", &id, "--json"])
        .expect(0)
        .json();
    assert_eq!(json["session"]["agent"], "example");
    assert_eq!(json["events"][0]["kind"], "session/new");
}

#[test]
fn control_characters_of_an_agent_do_not_reach_the_reader_of_a_transcript() {
    let place = Place::new();
    let prompt = "[[say:a\x1b]0;evil\x07b\x1b[2Jc]]";
    let raw = place.run(&[prompt]).expect(0).stdout;
    assert!(
        raw.contains("\x1b[2J"),
        "a pipe gets the bytes as they are: {raw:?}"
    );
    let id = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    for args in [&["sessions", "show", &id][..], &["sessions", "list"]] {
        let shown = place.acpbox(args).expect(0).stdout;
        assert!(
            shown.contains("abc") && !shown.contains('\x1b'),
            "{shown:?}"
        );
    }
}

#[test]
fn an_export_is_exact() {
    let place = Place::new();
    let id = place.session("[[say:hello]]");
    let file = place.file("export.jsonl");
    place
        .acpbox(&[
            "sessions",
            "export",
            &id,
            "--output",
            file.to_str().unwrap(),
        ])
        .expect(0);
    let written = std::fs::read_to_string(&file).unwrap();
    let printed = place.acpbox(&["sessions", "export", &id]).expect(0).stdout;
    assert_eq!(written, printed);
    let mut lines = written.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["session"]["sessionId"], id.as_str());
    for (number, line) in (1..).zip(lines) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["seq"], number);
        assert_eq!(event["message"]["jsonrpc"], "2.0");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "nobody else reads it");

    let markdown = place
        .acpbox(&["sessions", "export", &id, "--format", "markdown"])
        .expect(0)
        .stdout;
    assert!(
        markdown.starts_with("# ") && markdown.contains("## Reply\n\nhello"),
        "{markdown}"
    );
    place
        .acpbox(&["sessions", "export", &id, "--output", "/nowhere/x"])
        .expect_words(2, &["/nowhere/x"]);
}

#[test]
fn deleting_needs_a_yes_and_leaves_the_others() {
    let place = Place::new();
    let first = place.session("[[say:one]]");
    let second = place.session("[[say:two]]");
    place
        .acpbox(&["sessions", "delete", &first])
        .expect_words(2, &["--yes"]);
    // One wrong id, and nothing goes.
    place
        .acpbox(&["sessions", "delete", "--yes", &first, "nope"])
        .expect_words(2, &["`nope`"]);
    place.acpbox(&["sessions", "show", &first]).expect(0);
    place
        .acpbox(&["sessions", "delete", "--yes", &first])
        .expect_words(0, &[&first, "events"]);
    place.acpbox(&["sessions", "show", &first]).expect(2);
    assert_eq!(place.only_session()["sessionId"], second.as_str());
}

#[test]
fn a_live_session_can_be_read_but_not_deleted_or_taken_over() {
    let place = Place::new();
    let mut turn = place.long_turn(&[]);
    let session = place.only_session();
    let id = session["sessionId"].as_str().unwrap();
    assert_eq!(session["state"], "live");
    assert_eq!(session["holder"], turn.child.id());
    let holder = turn.child.id().to_string();
    let shown = place
        .acpbox(&["sessions", "show", id])
        .expect_words(0, &["live in process", &holder]);
    assert!(shown.stdout.contains("chunk0"), "{shown:?}");
    place
        .acpbox(&["sessions", "delete", "--yes", id])
        .expect_words(1, &["live in process", &holder]);
    place
        .acpbox(&["run", "--session", id, "x"])
        .expect_words(1, &["live in another acpbox process", &holder]);
    turn.child.kill().unwrap();
    turn.child.wait().unwrap();
    // However its process ended.
    assert_eq!(place.only_session()["state"], "open");
    place.acpbox(&["sessions", "delete", "--yes", id]).expect(0);
}

#[test]
fn the_agents_own_words_are_in_the_log() {
    let place = Place::new();
    // Beside everything that it says.
    std::fs::write(
        place.workspace().join("agent.sh"),
        "/run/acpbox/acpbox example-agent | while read -r line; do\n\
         echo noise; echo oops >&2; printf '%s\\n' \"$line\"\ndone\n",
    )
    .unwrap();
    let script = place.workspace().join("agent.sh");
    place.configure(&format!(
        "[agents.loud]\ncommand = \"sh\"\nargs = [{:?}]\n",
        script.to_str().unwrap()
    ));
    place
        .acpbox(&["run", "--agent", "loud", "[[say:hi]]"])
        .expect(0);
    let id = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    let log = place.acpbox(&["logs", &id, "--follow"]).expect(0).stdout;
    assert!(
        log.contains("oops") && log.contains("stdout: noise"),
        "{log}"
    );
    let json = place.acpbox(&["logs", &id, "--json"]).expect(0).stdout;
    let streams: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["stream"].clone())
        .collect();
    assert!(
        streams.contains(&"stderr".into()) && streams.contains(&"stdout".into()),
        "{json}"
    );
}
