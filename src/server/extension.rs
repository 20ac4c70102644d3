//! The `_acpbox/*` methods, registered once for every transport.

use std::sync::Arc;

use jsonrpsee_core::server::RpcModule;
use jsonrpsee_types::Params;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::connection::Connection;
use super::dispatch::{Answer, Request};
use super::status::{Observed, server_status};
use crate::acp::extension::*;
use crate::acp::failure::RESOURCE_NOT_FOUND;
use crate::acp::{Failure, Phase};
use crate::rpc::splice::{self, Edits};
use crate::session::create::Refusal;
use crate::session::state::now;
use crate::session::vms::Stopped;
use crate::session::{Host, locks};
use crate::store::{Direction, EventPage, EventRow, VmRow};
use crate::vm::disk;

/// The largest page, in events or lines, and in bytes of raw JSON.
const PAGE_LIMIT: usize = 10_000;
const PAGE_DEFAULT: usize = 1_000;
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Registers every method. One line each.
pub fn module(host: Arc<Host>, observed: &Arc<Observed>) -> RpcModule<Arc<Host>> {
    let mut module = RpcModule::new(host);
    let seen = Arc::clone(observed);
    add(&mut module, "_acpbox/server/info", move |host, request| {
        super::info::info(host, Arc::clone(&seen), request)
    });
    let seen = Arc::clone(observed);
    add(&mut module, "_acpbox/server/retire", move |_, request| {
        super::retire::retire(Arc::clone(&seen), request)
    });
    add(&mut module, "_acpbox/session/events", session_events);
    add(&mut module, "_acpbox/session/search", session_search);
    add(
        &mut module,
        "_acpbox/session/html",
        super::web::session_html(),
    );
    add(&mut module, "_acpbox/agent/logs", agent_logs);
    let observed = Arc::clone(observed);
    add(
        &mut module,
        "_acpbox/server/status",
        move |host, request| server_status(host, Arc::clone(&observed), request),
    );
    add(&mut module, "_acpbox/vm/list", vm_list);
    add(&mut module, "_acpbox/vm/status", vm_status);
    add(&mut module, "_acpbox/vm/sleep", vm_sleep);
    add(&mut module, "_acpbox/vm/wake", vm_wake);
    add(&mut module, "_acpbox/vm/delete", vm_delete);
    module
}

fn add<P, R, F>(
    module: &mut RpcModule<Arc<Host>>,
    name: &'static str,
    handler: impl Fn(Arc<Host>, P) -> F + Clone + Send + Sync + 'static,
) where
    P: DeserializeOwned + Send + 'static,
    R: serde::Serialize + Clone + 'static,
    F: Future<Output = Result<R, Failure>> + Send + 'static,
{
    let registered = module.register_async_method(name, move |params: Params<'static>, host, _| {
        let handler = handler.clone();
        async move {
            let params = parse::<P>(&params).map_err(|failure| failure.to_error_object())?;
            handler(Arc::clone(&host), params)
                .await
                .map_err(|failure| failure.to_error_object())
        }
    });
    debug_assert!(registered.is_ok(), "two methods of one name");
}

fn parse<P: DeserializeOwned>(params: &Params<'_>) -> Result<P, Failure> {
    let raw = params
        .as_str()
        .filter(|raw| !raw.is_empty() && *raw != "null")
        .unwrap_or("{}");
    serde_json::from_str(raw).map_err(|error| Failure::invalid_params(error.to_string()))
}

impl Connection {
    /// Passes a request to the module. jsonrpsee reads ids as it likes; the
    /// client gets its own back as it wrote it.
    pub(super) async fn own_method(
        self: Arc<Self>,
        request: Arc<Request>,
    ) -> Result<Answer, Refusal> {
        let text = {
            let mut edits = Edits::of(&request.text);
            edits.set(&request.text, "id", "0");
            edits.apply()
        };
        let answered = self.server.extension.raw_json_request(&text, 1).await;
        let (response, _) = answered
            .map_err(|error| Failure::invalid_params(format!("`{}`: {error}", request.method)))?;
        match splice::member(response.get(), "result") {
            Some(result) => Ok(Answer::Result(result.to_owned())),
            None => {
                let error = splice::member(response.get(), "error");
                Err(Refusal::Agent(
                    error
                        .unwrap_or(r#"{"code":-32603,"message":"Internal error"}"#)
                        .into(),
                ))
            }
        }
    }
}

fn page_limit(asked: Option<usize>) -> Result<usize, Failure> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_LIMIT => Ok(limit),
        other => Err(Failure::invalid_params(format!(
            "`limit` must be from 1 to {PAGE_LIMIT}, not {other}"
        ))),
    }
}

async fn session_events(
    host: Arc<Host>,
    request: EventsRequest,
) -> Result<EventsResponse, Failure> {
    host.known(&request.session_id).await?;
    let limit = page_limit(request.limit)?;
    if let Some(live) = host.registry.live(&request.session_id) {
        // What is stored can be read also where nothing more can be.
        let _ = live.flush().await;
    }
    let last_seq = host.store.last_seq(&request.session_id).await?;
    let rows = host
        .store
        .events(EventPage {
            session: request.session_id,
            after: request.after,
            before: request.before,
            limit,
            max_bytes: PAGE_BYTES,
            kinds: request.kinds,
        })
        .await?;
    let events = rows.into_iter().map(event).collect::<Result<_, _>>()?;
    Ok(EventsResponse { events, last_seq })
}

async fn session_search(
    host: Arc<Host>,
    request: SearchRequest,
) -> Result<SearchResponse, Failure> {
    super::search::search(&host.store, request).await
}

/// A stored row as it is shown.
pub fn event(row: EventRow) -> Result<Event, Failure> {
    let seq = row.seq;
    let message = RawValue::from_string(row.raw.into_string()).map_err(|error| {
        Failure::internal(
            Phase::Store,
            format!("event {seq} is stored as no JSON: {error}"),
        )
    })?;
    Ok(Event {
        seq,
        time: row.time,
        direction: match row.direction {
            Direction::Client => EventDirection::Client,
            Direction::Agent => EventDirection::Agent,
            Direction::Acpbox => EventDirection::Acpbox,
        },
        kind: row.kind.into_owned(),
        message,
    })
}

async fn agent_logs(host: Arc<Host>, request: LogsRequest) -> Result<LogsResponse, Failure> {
    host.known(&request.session_id).await?;
    let limit = page_limit(request.limit)?;
    let rows = host
        .store
        .log(&request.session_id, request.after.unwrap_or(0), limit)
        .await?;
    let lines = rows.into_iter().map(|row| LogEntry {
        number: row.number,
        time: row.time,
        stream: row.stream,
        text: row.text,
    });
    Ok(LogsResponse {
        lines: lines.collect(),
    })
}

async fn vm_list(host: Arc<Host>, _: VmListRequest) -> Result<VmListResponse, Failure> {
    let vms = vms(&host).await?;
    Ok(VmListResponse { vms })
}

/// Every VM that is known.
pub(super) async fn vms(host: &Host) -> Result<Vec<VmStatus>, Failure> {
    let mut vms = Vec::new();
    for row in host.store.vms().await? {
        vms.push(status(host, row).await);
    }
    Ok(vms)
}

async fn vm_status(host: Arc<Host>, request: VmRequest) -> Result<VmStatus, Failure> {
    let row = vm_row(&host, &request.name).await?;
    Ok(status(&host, row).await)
}

/// Ends the VM's agents gently, then whatever else runs in it; its disk stays.
async fn vm_sleep(host: Arc<Host>, request: VmRequest) -> Result<VmStatus, Failure> {
    let row = vm_row(&host, &request.name).await?;
    let slept = host.sleep_vm(&request.name, request.force).await?;
    if let (Stopped::NotRunning, Some(holder)) = (slept, holder_elsewhere(&row)) {
        return Err(runs_elsewhere(&row, holder));
    }
    vm_status(host, request).await
}

async fn vm_wake(host: Arc<Host>, request: VmRequest) -> Result<VmStatus, Failure> {
    let row = vm_row(&host, &request.name).await?;
    host.wake(&row).await?;
    vm_status(host, request).await
}

async fn vm_delete(host: Arc<Host>, request: VmRequest) -> Result<VmDeleteResponse, Failure> {
    let row = vm_row(&host, &request.name).await?;
    if let Some(holder) = holder_elsewhere(&row) {
        return Err(runs_elsewhere(&row, holder));
    }
    host.sleep_vm(&request.name, request.force).await?;
    let state_dir = row.state_dir.clone();
    let removing = tokio::task::spawn_blocking(move || disk::remove_unused(&state_dir));
    match removing.await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            let holder = holder_elsewhere(&row).unwrap_or_default();
            return Err(runs_elsewhere(&row, holder));
        }
        Ok(Err(error)) => {
            let what = format!(
                "the disk of VM `{}` could not be removed: {error}",
                row.name
            );
            return Err(Failure::internal(Phase::Boot, what));
        }
        Err(error) => return Err(Failure::internal(Phase::Boot, error.to_string())),
    }
    host.vms.forget(&row.name);
    let deleted = host.store.delete_vm(&row.name).await?;
    Ok(VmDeleteResponse { deleted })
}

fn runs_elsewhere(row: &VmRow, holder: u32) -> Failure {
    let what = format!(
        "VM `{}` runs in another acpbox process ({holder})",
        row.name
    );
    Failure::internal(Phase::Boot, what).hint(format!(
        "end it there first; `acpbox vms stop {}` does so from outside",
        row.name
    ))
}

async fn vm_row(host: &Host, name: &str) -> Result<VmRow, Failure> {
    let found = host
        .store
        .vms()
        .await?
        .into_iter()
        .find(|row| row.name == name);
    found.ok_or_else(|| {
        let what = format!(
            "Resource not found: there is no VM `{name}`; _acpbox/vm/list names those there are"
        );
        Failure::new(Phase::Request, RESOURCE_NOT_FOUND, what)
    })
}

/// Another process in which the VM runs.
fn holder_elsewhere(row: &VmRow) -> Option<u32> {
    let own = std::process::id();
    let mut holders = locks::holders(&disk::lock_file(&row.state_dir));
    // The driver `host` shares no disk, and has no lock.
    if row.driver == "host" && row.holder != 0 {
        let holder = rustix::process::Pid::from_raw(row.holder.cast_signed());
        let is_alive = |pid| rustix::process::test_kill_process(pid).is_ok();
        holders.extend(holder.is_some_and(is_alive).then_some(row.holder));
    }
    holders.into_iter().find(|holder| *holder != own)
}

async fn status(host: &Host, row: VmRow) -> VmStatus {
    let running = host.vms.running(&row.name).await;
    let elsewhere = holder_elsewhere(&row);
    let milliseconds = |at: tokio::time::Instant| now() - at.elapsed().as_millis() as i64;
    VmStatus {
        state: if running.is_some() || elsewhere.is_some() {
            VmState::Running
        } else if host.vms.is_asleep(&row.name) {
            VmState::Sleeping
        } else {
            VmState::Stopped
        },
        holder: elsewhere,
        live_sessions: host.registry.in_vm(&row.name).len(),
        last_activity: host.vm_last_activity(&row.name).await.map(milliseconds),
        idle_since: host.vm_idle_since(&row.name).await.map(milliseconds),
        warnings: running
            .map(|running| running.vm.warnings())
            .unwrap_or_default(),
        name: row.name,
        driver: row.driver,
        workspaces: row.workspaces,
        created: row.created,
        booted: row.booted,
    }
}
