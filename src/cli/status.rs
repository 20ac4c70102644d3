//! `acpbox status`: what the running server does.

use super::args::{Global, StatusArguments};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::output::Output;
use super::remote::{self, Remote};
use super::table;
use crate::acp::extension::{
    Activity, ClientStatus, Following, Role, ServerStatus, SessionStatus, VmState, VmStatus,
};
use crate::transcript::printable_line;

/// Sessions of one client that are named.
const NAMED: usize = 3;

pub(super) fn run(global: &Global, arguments: &StatusArguments) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    let remote = Remote::find(&context.config, &arguments.server)?;
    let status = context::runtime()?.block_on(async {
        let mut client = remote.connect("acpbox status").await?;
        let params = serde_json::json!({});
        let result = remote::ask(&mut client, "_acpbox/server/status", &params).await?;
        client.close().await;
        anyhow::Ok(result)
    })?;
    let mut output = Output::new();
    if arguments.json {
        // As it came: a newer server may say more.
        output.json(&serde_json::from_str::<serde_json::Value>(&status)?)?;
    } else {
        show(&serde_json::from_str(&status)?, &mut output)?;
    }
    output.flush()?;
    Ok(exit::DONE)
}

fn show(status: &ServerStatus, output: &mut Output) -> anyhow::Result<()> {
    let totals = &status.totals;
    let head = format!(
        "acpbox {} · process {} · since {} · {} and {} for {} · {}",
        status.version,
        status.pid,
        table::local_time(status.started),
        counted(totals.events, "event"),
        counted(totals.turns, "turn"),
        counted(totals.clients, "client"),
        status.database.display(),
    );
    output.line(&printable_line(&head))?;
    for warning in &status.warnings {
        output.line(&printable_line(&format!("warning: {warning}")))?;
    }
    section(output, "sessions", status.sessions.is_empty())?;
    if !status.sessions.is_empty() {
        let header = [
            "id", "active", "state", "agent", "vm", "clients", "queued", "asked", "title", "folder",
        ];
        table::print(output, &header, 8, status.sessions.iter().map(session))?;
    }
    section(output, "VMs", status.vms.is_empty())?;
    if !status.vms.is_empty() {
        let header = [
            "name",
            "state",
            "driver",
            "booted",
            "sessions",
            "workspaces",
        ];
        table::print(output, &header, 5, status.vms.iter().map(vm))?;
    }
    section(output, "clients", status.clients.is_empty())?;
    let header = ["number", "since", "queued", "name", "follows", "peer"];
    table::print(output, &header, 4, status.clients.iter().map(client))
}

fn section(output: &mut Output, name: &str, is_empty: bool) -> anyhow::Result<()> {
    output.line(&match is_empty {
        true => format!("\nno {name}"),
        false => format!("\n{name}"),
    })
}

fn session(session: &SessionStatus) -> table::Cells {
    let state = match session.state {
        Activity::Idle => "idle",
        Activity::Prompting => "prompting",
        Activity::WaitingForPermission => "waiting for permission",
        Activity::Asleep => "asleep",
    };
    vec![
        session.session_id.clone(),
        table::age(session.last_activity),
        state.to_owned(),
        session.agent.clone(),
        session.vm.clone(),
        session.clients.to_string(),
        session.queued_prompts.to_string(),
        session.pending_requests.to_string(),
        session.title.clone().unwrap_or_default(),
        session.cwd.display().to_string(),
    ]
}

fn vm(vm: &VmStatus) -> table::Cells {
    let state = match (vm.state, vm.holder) {
        (VmState::Running, Some(holder)) => format!("running in {holder}"),
        (VmState::Running, None) => "running".to_owned(),
        (VmState::Sleeping, _) => "asleep".to_owned(),
        (VmState::Stopped, _) => "stopped".to_owned(),
    };
    let workspaces = vm.workspaces.iter().map(|path| path.display().to_string());
    vec![
        vm.name.clone(),
        state,
        vm.driver.clone(),
        vm.booted.map(table::age).unwrap_or_default(),
        vm.live_sessions.to_string(),
        workspaces.collect::<Vec<_>>().join(", "),
    ]
}

fn client(client: &ClientStatus) -> table::Cells {
    let name = match (&client.name, &client.version) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (Some(name), None) => name.clone(),
        (None, _) => "not introduced".to_owned(),
    };
    vec![
        client.number.to_string(),
        table::age(client.since),
        format!("{}", indicatif::BinaryBytes(client.queued_bytes as u64)),
        name,
        follows(&client.follows),
        client.peer.clone(),
    ]
}

/// Sessions by as much of their ids as is mostly unique, and what is special.
fn follows(follows: &[Following]) -> String {
    let one = |following: &Following| {
        let id = following.session_id.get(..13);
        let id = id.unwrap_or(&following.session_id);
        let mut notes = Vec::new();
        if following.role == Role::Observer {
            notes.push("observer".to_owned());
        }
        if following.behind > 0 {
            notes.push(format!("{} behind", counted(following.behind, "event")));
        }
        match notes.is_empty() {
            true => id.to_owned(),
            false => format!("{id} ({})", notes.join(", ")),
        }
    };
    let mut named: Vec<String> = follows.iter().take(NAMED).map(one).collect();
    if follows.len() > NAMED {
        named.push(format!("{} more", follows.len() - NAMED));
    }
    named.join(", ")
}

fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
