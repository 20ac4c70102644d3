//! A disk that is full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

#[test]
fn a_full_disk_ends_the_turn_by_name_and_is_forgotten_once_there_is_space() {
    let site = Site::new();
    let Some(disk) = Disk::mount(&site.folder().join("small"), "12m") else {
        println!("skipped: a small disk may not be mounted here");
        return;
    };
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![0; 6 << 20]).unwrap();
    let database = disk.0.join("acpbox.db");
    let argument = database.display().to_string();
    let workspace = site.repository("project");
    let mut raw = Raw::start(&site, &["--db", &argument]);
    let session = raw.open(&workspace);
    let first = raw.prompt(&session, "[[say:before]]");
    assert_eq!(raw.answer(first)["result"]["stopReason"], "end_turn");

    let id = raw.prompt(&session, "[[flood:200000]]");
    let answer = raw.answer(id);
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("is full"), "{answer}");
    assert!(message.contains("free some space"), "{answer}");
    assert_eq!(answer["error"]["data"]["phase"], "store", "{answer}");

    // Filled to the brim, it has no room for the next stream either, which is
    // told by the same name; the session comes back for it first.
    fill_to_the_brim(&ballast);
    for _ in 0..3 {
        let id = raw.prompt(&session, "[[flood:200000]]");
        let answer = raw.answer(id);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("is full"), "{answer}");
    }
    std::fs::remove_file(&ballast).unwrap();
    let id = raw.prompt(&session, "[[say:afterwards]]");
    let answer = raw.answer(id);
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let watch = site.watch();
    raw.close_input();
    let status = raw.wait(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    watch.expect_none(Duration::ZERO);

    let lines = raw.lines();
    let rows = stored(&database, &session);
    assert!(expect_stored(&lines, &rows) > 1000);
}

#[test]
fn a_full_disk_refuses_new_sessions_and_deletions_by_name() {
    let site = Site::new();
    site.configure("[vms.default]\ndriver = 'host'\n");
    let Some(disk) = Disk::mount(&site.folder().join("small"), "12m") else {
        println!("skipped: a small disk may not be mounted here");
        return;
    };
    let ballast = disk.0.join("ballast");
    let database = disk.0.join("acpbox.db");
    let workspace = site.repository("project");
    let arguments = ["--agent", "example", "--db", database.to_str().unwrap()];
    let mut acpbox = site.connect(&arguments);
    let new = json!({"cwd": workspace, "mcpServers": []});
    let open = |acpbox: &mut Bare| {
        let id = acpbox.send_request("session/new", new.clone());
        acpbox.answer(id)
    };
    let first = open(&mut acpbox).unwrap()["sessionId"].take();
    let first = first.as_str().unwrap().to_owned();
    acpbox.prompt(&first, "[[flood:1000]]");
    std::fs::write(&ballast, b"").unwrap();
    fill_to_the_brim(&ballast);

    // The log may have room left in the file that it has.
    let mut made = vec![first.clone()];
    let error = loop {
        match open(&mut acpbox) {
            Ok(created) => made.push(created["sessionId"].as_str().unwrap().to_owned()),
            Err(error) => break error,
        }
        assert!(made.len() < 90, "the disk is not full");
    };
    expect_full(&error);
    // Deleting writes too; it is done or it is not, and says so.
    let deleted = acpbox.send_request("session/delete", json!({"sessionId": first}));
    let deleted = acpbox.answer(deleted);
    if let Err(error) = &deleted {
        expect_full(error);
    }
    let is_gone = deleted.as_ref().map_or_else(
        |error| error.to_string().contains("the session is deleted"),
        |_| true,
    );
    let list = acpbox.request("session/list", json!({}));
    assert_eq!(is_listed(&list, &first), !is_gone, "{list}");

    std::fs::remove_file(&ballast).unwrap();
    if !is_gone {
        let page = json!({"sessionId": first, "limit": 10_000});
        let read = acpbox.request("_acpbox/session/events", page);
        assert!(read["events"].as_array().unwrap().len() > 1000);
        acpbox.request("session/delete", json!({"sessionId": first}));
    }
    let list = acpbox.request("session/list", json!({}));
    assert!(!is_listed(&list, &first));
    let last = open(&mut acpbox).unwrap()["sessionId"].take();
    let answer = acpbox.prompt(last.as_str().unwrap(), "[[say:on]]");
    assert_eq!(answer["stopReason"], "end_turn");
    for id in &made[1..] {
        assert!(is_listed(&list, id), "{id} was made");
    }
    let status = acpbox.close(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    stored(&database, &first);
}

fn expect_full(error: &serde_json::Value) {
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("is full"), "{error}");
    assert!(message.contains("free some space"), "{error}");
    assert_eq!(error["data"]["phase"], "store", "{error}");
}

fn is_listed(list: &serde_json::Value, session: &str) -> bool {
    let sessions = list["sessions"].as_array().unwrap();
    sessions.iter().any(|it| it["sessionId"] == session)
}

pub(crate) fn fill_to_the_brim(ballast: &Path) {
    let mut brim = File::options().append(true).open(ballast).unwrap();
    while brim.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
}

/// A small file system of its own.
pub(crate) struct Disk(pub(crate) PathBuf);

impl Disk {
    /// `None` where it may not be mounted: the environment says so, or neither this
    /// user nor a sudo that asks for nothing may.
    pub(crate) fn mount(folder: &Path, size: &str) -> Option<Disk> {
        if std::env::var_os("ACPBOX_TEST_NO_MOUNT").is_some() {
            return None;
        }
        std::fs::create_dir(folder).unwrap();
        let user = rustix::process::getuid();
        let options = format!("size={size},mode=0700,uid={}", user.as_raw());
        let output = as_root("mount")
            .args(["-t", "tmpfs", "-o", &options, "acpbox-test"])
            .arg(folder)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Disk(folder.to_owned())),
            refused if user.is_root() => panic!("a small tmpfs could not be mounted: {refused:?}"),
            _ => None,
        }
    }
}

/// A command of root's: by sudo where this is another user.
fn as_root(program: &str) -> Command {
    if rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = as_root("umount").arg("-l").arg(&self.0).status();
    }
}
