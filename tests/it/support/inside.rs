//! A session of the example agent, to run commands where its agent runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::bare::{Bare, prompt};
use super::site::initialize;

/// A session through which a shell inside the VM is reached.
pub struct Inside {
    pub session: String,
    pub vm: String,
    pub workspace: PathBuf,
    pub warnings: Value,
}

impl Inside {
    /// `session/new` for the example agent with these options of `_meta.acpbox`.
    pub fn open(acpbox: &mut Bare, workspace: &Path, mut options: Value) -> Inside {
        options["agent"] = "example".into();
        let meta = json!({"acpbox": options});
        let params = json!({"cwd": workspace, "mcpServers": [], "_meta": meta});
        let created = acpbox.request("session/new", params);
        let ours = &created["_meta"]["acpbox"];
        Inside {
            session: created["sessionId"].as_str().unwrap().to_owned(),
            vm: ours["vm"].as_str().unwrap().to_owned(),
            workspace: workspace.to_owned(),
            warnings: ours["warnings"].clone(),
        }
    }

    /// Runs a script in a child of the agent; returns its output, trimmed, and
    /// its exit code.
    pub fn run(&self, acpbox: &mut Bare, script: &str) -> (String, i32) {
        let (text, output, code) = self.prepare(script);
        let answer = acpbox.prompt(&self.session, &text);
        assert_eq!(answer["stopReason"], "end_turn", "{answer}");
        let read = |path: &Path| {
            let text = std::fs::read(path).unwrap_or_else(|error| panic!("{script}: {error}"));
            let _ = std::fs::remove_file(path);
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        (read(&output), read(&code).parse().unwrap())
    }

    /// The output of a script that must succeed.
    pub fn succeed(&self, acpbox: &mut Bare, script: &str) -> String {
        let (output, code) = self.run(acpbox, script);
        assert_eq!(code, 0, "{script}: {output}");
        output
    }

    /// The output of a script that must fail.
    pub fn fail(&self, acpbox: &mut Bare, script: &str) -> String {
        let (output, code) = self.run(acpbox, script);
        assert_ne!(code, 0, "{script} should have failed: {output}");
        output
    }

    /// Starts a prompt without waiting for its end; returns the request's id.
    pub fn begin(&self, acpbox: &mut Bare, text: &str) -> u64 {
        acpbox.send_request("session/prompt", prompt(&self.session, text))
    }

    /// The prompt for a script, and the files for its output and exit code. They
    /// are git's to ignore and below the workspace, which both sides see.
    fn prepare(&self, script: &str) -> (String, PathBuf, PathBuf) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.workspace.join(format!(".inside-{number}.{kind}"));
        let (source, output, code) = (file("sh"), file("out"), file("code"));
        // The shell removes the script before it runs, so that the workspace stays as it was.
        let script = format!("rm '{}'\n{script}\n", source.display());
        std::fs::write(&source, script).unwrap();
        let text = format!(
            "[[shell:bash '{}' > '{}' 2>&1; echo $? > '{}']]",
            source.display(),
            output.display(),
            code.display()
        );
        (text, output, code)
    }
}

/// `initialize` as a client that offers terminals, which acpbox then serves in the VM.
pub fn initialize_with_terminals() -> Value {
    initialize(json!({"terminal": true}))
}
