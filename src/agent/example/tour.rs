//! What a plain prompt gets: a short tour of what an agent can do.

use std::time::Duration;

use agent_client_protocol_schema::v1::{
    ContentBlock, Plan, PlanEntry, PlanEntryPriority, PlanEntryStatus, SessionUpdate, UsageUpdate,
};

use super::turn::{Stop, Turn};
use super::wire::lock;

/// The file that the tour writes.
const FILE: &str = "acpbox-example.md";
/// The command that the tour runs.
const COMMAND: &str = "uname -sr; id -un; pwd";
/// Between the words of a streamed sentence; long enough to be seen.
const WORD: Duration = Duration::from_millis(12);
/// Files of a prompt that are read.
const READ_LIMIT: usize = 3;
/// The size of the context that it claims, in tokens.
const CONTEXT: u64 = 200_000;

const STEPS: [&str; 3] = [
    "Look around the workspace",
    "Write acpbox-example.md, if you allow it",
    "Run a command",
];

impl Turn {
    pub(super) fn tour(&mut self, prompt: &str) -> Result<(), Stop> {
        self.stream(
            "Hello! I am acpbox's example agent: a script, without a model and without \
             network. Here is what any agent can do through acpbox.\n\n",
        )?;
        self.plan(0);
        let entries = self.look_around()?;
        let read = self.read_named(prompt)?;

        self.plan(1);
        self.stream(&format!(
            "Next I would like to write your prompt to `{FILE}`.\n"
        ))?;
        let path = self.path(FILE);
        let content = format!(
            "# Written by acpbox's example agent\n\nYou asked:\n\n{}\n",
            quote(prompt)
        );
        let wrote = match self.write(&path, &content)? {
            Ok(()) => format!("wrote `{FILE}`"),
            Err(error) => {
                self.stream(&format!("It was not written: {error}.\n"))?;
                "wrote nothing".to_owned()
            }
        };

        self.plan(2);
        let ran = match self.shell(COMMAND)? {
            Ok(ran) => {
                self.stream(&format!("\n`{COMMAND}` says ({}):\n\n", ran.status))?;
                self.say(&format!("```\n{}\n```\n", ran.output.trim_end()));
                "ran one command"
            }
            Err(error) => {
                self.stream(&format!("\nThe command did not run: {error}.\n"))?;
                "ran no command"
            }
        };

        self.plan(STEPS.len());
        self.stream(&format!(
            "\nDone: I listed {entries}, read {}, {wrote} and {ran}.\n",
            count(read, "file", "files")
        ))?;
        let usage = UsageUpdate::new(self.tokens(), CONTEXT);
        self.update(SessionUpdate::UsageUpdate(usage));
        Ok(())
    }

    /// Lists the workspace and says how many entries it has.
    fn look_around(&mut self) -> Result<String, Stop> {
        let names = match self.list_workspace()? {
            Ok(names) => names,
            Err(error) => {
                self.stream(&format!("The workspace cannot be listed: {error}.\n"))?;
                return Ok("no entries".to_owned());
            }
        };
        let some: Vec<String> = names
            .iter()
            .take(5)
            .map(|name| format!("`{name}`"))
            .collect();
        let entries = count(names.len(), "entry", "entries");
        self.stream(&match names.len() {
            0 => "The workspace is empty.\n".to_owned(),
            1..=5 => format!("The workspace has {entries}: {}.\n", some.join(", ")),
            _ => format!(
                "The workspace has {entries}, such as {}.\n",
                some.join(", ")
            ),
        })?;
        Ok(entries)
    }

    /// Reads the files that the prompt names and says how many there were.
    fn read_named(&mut self, prompt: &str) -> Result<usize, Stop> {
        let mut read = 0;
        for name in named_files(prompt, |name| self.path(name).is_file()) {
            match self.read(&self.path(&name))? {
                Ok(text) => {
                    read += 1;
                    let lines = count(text.lines().count(), "line", "lines");
                    let first = text.lines().find(|line| !line.trim().is_empty());
                    self.stream(&match first {
                        Some(first) => format!("`{name}` has {lines} and begins: {first}\n"),
                        None => format!("`{name}` is empty.\n"),
                    })?;
                }
                Err(error) => self.stream(&format!("`{name}` cannot be read: {error}.\n"))?,
            }
        }
        Ok(read)
    }

    /// Publishes the plan with `done` steps behind and the next under way.
    fn plan(&self, done: usize) {
        let entries = STEPS.iter().enumerate().map(|(index, step)| {
            let status = match index.cmp(&done) {
                std::cmp::Ordering::Less => PlanEntryStatus::Completed,
                std::cmp::Ordering::Equal => PlanEntryStatus::InProgress,
                std::cmp::Ordering::Greater => PlanEntryStatus::Pending,
            };
            PlanEntry::new(*step, PlanEntryPriority::Medium, status)
        });
        self.update(SessionUpdate::Plan(Plan::new(entries.collect())));
    }

    /// Says a text in chunks of a few words, as a model would.
    fn stream(&self, text: &str) -> Result<(), Stop> {
        let mut chunk = String::new();
        for word in text.split_inclusive(' ') {
            chunk.push_str(word);
            if chunk.len() >= 16 {
                self.say(&chunk);
                chunk.clear();
                self.cancel.sleep(WORD)?;
            }
        }
        if !chunk.is_empty() {
            self.say(&chunk);
        }
        self.cancel.check()
    }

    /// A guess at the size of the conversation, by the usual four bytes a token.
    fn tokens(&self) -> u64 {
        let record = lock(&self.session.record);
        let bytes: usize = record
            .history
            .iter()
            .map(|update| match update {
                SessionUpdate::UserMessageChunk(chunk)
                | SessionUpdate::AgentMessageChunk(chunk) => match &chunk.content {
                    ContentBlock::Text(text) => text.text.len(),
                    _ => 0,
                },
                _ => 0,
            })
            .sum();
        bytes.div_ceil(4) as u64
    }
}

/// Words of the prompt that are files, or that follow the word `read` and look
/// like one, each once.
fn named_files(prompt: &str, is_file: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut after_read = false;
    for word in prompt.split_whitespace() {
        let name = word
            .trim_matches(|it: char| "\"'`()<>,;:!?".contains(it))
            .trim_end_matches('.');
        let looks_like_one = after_read && name.contains(['.', '/']);
        if !name.is_empty()
            && (is_file(name) || looks_like_one)
            && !names.iter().any(|it| it == name)
        {
            names.push(name.to_owned());
        }
        after_read = name.eq_ignore_ascii_case("read");
    }
    names.truncate(READ_LIMIT);
    names
}

fn quote(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("> {line}")).collect();
    lines.join("\n")
}

fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        0 => format!("no {many}"),
        1 => format!("one {one}"),
        _ => format!("{number} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_prose() {
        let named = |prompt| named_files(prompt, |name| ["README.md", "src/a.rs"].contains(&name));
        assert_eq!(named("Please read README.md."), ["README.md"]);
        assert_eq!(
            named("what does `src/a.rs`, do? (README.md)"),
            ["src/a.rs", "README.md"]
        );
        assert_eq!(named("read missing.txt"), ["missing.txt"]);
        assert!(named("I read that e.g. nothing is here").is_empty());
    }
}
