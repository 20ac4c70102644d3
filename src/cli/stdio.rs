//! `acpbox stdio`: one client on stdin and stdout.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Global, StdioArguments};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::shim::{self, Choice};
use crate::rpc::stdio;
use crate::server::{self, Gate};
use crate::session::retention;

pub(super) fn run(global: &Global, arguments: &StdioArguments) -> anyhow::Result<Code> {
    let context = Context::new(global, arguments.agent.as_deref(), arguments.vm.as_deref())?;
    let runtime = context::runtime()?;
    let code = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signals(shutdown.clone())?;
        let choice = Choice {
            server: &arguments.server,
            agent: arguments.agent.as_deref(),
            vm: arguments.vm.as_deref(),
        };
        if let Some((shim, link)) = shim::find(&context, choice).await {
            let (input, output) = (stdio::input(), stdio::output());
            shim.serve(link, input, output, shutdown, stdio::output_is_closed)
                .await;
            return Ok(exit::DONE);
        }
        let server = context.server()?;
        let host = std::sync::Arc::clone(&server.host);
        let keeping = tokio::spawn(retention::keep(std::sync::Arc::clone(&host)));
        let (input, output) = (stdio::input(), stdio::output());
        let gate = Gate {
            peer: "stdio".to_owned(),
            ..Gate::default()
        };
        let ending = server::serve(
            server,
            input,
            output,
            gate,
            shutdown,
            stdio::output_is_closed,
        )
        .await;
        tracing::debug!(?ending, "closing sessions and VMs");
        keeping.abort();
        host.shutdown().await;
        Ok::<Code, anyhow::Error>(exit::DONE)
    });
    // A read of a terminal's stdin cannot be called off.
    runtime.shutdown_background();
    code
}

/// SIGTERM, SIGINT and SIGHUP end the connection; sessions and data are put away first.
fn stop_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let mut arrived = signal(kind)?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            arrived.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}
