//! `acpbox agents`: what can be started, and what each agent is told.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::{AgentsCommand, AgentsShowArguments, Global, JsonArguments};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::output::Output;
use super::table;
use crate::agent::catalog::{Agent, AgentInfo, EXAMPLE, Source};
use crate::agent::instructions::{Facts, base_text};
use crate::config::{ConfigError, VmPlan};
use crate::session::start::capabilities_key;
use crate::transcript::printable;
use crate::vm;

pub(super) fn run(global: &Global, command: &AgentsCommand) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    match command {
        AgentsCommand::List(arguments) => list(&context, arguments),
        AgentsCommand::Show(arguments) => show(&context, arguments),
    }
}

fn list(context: &Context, arguments: &JsonArguments) -> anyhow::Result<Code> {
    let infos: Vec<AgentInfo> = context
        .catalog
        .list()
        .map(|agent| info(context, agent, None))
        .collect();
    let mut output = Output::new();
    if arguments.json {
        output.json(&infos)?;
    } else {
        let default = &context.config.default_agent;
        let rows = infos.iter().map(|info| {
            let mark = if info.name == *default {
                " (default)"
            } else {
                ""
            };
            vec![
                format!("{}{mark}", info.name),
                found(info),
                info.description.clone(),
            ]
        });
        table::print(&mut output, &["name", "program", "description"], 1, rows)?;
    }
    output.flush()?;
    Ok(exit::DONE)
}

fn show(context: &Context, arguments: &AgentsShowArguments) -> anyhow::Result<Code> {
    let agent = context.catalog.get(&arguments.name)?;
    let folder = std::env::current_dir()?;
    let plan = context.config.vm_for(None, &folder, &[]);
    let info = info(context, agent, plan.as_ref().ok());
    let seen = seen_capabilities(context, &agent.name)?;
    let mut output = Output::new();
    if arguments.json {
        let mut value = json!(info);
        value["seen"] = seen.unwrap_or_default();
        value["folder"] = json!(folder);
        match &plan {
            Ok(plan) => {
                value["vm"] = json!(plan.spec.name);
                value["baseInstructions"] = json!(base_text(&Facts::of(plan)));
            }
            Err(error) => value["vmProblem"] = json!(error.to_string()),
        }
        output.json(&value)?;
    } else {
        output.text(&printable(&text(&info, seen.as_ref(), &plan)))?;
    }
    output.flush()?;
    Ok(exit::DONE)
}

/// What is known of an agent in a VM, or in one with the default settings.
pub(super) fn info(context: &Context, agent: &Agent, plan: Option<&VmPlan>) -> AgentInfo {
    let defaults = context.config.vm_settings("default");
    let (driver, root) = match plan {
        Some(plan) => (plan.driver.as_str(), &plan.spec.root),
        None => (defaults.driver.as_str(), &defaults.root),
    };
    let executable = vm::executable_in_guest(driver, &vm::own_executable());
    agent.info(&context.environment, root, &executable)
}

/// Where its program is, in words.
pub(super) fn found(info: &AgentInfo) -> String {
    if info.name == EXAMPLE && info.found_at.is_some() {
        return "part of acpbox".to_owned();
    }
    match (&info.found_at, &info.npx) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(npx)) => npx.clone(),
        (None, None) => "not installed".to_owned(),
    }
}

/// What the agent itself said when it last ran.
fn seen_capabilities(context: &Context, agent: &str) -> anyhow::Result<Option<Value>> {
    // Looking at an agent makes no database.
    if !context.config.paths.database.exists() {
        return Ok(None);
    }
    context::runtime()?.block_on(async {
        let store = context.store()?;
        let seen = store.setting(&capabilities_key(agent)).await?;
        store.close().await?;
        Ok(seen.and_then(|raw| serde_json::from_str(&raw).ok()))
    })
}

fn text(info: &AgentInfo, seen: Option<&Value>, plan: &Result<VmPlan, ConfigError>) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Into a String nothing fails.
        let _ = writeln!(
            text,
            "{name:<14}{}",
            value.replace('\n', "\n              ")
        );
    };
    let source = match info.source {
        Source::BuiltIn => "built in",
        Source::Changed => "built in, changed by the configuration",
        Source::Config => "from the configuration",
    };
    row("agent", &format!("{} ({source})", info.name));
    row("", &info.description);
    let words: Vec<&str> = std::iter::once(info.command.as_str())
        .chain(info.args.iter().map(String::as_str))
        .collect();
    row("command", &words.join(" "));
    match &info.problem {
        Some(problem) => row("problem", problem),
        None => row("program", &found(info)),
    }
    if let Some(install) = &info.install {
        row("install", install);
    }
    let passed: Vec<String> = info
        .pass_env
        .iter()
        .map(|variable| {
            let state = if variable.set { "set" } else { "not set" };
            format!("{} ({state})", variable.name)
        })
        .collect();
    if !passed.is_empty() {
        row("passes on", &passed.join("\n"));
    }
    if !info.env.is_empty() {
        row("sets", &info.env.join("\n"));
    }
    row("capabilities", &capabilities(info, seen));
    row("instructions", &info.instructions);
    match plan {
        Ok(plan) => {
            let told = base_text(&Facts::of(plan));
            let _ = write!(
                text,
                "\nIn this folder it runs in VM `{}` (driver {}) and is told:\n\n{told}\n",
                plan.spec.name, plan.driver
            );
        }
        Err(error) => {
            let _ = write!(text, "\nIn this folder it gets no VM: {error}\n");
        }
    }
    text
}

fn capabilities(info: &AgentInfo, seen: Option<&Value>) -> String {
    if let Some(seen) = seen.and_then(|seen| seen.get("agentCapabilities")) {
        return format!("as it said itself: {seen}");
    }
    let Some(known) = &info.capabilities else {
        return "unknown until it has run".to_owned();
    };
    let all = [
        ("session/load", known.load_session),
        ("session/resume", known.resume),
        ("images", known.image),
        ("audio", known.audio),
        ("embedded context", known.embedded_context),
        ("MCP over HTTP", known.mcp_http),
        ("MCP over SSE", known.mcp_sse),
    ];
    let names: Vec<&str> = all.iter().filter(|it| it.1).map(|it| it.0).collect();
    format!("{} (as seen of {})", names.join(", "), known.version)
}
