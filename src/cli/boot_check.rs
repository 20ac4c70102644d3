//! Boots a VM of the configured kind, and has the example agent answer in it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::context::Context;
use super::output;
use crate::agent::catalog::EXAMPLE;
use crate::config::Guest;
use crate::rpc::codec::{Decoder, Frame};
use crate::rpc::{BatchReader, message};
use crate::vm::{self, Driver, Io, Outcome, Process, ProcessSpec, VmSpec};

const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is expected.
const LINE_BYTES: usize = 1 << 20;

pub(super) async fn run(context: &Context, driver: &dyn Driver) -> Outcome {
    let began = Instant::now();
    let folder = match Folder::make(&context.config.paths.state_dir) {
        Ok(folder) => folder,
        Err(error) => return Outcome::Bad(format!("cannot make a folder to try it in: {error}")),
    };
    match tokio::time::timeout(PATIENCE, boot(context, driver, &folder.0)).await {
        Ok(Ok(warnings)) if warnings.is_empty() => Outcome::Good(format!(
            "boots and answers ({} ms)",
            began.elapsed().as_millis()
        )),
        Ok(Ok(warnings)) => {
            Outcome::Degraded(format!("boots and answers; {}", warnings.join("; ")))
        }
        Ok(Err(error)) => Outcome::Bad(output::reasons(&error)),
        Err(_) => Outcome::Bad(format!(
            "no answer within {} s; is the machine overloaded?",
            PATIENCE.as_secs()
        )),
    }
}

/// Returns what the VM could not be given.
async fn boot(
    context: &Context,
    driver: &dyn Driver,
    folder: &Path,
) -> anyhow::Result<Vec<String>> {
    let settings = context.config.vm_settings("default");
    let workspace = folder.join("workspace");
    let vm = driver
        .boot(VmSpec {
            name: "doctor".to_owned(),
            state_dir: folder.join("vm"),
            workspaces: vec![workspace.clone()],
            mounts: Vec::new(),
            root: settings.root.clone(),
            network: settings.network,
            limits: settings.limits.clone(),
            protected: Vec::new(),
        })
        .await?;
    let executable = vm::executable_in_guest(driver.name(), &vm::own_executable());
    let agent = context.catalog.get(EXAMPLE)?;
    let located = agent.locate(&context.environment, &settings.root, &executable)?;
    let guest = Guest::isolated();
    let process = vm
        .spawn(ProcessSpec {
            command: located.command.to_string_lossy().into_owned(),
            args: located.args.clone(),
            env: agent.environment(&context.environment, &located, &guest),
            cwd: workspace,
            files: Vec::new(),
            io: Io::Pipes,
        })
        .await?;
    let answer = initialize(process).await;
    vm.shutdown().await;
    answer?;
    Ok(vm.warnings())
}

async fn initialize(process: Process) -> anyhow::Result<()> {
    let Some(stdin) = process.stdin else {
        anyhow::bail!("the VM gave the agent no standard input");
    };
    let mut stdin = pipe::Sender::from_owned_fd(stdin)?;
    let stdout = pipe::Receiver::from_owned_fd(process.stdout)?;
    let params = r#"{"protocolVersion":1,"clientCapabilities":{}}"#;
    let line = message::request(1, "initialize", params) + "\n";
    stdin.write_all(line.as_bytes()).await?;
    let mut reader = BatchReader::new(stdout, Decoder::lines(LINE_BYTES));
    let mut frames = Vec::new();
    if !reader.read(&mut frames).await? {
        anyhow::bail!("the example agent ended without an answer");
    }
    let answered = matches!(frames.first(), Some(Frame::Message(line))
        if std::str::from_utf8(line).is_ok_and(|line| line.contains("\"protocolVersion\":1")));
    anyhow::ensure!(answered, "the example agent answered something else");
    Ok(())
}

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn make(state_dir: &Path) -> std::io::Result<Folder> {
        let folder = state_dir.join(format!("doctor-{}", std::process::id()));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder.join("workspace"))?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
