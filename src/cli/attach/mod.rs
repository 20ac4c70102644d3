//! `acpbox attach`: a live session in the terminal, through the running server.
//!
//! What is shown is read from the transcript, number by number, so that nothing is
//! missing and nothing comes twice, also when the connection was lost meanwhile.
//!
//! - `find`: which session is meant. `follow`: the loop, and all that can wake it.
//! - `input`: what is typed, and signals. `asked`: what may be answered: a `question` for
//!   a permission, or a `form`, each `field` of it.
//! - `view`: what is shown. `line`: the connection.

mod find;
mod input;
mod asked;
mod question;
mod form;
mod field;
mod view;
mod line;
mod follow;

use std::time::Duration;

use tokio::time::Instant;

use super::args::{AttachArguments, Global};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::output::{self, Closed};
use super::remote::{NoServer, Remote};
use follow::{Attachment, Ending};
use input::Input;

/// How this client is called in logs and in `acpbox status`.
const NAME: &str = "acpbox attach";

/// How long a lost server is looked for, and the pauses between two tries.
const RECONNECT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What `/help` says.
const HELP: &str =
    "  Each line is a prompt; what the agent makes of lines such as /compact is its own matter.
  //help sends /help to the agent.
  When the agent asks for a permission, the number or letter of a choice answers.
  When it asks for a form, each field is asked for, and all is sent after you looked it
  over; /decline refuses, /cancel answers nothing, /back asks the last field again.
  Ctrl-C cancels the turn, and what it asks. A second one, or Ctrl-D, leaves; the session goes on.
";

pub(super) fn run(global: &Global, arguments: &AttachArguments) -> anyhow::Result<Code> {
    let context = Context::new(global, None, None)?;
    let remote = Remote::find(&context.config, &arguments.server)?;
    let line_bytes = context.config.limits.line_bytes;
    let runtime = context::runtime()?;
    let outcome = runtime.block_on(async {
        let mut input = Input::new(line_bytes, !arguments.observe)?;
        let left = input.left();
        tokio::select! {
            outcome = attach(&remote, arguments, &mut input) => outcome,
            () = left.cancelled() => Ok(exit::DONE),
        }
    });
    // A read of a terminal cannot be called off.
    runtime.shutdown_background();
    match outcome {
        Err(error) if error.is::<Closed>() => Ok(exit::DONE),
        outcome => outcome,
    }
}

async fn attach(
    remote: &Remote,
    arguments: &AttachArguments,
    input: &mut Input,
) -> anyhow::Result<Code> {
    let mut client = remote.connect(NAME).await?;
    let session = find::session(&mut client, &arguments.session).await?;
    let mut attachment = Attachment::new(session, arguments);
    loop {
        let ending = match attachment.follow(client, input).await {
            Ok(ending) => ending,
            Err(error) if error.is::<super::client::Ended>() => Ending::Lost,
            Err(error) => {
                attachment.view.settle().await?;
                return Err(error);
            }
        };
        attachment.view.settle().await?;
        match ending {
            Ending::Left(code) => return Ok(code),
            Ending::Lost => {
                output::say(&format!(
                    "the connection is lost; looking for the server for {} s",
                    RECONNECT.as_secs()
                ));
                client = reconnect(remote).await?;
                output::say("connected again");
            }
        }
    }
}

/// Tries again and again, for a while.
async fn reconnect(remote: &Remote) -> anyhow::Result<super::client::Client> {
    let until = Instant::now() + RECONNECT;
    let mut pause = FIRST_PAUSE;
    loop {
        match remote.connect(NAME).await {
            Ok(client) => return Ok(client),
            // One that is just ending may still let somebody in, and then close.
            Err(error) if !(error.is::<NoServer>() || error.is::<super::client::Ended>()) => {
                return Err(error);
            }
            Err(error) if Instant::now() + pause > until => return Err(error),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
