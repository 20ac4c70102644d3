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
        println!("skipped: ACPBOX_TEST_NO_MOUNT is set");
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
    let mut brim = File::options().append(true).open(&ballast).unwrap();
    while brim.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
    drop(brim);
    let id = raw.prompt(&session, "[[flood:200000]]");
    let answer = raw.answer(id);
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("is full"), "{answer}");
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

/// A small file system of its own.
pub(crate) struct Disk(pub(crate) PathBuf);

impl Disk {
    /// `None` where the environment says that mounting is not possible here.
    pub(crate) fn mount(folder: &Path, size: &str) -> Option<Disk> {
        if std::env::var_os("ACPBOX_TEST_NO_MOUNT").is_some() {
            return None;
        }
        std::fs::create_dir(folder).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "acpbox-test"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "this test mounts a small tmpfs, which needs root; run it as root, or set \
             ACPBOX_TEST_NO_MOUNT=1 to go without it: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(Disk(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
