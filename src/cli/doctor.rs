//! `acpbox doctor`: is everything there, and how is it mended where not?

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::args::{DoctorArguments, Global};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::output::{self, Output};
use super::{agents, boot_check};
use crate::agent::catalog::AgentInfo;
use crate::session::hooks::NOTIFY;
use crate::store::{Store, StoreError};
use crate::transcript::printable_line;
use crate::vm::{self, Check, Outcome};

/// How long looking through the whole database may take; large ones take longer.
const DATABASE_PATIENCE: Duration = Duration::from_secs(10);

/// A line of the report.
#[derive(Serialize)]
struct Line {
    what: String,
    /// `good`, `degraded` or `bad`.
    outcome: &'static str,
    /// What was found, and how to mend it.
    detail: String,
}

pub(super) fn run(global: &Global, arguments: &DoctorArguments) -> anyhow::Result<Code> {
    let mut report = Report::default();
    let context = configuration(global, &mut report);
    if let Some(context) = &context {
        context::runtime()?.block_on(examine(context, &mut report));
    }
    let is_usable = report.0.iter().all(|line| line.outcome != "bad");
    let mut output = Output::new();
    if arguments.json {
        output.json(&report.0)?;
    } else {
        for line in &report.0 {
            output.line(&text(line, output.color))?;
        }
        output.line(if is_usable {
            "\nacpbox is usable"
        } else {
            "\nacpbox is not usable: see what is marked ✗"
        })?;
    }
    output.flush()?;
    Ok(if is_usable { exit::DONE } else { exit::FAILED })
}

#[derive(Default)]
struct Report(Vec<Line>);

impl Report {
    fn add(&mut self, what: &str, outcome: Outcome) {
        let (outcome, detail) = match outcome {
            Outcome::Good(detail) => ("good", detail),
            Outcome::Degraded(detail) => ("degraded", detail),
            Outcome::Bad(detail) => ("bad", detail),
        };
        self.0.push(Line {
            what: what.to_owned(),
            outcome,
            detail,
        });
    }
}

fn text(line: &Line, color: bool) -> String {
    let (mark, style) = match line.outcome {
        "good" => ("✓", AnsiColor::Green.on_default()),
        "degraded" => ("!", AnsiColor::Yellow.on_default()),
        _ => ("✗", AnsiColor::Red.on_default()),
    };
    let style = if color { style } else { Style::new() };
    let detail = printable_line(&line.detail);
    format!("{style}{mark}{style:#} {}: {detail}", line.what)
}

/// The rest is examined with the built-in values when the file is wrong.
fn configuration(global: &Global, report: &mut Report) -> Option<Context> {
    const WHAT: &str = "configuration";
    match Context::new(global, None, None) {
        Ok(context) => {
            let file = &context.config.paths.config_file;
            let outcome = if file.exists() {
                Outcome::Good(file.display().to_string())
            } else {
                Outcome::Good(format!("the built-in values; {} is absent", file.display()))
            };
            report.add(WHAT, outcome);
            Some(context)
        }
        Err(error) => {
            report.add(WHAT, Outcome::Bad(output::reasons(&error)));
            let built_in = Global {
                config: Some(PathBuf::from("/dev/null")),
                ..global.clone()
            };
            Context::new(&built_in, None, None).ok()
        }
    }
}

async fn examine(context: &Context, report: &mut Report) {
    report.add("database", database(context).await);
    for file in Store::earlier(&context.config.paths.database) {
        let what = format!(
            "{} was damaged and set aside; `sqlite3 {} .recover` shows what can be read of it. \
             Remove it, and what begins with its name, once nothing of it is wanted",
            file.display(),
            file.display()
        );
        report.add("an earlier database", Outcome::Degraded(what));
    }
    hooks(context, report);
    server(context, report);
    let settings = context.config.vm_settings("default");
    let Some(driver) = vm::driver(&settings.driver, vm::own_executable()) else {
        let what = format!(
            "there is no driver `{}`; vms.default.driver takes {}",
            settings.driver,
            vm::DRIVERS.join(" or ")
        );
        return report.add("VM driver", Outcome::Bad(what));
    };
    for Check { what, outcome } in driver.probe().await {
        report.add(&format!("{}: {what}", settings.driver), outcome);
    }
    let booted = boot_check::run(context, driver.as_ref()).await;
    report.add("a VM with the example agent", booted);
    for agent in context.catalog.list() {
        let info = agents::info(context, agent, None);
        let is_default = agent.name == context.config.default_agent;
        report.add(
            &format!("agent {}", agent.name),
            installed(&info, is_default),
        );
    }
}

/// Whether the programs of `[hooks]` are there.
fn hooks(context: &Context, report: &mut Report) {
    let find = |program: &str| {
        let path = Some(context.environment.path());
        which::which_in(program, path, "/")
    };
    let hooks = &context.config.hooks;
    for (key, command) in hooks.commands() {
        let program = command.first().map_or("", String::as_str);
        let outcome = match find(program) {
            Ok(path) => Outcome::Good(path.display().to_string()),
            Err(_) => Outcome::Degraded(format!(
                "`{program}` is no program on PATH; write its absolute path, or take hooks.{key} \
                 out of the configuration"
            )),
        };
        report.add(&format!("hooks.{key}"), outcome);
    }
    if hooks.notify {
        let outcome = match find(NOTIFY) {
            Ok(path) => Outcome::Good(path.display().to_string()),
            Err(_) => Outcome::Degraded(format!(
                "there is no `{NOTIFY}`: install libnotify (libnotify-bin on Debian), or set \
                 hooks.notify to false"
            )),
        };
        report.add("hooks.notify", outcome);
    }
}

/// Whether `acpbox serve` could use what `[server]` says.
fn server(context: &Context, report: &mut Report) {
    let outcome = match super::serve::check(&context.config) {
        None => return,
        Some(Ok(addresses)) if addresses.is_empty() => {
            Outcome::Good("what it names can be used".into())
        }
        Some(Ok(addresses)) => Outcome::Good(addresses.join(", ")),
        // An editor does without.
        Some(Err(error)) => Outcome::Degraded(error.to_string()),
    };
    report.add("server", outcome);
}

async fn database(context: &Context) -> Outcome {
    let path = &context.config.paths.database;
    let older = Store::older_schema(path);
    let began = Instant::now();
    let store = match context.store() {
        Ok(store) => store,
        Err(error) => {
            let is_damaged = matches!(error.downcast_ref(), Some(StoreError::Damaged { .. }));
            let note = if is_damaged && context.has_own_database() {
                "; the next session sets it aside and begins a new one"
            } else {
                ""
            };
            return Outcome::Bad(format!("{}{note}", output::reasons(&error)));
        }
    };
    let size = size(path);
    let updated = older.map_or(String::new(), |found| {
        format!("brought up to date from schema {found} just now, ")
    });
    let checked = tokio::time::timeout(DATABASE_PATIENCE, store.check()).await;
    let outcome = match checked {
        Ok(Ok(())) => Outcome::Good(format!(
            "{} ({size}, {updated}sound, looked through in {} ms)",
            path.display(),
            began.elapsed().as_millis()
        )),
        Ok(Err(error)) => Outcome::Bad(format!("{error}")),
        Err(_) => Outcome::Good(format!(
            "{} ({size}, {updated}opens; too large to be looked through here)",
            path.display()
        )),
    };
    if let Err(error) = store.close().await {
        return Outcome::Bad(format!("{error}"));
    }
    outcome
}

/// Of the file and its write-ahead log.
fn size(path: &Path) -> String {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let bytes: u64 = [path, &log]
        .iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|found| found.len())
        .sum();
    format!("{}", indicatif::BinaryBytes(bytes))
}

fn installed(info: &AgentInfo, is_default: bool) -> Outcome {
    let found = agents::found(info);
    let unset: Vec<&str> = info
        .pass_env
        .iter()
        .filter(|variable| !variable.set)
        .map(|variable| variable.name.as_str())
        .collect();
    match (&info.problem, &info.npx) {
        (None, None) if unset.is_empty() || unset.len() < info.pass_env.len() => {
            Outcome::Good(found)
        }
        (None, None) => Outcome::Good(format!(
            "{found} (of the variables it may be given none is set: {}; it may be logged in all the same)",
            unset.join(", ")
        )),
        (None, Some(npx)) => Outcome::Degraded(format!(
            "is fetched when it is used, with `{npx}`; {} makes that faster",
            info.install
                .as_deref()
                .map_or("an installation".to_owned(), |it| format!("`{it}`"))
        )),
        (Some(problem), _) => {
            let default = if is_default {
                "the default agent is not installed: "
            } else {
                ""
            };
            let install = info
                .install
                .as_deref()
                .map(|it| format!("; install it with `{it}`"));
            Outcome::Degraded(format!(
                "{default}{problem}{}",
                install
                    .filter(|it| !problem.contains(it.trim_start_matches("; install it with ")))
                    .unwrap_or_default()
            ))
        }
    }
}
