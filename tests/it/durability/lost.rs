//! Events that could not be stored, and transcripts that cannot be read for a while:
//! whoever follows stays, misses nothing, and the session goes on.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::Value;

use super::full::{Disk, fill_to_the_brim};
use super::*;
use crate::serve::{Peer, Server};
use crate::support::bare::prompt;
use crate::support::setup::wait_until;

/// A server on a database of its own, with agents on the host, and its folder.
struct Served {
    site: Site,
    database: PathBuf,
    server: Server,
}

impl Served {
    fn start(site: Site, database: PathBuf) -> Served {
        site.configure("[vms.default]\ndriver = 'host'\n");
        let arguments = ["serve", "--agent", "example", "--db"];
        let mut command = site.command(&[&arguments[..], &[database.to_str().unwrap()]].concat());
        command.env("ACPBOX_LOG", "warn,acpbox::session::catch_up=debug");
        let mut server = Server::of(command);
        server.address();
        Served {
            site,
            database,
            server,
        }
    }

    fn connect(&self) -> Peer {
        let path = self.site.folder().join("run/acpbox/acpbox.sock");
        Peer::unix(&path).initialize(json!({}))
    }

    fn session(&self, peer: &mut Peer) -> String {
        let params = json!({"cwd": self.site.folder().join("work"), "mcpServers": []});
        let made = peer.call("session/new", params).unwrap();
        made["sessionId"].as_str().unwrap().to_owned()
    }

    fn load(&self, peer: &mut Peer, session: &str, role: &str) -> u64 {
        let cwd = self.site.folder().join("work");
        let meta = json!({"acpbox": {"role": role}});
        let params = json!({"sessionId": session, "cwd": cwd, "mcpServers": [], "_meta": meta});
        peer.send("session/load", params)
    }

    /// Everything that is stored of a session, once the server has ended.
    fn end(mut self, session: &str) -> Vec<acpbox::store::EventRow> {
        self.server.signal(libc::SIGTERM);
        assert_eq!(self.server.exit_code(), Some(0));
        stored(&self.database, session)
    }
}

/// Reads on until an update has this text; returns the texts up to there.
fn read_until(peer: &mut Peer, text: &str) -> Vec<String> {
    let mut texts = peer.texts();
    while !texts.iter().any(|known| known.contains(text)) {
        let message = peer.receive().expect("the client was let go");
        let said = &message["params"]["update"]["content"]["text"];
        texts.extend(said.as_str().map(str::to_owned));
    }
    texts
}

#[test]
fn what_a_long_lock_lost_leaves_no_hole_and_all_who_follow_go_on() {
    let site = Site::new();
    let database = site.database();
    let served = Served::start(site, database);
    let mut first = served.connect();
    let session = served.session(&mut first);
    first
        .call("session/prompt", prompt(&session, "[[say:before]]"))
        .unwrap();
    let mut others = ["controller", "observer"].map(|role| {
        let mut other = served.connect();
        let id = served.load(&mut other, &session, role);
        other.answer(id).unwrap();
        other
    });
    let watch = served.site.watch();
    let running = watch.alive().len();
    let lock = Connection::open(&served.database).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let id = first.send("session/prompt", prompt(&session, "[[say:lost]]"));
    // The agent is ended when its events could not be stored; its end can be then.
    let has_ended = wait_until(|| watch.alive().len() < running);
    assert!(has_ended, "the agent goes on");
    lock.execute_batch("ROLLBACK").unwrap();
    let error = first.answer(id).unwrap_err();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("stayed locked by another process"),
        "{error}"
    );
    first
        .call("session/prompt", prompt(&session, "[[say:after]]"))
        .unwrap();
    for other in &mut others {
        let texts = read_until(other, "after");
        assert!(!texts.iter().any(|text| text.contains("lost")), "{texts:?}");
    }
    let rows = served.end(&session);
    let is_whole = rows.iter().zip(1..).all(|(row, seq)| row.seq == seq);
    assert!(is_whole, "{:?}", rows.last());
    let prompts = rows.iter().filter(|row| row.kind == "session/prompt");
    assert_eq!(prompts.count(), 2, "what was lost is not there in part");
}

#[test]
fn who_follows_gets_what_another_process_did_after_events_were_lost() {
    let site = Site::new();
    let Some(disk) = Disk::mount(&site.folder().join("small"), "8m") else {
        println!("skipped: a small disk may not be mounted here");
        return;
    };
    let database = disk.0.join("acpbox.db");
    let served = Served::start(site, database.clone());
    let (mut first, mut other) = (served.connect(), served.connect());
    let session = served.session(&mut first);
    first
        .call("session/prompt", prompt(&session, "[[say:before]]"))
        .unwrap();
    let id = served.load(&mut other, &session, "observer");
    other.answer(id).unwrap();
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, b"").unwrap();
    fill_to_the_brim(&ballast);
    let id = first.send("session/prompt", prompt(&session, "[[flood:50000]]"));
    let error = first.answer(id).unwrap_err();
    assert!(error.to_string().contains("is full"), "{error}");
    std::fs::remove_file(&ballast).unwrap();

    let arguments = ["--no-server", "--agent", "example", "--db"];
    let arguments = [&arguments[..], &[database.to_str().unwrap()]].concat();
    let mut elsewhere = served.site.connect(&arguments);
    let answer = elsewhere.prompt(&session, "[[say:elsewhere]]");
    assert_eq!(answer["stopReason"], "end_turn");
    elsewhere.close(Duration::from_secs(20));

    let answer = first.call("session/prompt", prompt(&session, "[[say:back]]"));
    answer.unwrap();
    for peer in [&mut first, &mut other] {
        let texts = read_until(peer, "back");
        let count = |what: &str| texts.iter().filter(|text| text.contains(what)).count();
        // With the prompt that asked for it.
        assert_eq!(count("elsewhere"), 2, "{texts:?}");
    }
    drop((first, other));
    served.end(&session);
}

#[test]
fn a_page_that_cannot_be_read_for_a_while_costs_a_client_nothing_but_time() {
    const BYTES: usize = 1 << 20;
    let site = Site::new();
    site.configure("[vms.default]\ndriver = 'host'\n");
    let database = site.database();
    let mut acpbox = site.connect(&["--agent", "example"]);
    let cwd = site.folder().join("work");
    let session = acpbox.open_session(json!({}), &cwd);
    // The first pages that are full of it are those of the events.
    let large = "x".repeat(BYTES);
    acpbox.prompt(&session, &format!("[[say:{large}]]"));
    acpbox.close(Duration::from_secs(20));

    let mut file = std::fs::File::options();
    let file = file.read(true).write(true).open(&database).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    let mut page = [0; 4096];
    let number = (0..pages).find(|number| {
        file.read_exact_at(&mut page, number * 4096).unwrap();
        page[4..].iter().all(|byte| *byte == b'x')
    });
    let place = number.expect("the text fills pages of its own") * 4096;
    let mut served = Served::start(site, database);
    file.write_all_at(&[0; 4096], place).unwrap();
    let mut peer = served.connect();
    let id = served.load(&mut peer, &session, "controller");
    served.server.hear("cannot be read for now");
    file.write_all_at(&page, place).unwrap();
    peer.answer(id).unwrap();
    let texts = peer.texts();
    let read = texts.iter().filter(|text| text.contains(&large)).count();
    assert_eq!(read, 2, "{} texts", texts.len());
    peer.call("session/prompt", prompt(&session, "[[say:on]]"))
        .unwrap();
    served.end(&session);
}

#[test]
fn what_failed_on_a_full_disk_is_in_no_list() {
    let site = Site::new();
    let Some(disk) = Disk::mount(&site.folder().join("small"), "8m") else {
        println!("skipped: a small disk may not be mounted here");
        return;
    };
    let served = Served::start(site, disk.0.join("acpbox.db"));
    let mut peer = served.connect();
    let first = served.session(&mut peer);
    peer.call("session/prompt", prompt(&first, "[[flood:2000]]"))
        .unwrap();
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, b"").unwrap();
    fill_to_the_brim(&ballast);
    let cwd = served.site.folder().join("work");
    let new = json!({"cwd": cwd, "mcpServers": []});
    let fork = json!({"sessionId": first, "cwd": cwd, "mcpServers": []});
    let mut made = vec![first.clone()];
    let mut failed = 0;
    while failed < 6 {
        for (method, params) in [("session/new", &new), ("session/fork", &fork)] {
            match peer.call(method, params.clone()) {
                Ok(result) => made.push(result["sessionId"].as_str().unwrap().to_owned()),
                Err(error) => {
                    assert!(error.to_string().contains("is full"), "{method}: {error}");
                    failed += 1;
                }
            }
        }
        assert!(made.len() < 90, "the disk is not full");
    }
    std::fs::remove_file(&ballast).unwrap();
    // What could not be removed for want of space is removed soon.
    let start = std::time::Instant::now();
    loop {
        let list = peer.call("session/list", json!({})).unwrap();
        let listed = list["sessions"].as_array().unwrap().iter();
        let listed: Vec<&str> = listed.filter_map(|it| it["sessionId"].as_str()).collect();
        assert!(made.iter().all(|id| listed.contains(&&**id)), "{list}");
        if listed.len() == made.len() {
            break;
        }
        let unknown: Vec<&&str> = (listed.iter())
            .filter(|id| !made.contains(&(**id).to_owned()))
            .collect();
        assert!(start.elapsed() < Duration::from_secs(60), "{unknown:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(peer);
    let rows = served.end(&first);
    let ends = rows.iter().filter(|row| row.kind.ends_with(":result"));
    let ends: Vec<Value> = ends
        .map(|row| serde_json::from_str(&row.raw).unwrap())
        .collect();
    assert_eq!(ends.len(), 2, "{ends:?}");
}
