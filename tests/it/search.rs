//! Finding words in transcripts, through the protocol and the command line.

mod index;

use serde_json::{Value, json};

use crate::cli::Place;
use crate::support::client::Client;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt};

/// A step that sends an update.
fn update(update: Value) -> Value {
    json!({"send": {"jsonrpc": "2.0", "method": "session/update",
        "params": {"sessionId": "$SESSION", "update": update}}})
}

/// What a query finds: kind and marked snippet of each hit, the best first.
fn found(client: &mut Client, query: &str) -> Vec<(String, String)> {
    let answer = client.call("_acpbox/session/search", json!({"query": query}));
    let answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
    assert_eq!(answer.get("incomplete"), None, "{answer}");
    let hits = answer["hits"].as_array().unwrap().iter();
    hits.map(|hit| {
        let kind = hit["kind"].as_str().unwrap().to_owned();
        (kind, marked(&hit["snippet"]))
    })
    .collect()
}

fn marked(snippet: &Value) -> String {
    let parts = snippet.as_array().unwrap().iter();
    parts
        .map(
            |part| match (part["text"].as_str().unwrap(), &part["match"]) {
                (text, Value::Bool(true)) => format!("[{text}]"),
                (text, _) => text.to_owned(),
            },
        )
        .collect()
}

#[test]
fn what_was_said_and_done_in_a_turn_is_found_by_its_words() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[
        expect_prompt(),
        update(json!({"sessionUpdate": "agent_thought_chunk",
            "content": {"type": "text", "text": "a pondering"}})),
        chunk("Crème brûlée con"),
        chunk("tinues in `parseHttp"),
        chunk("Url`, says snake_case 漢字テスト 🚀"),
        update(
            json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "Inspect gadgets",
            "locations": [{"path": "/w/src/main.rs"}]}),
        ),
        update(
            json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed",
            "content": [{"type": "diff", "path": "/w/src/other_file.rs", "newText": "secretly"}]}),
        ),
        update(json!({"sessionUpdate": "session_info_update", "title": "On desserts"})),
        end_turn(),
    ]);
    client.prompt(&session, "please find the walrus").unwrap();
    client.updates();

    let mut check = |query: &str, expected: &[(&str, &str)]| {
        let found = found(&mut client, query);
        let found: Vec<_> = found
            .iter()
            .map(|(kind, text)| (&**kind, &**text))
            .collect();
        assert_eq!(found, expected, "{query}");
    };
    let message = |marked: &str| {
        let plain = marked.replace(['[', ']'], "");
        assert_eq!(
            plain,
            "Crème brûlée continues in `parseHttpUrl`, says snake_case 漢字テスト 🚀"
        );
    };
    for (query, marked) in [
        (
            "continues",
            "Crème brûlée [continues] in `parseHttpUrl`, says snake_case 漢字テスト 🚀",
        ),
        (
            "CREME brulee",
            "[Crème] [brûlée] continues in `parseHttpUrl`, says snake_case 漢字テスト 🚀",
        ),
        (
            "conti* http",
            "Crème brûlée [continues] in `parse[Http]Url`, says snake_case 漢字テスト 🚀",
        ),
        (
            "parsehttpurl",
            "Crème brûlée continues in `[parseHttpUrl]`, says snake_case 漢字テスト 🚀",
        ),
        (
            "parseHttp*",
            "Crème brûlée continues in `[parseHttpUrl]`, says snake_case 漢字テスト 🚀",
        ),
        (
            "snake_case",
            "Crème brûlée continues in `parseHttpUrl`, says [snake_case] 漢字テスト 🚀",
        ),
        (
            "\"says snake\"",
            "Crème brûlée continues in `parseHttpUrl`, [says snake]_case 漢字テスト 🚀",
        ),
        (
            "字テ",
            "Crème brûlée continues in `parseHttpUrl`, says snake_case 漢[字テ]スト 🚀",
        ),
        (
            "🚀",
            "Crème brûlée continues in `parseHttpUrl`, says snake_case 漢字テスト [🚀]",
        ),
    ] {
        message(marked);
        check(query, &[("message", marked)]);
    }
    check("walrus", &[("prompt", "please find the [walrus]")]);
    check("pondering", &[("thought", "a [pondering]")]);
    check("desserts", &[("title", "On [desserts]")]);
    check("gadgets", &[("tool", "Inspect [gadgets] /w/src/main.rs")]);
    check(
        "src/main.rs",
        &[("tool", "Inspect gadgets /w/[src/main.rs]")],
    );
    check("other_file", &[("tool", "/w/src/[other_file].rs")]);
    // Not in one place, not a whole word, not in this order, not indexed.
    for absent in [
        "walrus pondering",
        "continue",
        "\"snake says\"",
        "字漢",
        "secretly",
    ] {
        check(absent, &[]);
    }
}

#[test]
fn signs_in_a_query_are_neither_syntax_nor_errors() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[expect_prompt(), end_turn()]);
    client
        .prompt(&session, "near (a) \"quoted\" AND -minus col:umn 100% it's")
        .unwrap();
    for query in [
        "near",
        "NEAR(a, 2)",
        "\"quoted\"",
        "qu\"oted",
        "\"",
        "a*b",
        "-minus",
        "^near",
        "col:umn",
        "word:near",
        "near AND a",
        "near OR a",
        "NOT near",
        "100%",
        "it's",
        "'; DROP TABLE search; --",
        "{near}",
        "near + a",
        "\\",
        "a\0b",
        "\u{feff}near",
        "near*",
        "**",
        "()",
    ] {
        match client.call("_acpbox/session/search", json!({"query": query})) {
            Ok(answer) => assert!(answer["hits"].is_array(), "{query}: {answer}"),
            Err(error) => {
                let message = error["message"].as_str().unwrap();
                assert!(message.contains("no word"), "{query}: {error}");
                assert!(!query.contains(char::is_alphanumeric), "{query}: {error}");
            }
        }
    }
    for query in [
        "near \"quoted\"",
        "NEAR(a",
        "-minus",
        "col:umn",
        "near AND quoted",
        "it's 100%",
        "-- near",
    ] {
        assert_eq!(found(&mut client, query).len(), 1, "{query}");
    }
    for (params, words) in [
        (json!({"query": ""}), "`query` is empty"),
        (json!({"query": " \t"}), "`query` is empty"),
        (json!({"query": "x".repeat(2000)}), "2000 bytes"),
        (
            json!({"query": (0..33).map(|word| format!("word{word} ")).collect::<String>()}),
            "33 words",
        ),
        (json!({"query": "ab*"}), "`ab*`"),
        (json!({}), "query"),
        (json!({"query": "x", "limit": 0}), "`limit`"),
        (json!({"query": "x", "limit": 101}), "`limit`"),
        (json!({"query": "x", "cursor": "y"}), "`cursor`"),
        (json!({"query": "x", "sessionId": "y"}), "no session `y`"),
    ] {
        let error = client
            .call("_acpbox/session/search", params.clone())
            .unwrap_err();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{params}: {error}");
    }
}

#[test]
fn a_turn_that_goes_on_is_found_and_its_half_words_do_not_stay() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let go = json!({"expect": "_test/go"});
    let session = client.new_session_of(&[
        expect_prompt(),
        chunk("whole half"),
        go.clone(),
        chunk("way there"),
        go,
        end_turn(),
    ]);
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": "begin"}]});
    let id = client.request("session/prompt", prompt);
    client.expect("session/update");
    assert_eq!(found(&mut client, "half").len(), 1);
    assert_eq!(found(&mut client, "begin").len(), 1);
    assert_eq!(found(&mut client, "whole").len(), 1, "asked again");
    client.notify("_test/go", json!({"sessionId": session}));
    client.expect("session/update");
    let whole = ("message".to_owned(), "whole [halfway] there".to_owned());
    assert_eq!(found(&mut client, "halfway"), std::slice::from_ref(&whole));
    client.notify("_test/go", json!({"sessionId": session}));
    client.answer(id).unwrap();
    assert_eq!(found(&mut client, "halfway"), [whole]);
    assert_eq!(found(&mut client, "half"), []);
    assert_eq!(found(&mut client, "begin").len(), 1);
}

#[test]
fn what_was_said_before_a_kill_is_found_afterwards() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        chunk("the last wo"),
        chunk("rds"),
        json!({"hang": true}),
    ];
    let session = client.new_session_of(&steps);
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": "a farewell"}]});
    client.request("session/prompt", prompt);
    client.expect("session/update");
    client.expect("session/update");
    client.kill();
    let mut again = setup.connect();
    assert_eq!(found(&mut again, "farewell").len(), 1);
    assert_eq!(found(&mut again, "words").len(), 1);
}

#[test]
fn a_turn_is_indexed_before_anybody_searches() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let session = client.new_session_of(&[expect_prompt(), chunk("in the background"), end_turn()]);
    client.prompt(&session, "go").unwrap();
    client.updates();
    let database = rusqlite::Connection::open(setup.state().join("acpbox.db")).unwrap();
    let is_indexed = || {
        let query = "SELECT count(*) FROM search WHERE search MATCH 'background'";
        database
            .query_row(query, [], |row| row.get::<_, i64>(0))
            .unwrap()
            == 1
    };
    assert!(wait_until(is_indexed));
}

#[test]
fn a_deleted_session_is_found_no_more_and_its_words_are_gone_from_the_files() {
    let setup = Setup::host();
    let mut client = setup.connect();
    let steps = [
        expect_prompt(),
        chunk("the canaryq7x and other birds"),
        end_turn(),
    ];
    let deleted = client.new_session_of(&steps);
    client.prompt(&deleted, "Sing, CanaryQ7Y").unwrap();
    let kept = client.new_session_of(&[expect_prompt(), end_turn()]);
    client.prompt(&kept, "other birds and a canary").unwrap();
    client.updates();
    assert_eq!(found(&mut client, "canaryq7y").len(), 1);
    assert_eq!(found(&mut client, "other birds").len(), 2);
    assert!(
        holds(&setup, "q7y") && holds(&setup, "q7x"),
        "else this test proves nothing"
    );
    client
        .call("session/delete", json!({"sessionId": deleted}))
        .unwrap();
    assert_eq!(found(&mut client, "canaryq7y"), []);
    assert_eq!(found(&mut client, "other birds").len(), 1);
    for word in ["q7x", "q7y", "Q7Y"] {
        assert!(
            !holds(&setup, word),
            "{word} is still in the database's files"
        );
    }
}

fn holds(setup: &Setup, text: &str) -> bool {
    let finder = memchr::memmem::Finder::new(text);
    let files = std::fs::read_dir(setup.state()).unwrap().flatten();
    let mut files = files.filter(|file| file.file_name().to_string_lossy().contains(".db"));
    files.any(|file| finder.find(&std::fs::read(file.path()).unwrap()).is_some())
}

#[test]
fn two_processes_find_each_others_turns_once() {
    let setup = Setup::host();
    let mut one = setup.connect();
    let mut other = setup.connect();
    for round in 0..5 {
        let steps = [expect_prompt(), chunk("shared reply"), end_turn()];
        let (mine, theirs) = (one.new_session_of(&steps), other.new_session_of(&steps));
        one.prompt(&mine, "mine").unwrap();
        other.prompt(&theirs, "theirs").unwrap();
        let request = json!({"query": "shared"});
        let ids =
            [&mut one, &mut other].map(|it| it.request("_acpbox/session/search", request.clone()));
        for (client, id) in [&mut one, &mut other].into_iter().zip(ids) {
            let answer = client.answer(id).unwrap();
            assert_eq!(
                answer["hits"].as_array().unwrap().len(),
                2 * (round + 1),
                "{answer}"
            );
            client.updates();
        }
    }
    assert_eq!(found(&mut one, "theirs").len(), 5);
    assert_eq!(found(&mut other, "mine").len(), 5);
}

#[test]
fn the_command_prints_what_is_found_harmlessly() {
    let place = Place::new();
    let first = place.session("[[say:an evil\x1b]0;x\x07 snippet\x1b[2J of words]]");
    let second = place.session("[[say:more words]]");
    let search = |args: &[&str]| place.acpbox(&[&["sessions", "search"], args].concat());

    let shown = search(&["snippet", "words"]).expect_words(0, &["acpbox sessions show"]);
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(lines[0].starts_with(&first[..13]), "{shown:?}");
    assert!(lines[1].contains("evil snippet of words"), "{shown:?}");
    assert!(!shown.stdout.contains('\x1b'), "{shown:?}");
    place.acpbox(&["sessions", "show", &first[..13]]).expect(0);

    let sessions = |args: &[&str]| -> Vec<String> {
        let answer = search(&[args, &["--json"]].concat()).expect(0).json();
        let hits = answer["hits"].as_array().unwrap().iter();
        let mut ids: Vec<String> = hits
            .map(|hit| hit["sessionId"].as_str().unwrap().into())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let both = [first.clone(), second.clone()];
    let workspace = place.workspace();
    assert_eq!(sessions(&["words"]), both);
    assert_eq!(
        sessions(&["words", "--session", &second]),
        [second.as_str()]
    );
    assert_eq!(sessions(&["words", "--cwd", "."]), both);
    assert_eq!(
        sessions(&["words", "--cwd", workspace.to_str().unwrap()]),
        both
    );
    assert_eq!(sessions(&["words", "--cwd", "/"]), [""; 0]);
    assert_eq!(sessions(&["words", "--agent", "example"]), both);
    assert_eq!(sessions(&["words", "--agent", "claude"]), [""; 0]);
    search(&["words", "--limit", "1"]).expect_words(0, &["more than 1"]);
    search(&["nowhere"]).expect_words(0, &["nothing was found"]);
    search(&["*"]).expect_words(2, &["no word"]);
    search(&[""]).expect_words(2, &["empty"]);
    search(&["x", "--session", "nope"]).expect_words(2, &["`nope`"]);
    search(&["x", "--limit", "101"]).expect_words(2, &["--limit"]);
    search(&[]).expect_words(2, &["<WORDS>"]);
}
