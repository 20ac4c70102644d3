//! Databases that something else has written into.

use std::io::Read;
use std::path::Path;

use acpbox::store::Store;
use serde_json::Value;

use super::*;
use crate::support::bare::prompt;
use crate::support::site::initialize;

const DAMAGED: u64 = 30;
const PAGE: usize = 4096;

/// Enough for the messages of one session.
const LIMIT: usize = 10_000;

#[test]
fn damaged_pages_are_named_or_set_aside_and_never_overwritten() {
    let mut random = Random(seed());
    let site = on_the_host();
    let workspace = site.repository("project");
    let (session, written) = filled(&site, &workspace);
    let whole = std::fs::read(site.database()).unwrap();
    let (mut set_aside, mut named, mut doctored) = (0, 0, 0);
    for round in 0..DAMAGED {
        let damaged = damage(&whole, &mut random, round % 3 == 0);
        clear(&site);
        std::fs::write(site.database(), &damaged).unwrap();
        // One that opens; the other kind has a test of its own.
        if round % 3 != 0 && doctored < 3 && doctor(&site)["outcome"] == "bad" {
            doctored += 1;
            assert!(Store::earlier(&site.database()).is_empty(), "it only looks");
            std::fs::write(site.database(), &damaged).unwrap();
        }

        let mut acpbox = site.connect(&["--agent", "example"]);
        let kept = Store::earlier(&site.database());
        let mut is_named = false;
        let mut look = |outcome: Result<Value, Value>| match outcome {
            Ok(result) => Some(result),
            Err(error) => {
                let message = error["message"].as_str().unwrap_or_default();
                let names = site.database().display().to_string();
                let ours = message.contains("is damaged") && message.contains(&names);
                assert!(ours, "round {round}: {error}");
                assert!(message.contains("--db"), "round {round}: {error}");
                is_named = true;
                None
            }
        };
        look(call(&mut acpbox, "session/list", json!({})));
        let page = json!({"sessionId": session, "limit": LIMIT});
        let read = if kept.is_empty() {
            look(call(&mut acpbox, "_acpbox/session/events", page))
        } else {
            None
        };
        if let Some(read) = read {
            assert!(
                read["events"] == written,
                "round {round}: told other than written"
            );
        }
        let new = json!({"cwd": workspace, "mcpServers": []});
        let created = look(call(&mut acpbox, "session/new", new));
        if let Some(created) = &created {
            let id = created["sessionId"].as_str().unwrap();
            look(call(&mut acpbox, "session/prompt", prompt(id, "[[say:x]]")));
        }
        match &*kept {
            [] => named += u64::from(is_named),
            [file] => {
                set_aside += 1;
                assert!(std::fs::read(file).unwrap() == damaged, "round {round}");
                assert!(!is_named, "round {round}: the new one is sound");
                let warnings = &created.unwrap()["_meta"]["acpbox"]["warnings"];
                let name = file.display().to_string();
                assert!(warnings[0].as_str().unwrap().contains(&name), "{warnings}");
                assert!(acpbox.stderr().contains(&name), "{}", acpbox.stderr());
            }
            more => panic!("{more:?}"),
        }
        let status = acpbox.close(Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
    println!("{set_aside} set aside, {named} named while in use, of {DAMAGED}");
    assert!(set_aside >= DAMAGED / 3, "{set_aside}");
    assert!(named >= 3, "{named}");
    assert!(doctored > 0);
}

#[test]
fn a_damaged_database_keeps_its_log_and_a_new_one_takes_its_place() {
    let site = on_the_host();
    let workspace = site.repository("project");
    let mut raw = Raw::start(&site, &[]);
    let session = raw.open(&workspace);
    let first = raw.prompt(&session, "[[flood:300]]");
    raw.answer(first);
    raw.signal(Signal::KILL);
    raw.wait(AT_MOST).expect("it was killed");
    let log = site.state().join("acpbox.db-wal");
    let mut damaged = std::fs::read(site.database()).unwrap();
    damaged[..64].fill(b'x');
    std::fs::write(site.database(), &damaged).unwrap();
    // The first page is in the log too, which alone would mend it.
    let mut logged = std::fs::read(&log).unwrap();
    assert!(logged.len() > 10 * PAGE, "not all is in the log");
    logged[32..128].fill(b'x');
    std::fs::write(&log, &logged).unwrap();

    // Those who only look change nothing, and say what comes.
    let listed = site.command(&["sessions", "list"]).output().unwrap();
    assert!(!listed.status.success());
    let said = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(said.contains("is damaged"), "{said}");
    let line = doctor(&site);
    assert_eq!(line["outcome"], "bad", "{line}");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("the next session sets it aside"), "{line}");
    assert!(Store::earlier(&site.database()).is_empty());

    // Some that work come at once: one sets it aside, all go on.
    let mut all = [(); 4].map(|()| site.start(&["--agent", "example"]));
    for acpbox in &mut all {
        acpbox.request("initialize", initialize(json!({})));
        let new = json!({"cwd": workspace, "mcpServers": []});
        let created = acpbox.request("session/new", new);
        let id = created["sessionId"].as_str().unwrap().to_owned();
        assert_eq!(acpbox.prompt(&id, "[[say:on]]")["stopReason"], "end_turn");
    }
    let list = all[1].request("session/list", json!({}));
    assert_eq!(list["sessions"].as_array().unwrap().len(), 4, "{list}");
    for mut acpbox in all {
        assert!(acpbox.close(Duration::from_secs(20)).unwrap().success());
    }
    let earlier = Store::earlier(&site.database());
    let [file] = &*earlier else {
        panic!("{earlier:?}")
    };
    assert!(std::fs::read(file).unwrap() == damaged);
    let log = format!("{}-wal", file.display());
    assert!(std::fs::read(log).unwrap() == logged);
    let lines = report(&site);
    let about = |what: &str| lines.iter().find(|line| line["what"] == what).cloned();
    assert_eq!(about("database").unwrap()["outcome"], "good");
    let line = about("an earlier database").unwrap();
    assert_eq!(line["outcome"], "degraded");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains(&file.display().to_string()), "{line}");
}

#[test]
fn what_may_be_anothers_or_is_in_use_is_not_set_aside() {
    let site = on_the_host();
    let workspace = site.repository("project");
    let refused = |arguments: &[&str]| {
        let all = [&["stdio", "--agent", "example"], arguments].concat();
        let output = site.command(&all).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // A file that was named, and does not say that it is ours.
    let notes = site.folder().join("notes.txt");
    let text = "these are notes, and no database at all\n".repeat(100);
    std::fs::write(&notes, &text).unwrap();
    let said = refused(&["--db", notes.to_str().unwrap()]);
    assert!(said.contains("is damaged"), "{said}");
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), text);

    // One that another acpbox works with. Ours says what is wrong; that one goes on.
    let mut other = site.connect(&["--agent", "example"]);
    let new = json!({"cwd": workspace, "mcpServers": []});
    let created = other.request("session/new", new);
    let id = created["sessionId"].as_str().unwrap().to_owned();
    for file in ["acpbox.db", "acpbox.db-wal"].map(|name| site.state().join(name)) {
        let length = std::fs::metadata(&file).unwrap().len();
        let mut file = std::fs::File::options().write(true).open(file).unwrap();
        std::io::copy(&mut std::io::repeat(b'x').take(length), &mut file).unwrap();
    }
    let said = refused(&[]);
    assert!(said.contains("is damaged"), "{said}");
    assert!(Store::earlier(&site.database()).is_empty());
    // Whatever it says, it is alive.
    let _ = call(&mut other, "session/prompt", prompt(&id, "[[say:on]]"));
    assert!(other.close(Duration::from_secs(20)).is_some());
    assert!(Store::earlier(&site.database()).is_empty());
}

/// One without VMs, which are no part of this.
fn on_the_host() -> Site {
    let site = Site::new();
    site.configure("[vms.default]\ndriver = 'host'\n");
    site
}

/// A database of some hundred pages, closed; the events of a session of it.
fn filled(site: &Site, workspace: &Path) -> (String, Value) {
    let mut acpbox = site.connect(&["--agent", "example"]);
    let mut ids = Vec::new();
    for text in ["[[flood:2000]]", "[[flood:500]]", "[[flood:2000]]"] {
        let new = json!({"cwd": workspace, "mcpServers": []});
        let created = acpbox.request("session/new", new);
        let id = created["sessionId"].as_str().unwrap().to_owned();
        acpbox.prompt(&id, text);
        ids.push(id);
    }
    let id = ids.swap_remove(0);
    // Its last event is that its agent ended.
    acpbox.request("session/close", json!({"sessionId": id}));
    let page = json!({"sessionId": id, "limit": LIMIT});
    let mut page = acpbox.request("_acpbox/session/events", page);
    assert!(acpbox.close(Duration::from_secs(20)).unwrap().success());
    (id, page["events"].take())
}

/// Some pages are overwritten at random, the first one among them or not.
fn damage(whole: &[u8], random: &mut Random, first_too: bool) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    let pages = (whole.len() / PAGE) as u64;
    assert!(pages > 200, "{pages}");
    let count = 1 + random.below(8);
    let mut chosen: Vec<u64> = (0..count).map(|_| 1 + random.below(pages - 1)).collect();
    if first_too {
        chosen.push(0);
    }
    for page in chosen {
        let start = usize::try_from(page).unwrap() * PAGE;
        for byte in &mut damaged[start..start + PAGE] {
            *byte = random.below(256) as u8;
        }
    }
    damaged
}

/// Removes the database and all that is beside it.
fn clear(site: &Site) {
    for entry in std::fs::read_dir(site.state()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("acpbox.db") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn call(acpbox: &mut Bare, method: &str, params: Value) -> Result<Value, Value> {
    let id = acpbox.send_request(method, params);
    acpbox.answer(id)
}

fn report(site: &Site) -> Vec<Value> {
    let output = site.command(&["doctor", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `doctor` says of the database.
fn doctor(site: &Site) -> Value {
    let line = report(site)
        .into_iter()
        .find(|line| line["what"] == "database");
    line.unwrap()
}
