//! `/metrics`: figures in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::{Refused, Site};
use crate::acp::Failure;

/// The text format's own type (Prometheus, exposition formats).
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`, for those who know the token.
pub async fn show(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    if let Err(refused) = site.must_be_authorized(&headers) {
        return refused.into_response();
    }
    let text = match site.figures().await {
        Ok(figures) => figures.text(),
        Err(failure) => {
            let refused = Refused::new(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string());
            return refused.into_response();
        }
    };
    ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
}

/// Figures that are written one after the other.
#[derive(Default)]
pub struct Figures(String);

impl Figures {
    /// Adds one that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.add(name, "gauge", help, value);
    }

    /// Adds one that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, "counter", help, value);
    }

    fn add(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = write!(
            self.0,
            "# HELP acpbox_{name} {help}\n# TYPE acpbox_{name} {kind}\nacpbox_{name} {value}\n"
        );
    }

    pub fn text(self) -> String {
        self.0
    }
}

impl Site {
    async fn figures(&self) -> Result<Figures, Failure> {
        let status = self.server.status().await?;
        let host = &self.server.host;
        let live = host.registry.all();
        let busy = live.iter().filter(|live| live.is_busy()).count();
        let mut vms: Vec<&str> = live.iter().map(|live| live.vm_name.as_str()).collect();
        vms.sort_unstable();
        vms.dedup();
        let mut figures = Figures::default();
        figures.gauge(
            "sessions_live",
            "Sessions with a running agent.",
            live.len(),
        );
        figures.gauge("turns_running", "Sessions in which a turn runs.", busy);
        figures.gauge("vms_in_use", "VMs in which an agent runs.", vms.len());
        figures.gauge(
            "http_clients",
            "Clients of event streams at this address.",
            self.remotes.count(),
        );
        figures.gauge(
            "http_queued_bytes",
            "What waits to be read from event streams at this address.",
            self.remotes.held(),
        );
        let (sessions, clients) = (&status.sessions, &status.clients);
        figures.gauge(
            "clients",
            "Clients that are connected, in any way.",
            clients.len(),
        );
        figures.gauge(
            "client_queued_bytes",
            "What waits to be read by clients.",
            clients.iter().map(|it| it.queued_bytes).sum(),
        );
        figures.gauge(
            "prompts_queued",
            "Prompts that wait behind a running turn.",
            sessions.iter().map(|it| it.queued_prompts).sum(),
        );
        figures.gauge(
            "questions_pending",
            "Questions of agents that wait for a person's answer.",
            sessions.iter().map(|it| it.pending_requests).sum(),
        );
        let totals = &status.totals;
        figures.counter(
            "events_total",
            "Events that were written for live sessions.",
            totals.events,
        );
        figures.counter("turns_total", "Turns that ended.", totals.turns);
        figures.counter("clients_total", "Clients that connected.", totals.clients);
        figures.gauge(
            "uptime_seconds",
            "Since the process started.",
            usize::try_from(status.uptime / 1000).unwrap_or(usize::MAX),
        );
        Ok(figures)
    }
}
