//! `acpbox permissions test`: what the policy makes of a request, and why.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::acp::methods;
use crate::cli::args::PermissionsTestArguments;
use crate::cli::context::Context;
use crate::cli::exit::{self, Code, Usage};
use crate::cli::find;
use crate::cli::output::Output;
use crate::cli::table::local_time;
use crate::config::{Decision, ToolKind};
use crate::rpc::splice;
use crate::server::sessions::timestamp;
use crate::session::policy::{
    self, Authority, Compared, Fit, Offered, Request, Subject, ToolCalls, Verdict, Why,
};
use crate::session::roots::Roots;
use crate::store::{Direction, EventRow, Store, StoreError};
use crate::transcript::{Follower, printable_line};

pub(super) async fn run(
    context: &Context,
    store: &Store,
    arguments: &PermissionsTestArguments,
) -> anyhow::Result<Code> {
    let mut output = Output::new();
    let mut answers = match &arguments.session {
        Some(id) => of_session(context, store, id, arguments.last).await?,
        None => vec![of_arguments(context, store, arguments)?],
    };
    let is_one = arguments.session.is_none() || arguments.last;
    let code = match (is_one, answers.last().map(|answer| answer.decision)) {
        (true, Some("deny")) => exit::REFUSED,
        (true, Some("ask")) => exit::ASKED,
        _ => exit::DONE,
    };
    match arguments.json {
        true if is_one => output.json(&answers.pop())?,
        true => output.json(&answers)?,
        false => {
            for answer in &answers {
                answer.print(&mut output)?;
            }
        }
    }
    output.flush()?;
    Ok(code)
}

/// Who asks, and where.
struct Asker<'a> {
    context: &'a Context,
    store: &'a Store,
    agent: String,
    roots: Roots,
}

/// What the policy says to one request, as programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// Of the request's event, in a stored session.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip)]
    shown_time: Option<String>,
    agent: String,
    cwd: PathBuf,
    workspace: PathBuf,
    /// The tool call as it was understood; absent is what was not said, `null` what
    /// cannot be compared.
    tool_call: Value,
    /// `allow`, `deny` or `ask`.
    decision: &'static str,
    /// The rule of this number decided, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
    /// The remembered answer of this number did.
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<i64>,
    why: String,
    /// What is answered; absent if that is that the question was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    option_id: Option<String>,
    /// The rules that were looked at, in order.
    rules: Vec<Looked>,
}

#[derive(Debug, Serialize)]
struct Looked {
    rule: usize,
    /// `yes`, `no` or `unknown`.
    fits: &'static str,
    /// The conditions that decided that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<&'static str>,
}

fn of_arguments(
    context: &Context,
    store: &Store,
    arguments: &PermissionsTestArguments,
) -> anyhow::Result<Answer> {
    let config = &context.config;
    let agent = arguments.agent.as_ref().unwrap_or(&config.default_agent);
    context.catalog.get(agent)?;
    let cwd = std::path::absolute(arguments.cwd.as_deref().unwrap_or(Path::new(".")))?;
    let plan = config.vm_for(arguments.vm.as_deref(), &cwd, &[])?;
    let asker = Asker {
        context,
        store,
        agent: agent.clone(),
        roots: Roots::of(&plan, &cwd, &[]),
    };
    let mut call = json!({"toolCallId": "test"});
    let kind = arguments.kind;
    let kind = kind.or(arguments.command.as_ref().map(|_| ToolKind::Execute));
    if let Some(kind) = kind {
        call["kind"] = kind.name().into();
    }
    if let Some(title) = &arguments.title {
        call["title"] = title.as_str().into();
    }
    if let Some(command) = &arguments.command {
        call["rawInput"] = json!({"command": command});
    }
    if !arguments.path.is_empty() {
        let locations = arguments.path.iter().map(|path| json!({"path": path}));
        call["locations"] = locations.collect();
    }
    // What most agents offer.
    let kinds = ["allow_once", "allow_always", "reject_once", "reject_always"];
    let options = kinds.map(|kind| json!({"optionId": kind, "name": kind, "kind": kind}));
    let params = json!({"toolCall": call, "options": options}).to_string();
    asker.answer(&params, &ToolCalls::default())
}

async fn of_session(
    context: &Context,
    store: &Store,
    id: &str,
    is_last: bool,
) -> anyhow::Result<Vec<Answer>> {
    let row = find::session(store, id).await?;
    let stored: Value = serde_json::from_str(&row.options).unwrap_or_default();
    let additional: Vec<PathBuf> =
        serde_json::from_value(stored["additionalDirectories"].clone()).unwrap_or_default();
    let plan = (context.config)
        .vm_for(Some(&row.vm), &row.cwd, &additional)
        .with_context(|| format!("the session {} cannot be where it was", row.id))?;
    let asker = Asker {
        context,
        store,
        agent: row.agent.clone(),
        roots: Roots::of(&plan, &row.cwd, &additional),
    };
    let mut answers = Vec::new();
    let mut calls = ToolCalls::default();
    let mut follower = Follower::new(&row.id, 0);
    loop {
        let events = follower.next(store).await?;
        if events.is_empty() {
            break;
        }
        for event in events.iter().filter(|it| it.direction == Direction::Agent) {
            let params = splice::member(&event.raw, "params");
            match event.kind.as_ref() {
                kind @ ("tool_call" | "tool_call_update") => {
                    let update = params.and_then(|params| splice::member(params, "update"));
                    let members = update.and_then(splice::members).unwrap_or_default();
                    calls.note(&members, kind == "tool_call");
                }
                methods::REQUEST_PERMISSION => {
                    let answer = asker.answer(params.unwrap_or("null"), &calls)?;
                    if is_last {
                        answers.clear();
                    }
                    answers.push(answer.of(event));
                }
                _ => {}
            }
        }
    }
    if answers.is_empty() {
        let what = "its agent never asked for a permission";
        return Err(Usage(format!(
            "nothing is to be tested in session {}: {what}",
            row.id
        ))
        .into());
    }
    Ok(answers)
}

impl Asker<'_> {
    /// `params` are those of a request, raw.
    fn answer(&self, params: &str, calls: &ToolCalls) -> anyhow::Result<Answer> {
        let settings = &self.context.config.permissions;
        let roots = &self.roots;
        let cwd = roots.cwd().to_owned();
        let request = Request::read(Some(params), calls, &self.agent, cwd.clone(), |path| {
            roots.place(path)
        });
        let offered = Offered::read(splice::member(params, "options"));
        let mut broken: Option<StoreError> = None;
        let workspace = roots.workspace();
        let remembered = |subject: &Subject| {
            let found = subject.remembered(self.store, &self.agent, workspace);
            found.unwrap_or_else(|error| {
                broken = Some(error);
                None
            })
        };
        let verdict = policy::decide(settings, &request, &offered, remembered);
        if let Some(error) = broken {
            return Err(error.into());
        }
        let (by, decision, why, option_id) = match verdict {
            Verdict::Decided {
                decision,
                by,
                option,
            } => (by, decision, told(by, decision).to_owned(), option),
            Verdict::Ask { by, why, .. } => (by, Decision::Ask, because(by, why), None),
        };
        Ok(Answer {
            seq: None,
            time: None,
            shown_time: None,
            agent: self.agent.clone(),
            cwd,
            workspace: workspace.to_owned(),
            tool_call: understood(&request),
            decision: decision.name(),
            rule: match by {
                Authority::Rule(number) => Some(number),
                _ => None,
            },
            remembered: match by {
                Authority::Remembered(id) => Some(id),
                _ => None,
            },
            why,
            option_id,
            rules: policy::compare(settings, &request)
                .into_iter()
                .map(Looked::of)
                .collect(),
        })
    }
}

impl Answer {
    fn of(self, event: &EventRow) -> Answer {
        Answer {
            seq: Some(event.seq),
            time: Some(timestamp(event.time)),
            shown_time: Some(local_time(event.time)),
            ..self
        }
    }

    fn print(&self, output: &mut Output) -> anyhow::Result<()> {
        if let (Some(seq), Some(time)) = (self.seq, &self.shown_time) {
            output.line(&format!("event {seq} · {time}"))?;
        }
        let mut asked = format!("{} in {}", self.agent, self.cwd.display());
        for (key, value) in self.tool_call.as_object().into_iter().flatten() {
            let value = match value {
                Value::Null => "(not to be compared)".to_owned(),
                Value::String(text) => format!("`{text}`"),
                other => other.to_string(),
            };
            asked.push_str(&format!(" · {key} {value}"));
        }
        output.line(&printable_line(&asked))?;
        for looked in &self.rules {
            let conditions = looked.conditions.join(", ");
            let how = match looked.fits {
                "yes" => "fits".to_owned(),
                "no" => format!("does not fit: {conditions}"),
                _ => format!("may fit or not, the request does not tell: {conditions}"),
            };
            output.line(&format!("  rule {}: {how}", looked.rule))?;
        }
        let answer = match &self.option_id {
            Some(id) => format!(" · answered with option `{id}`"),
            None if self.decision == "deny" => " · answered as cancelled".to_owned(),
            None => String::new(),
        };
        let decided = format!("{}: {}{answer}", self.decision, self.why);
        output.line(&printable_line(&decided))
    }
}

impl Looked {
    fn of(compared: Compared) -> Looked {
        Looked {
            rule: compared.number,
            fits: match compared.fit {
                Fit::Yes => "yes",
                Fit::No => "no",
                Fit::Unknown => "unknown",
            },
            conditions: compared.conditions,
        }
    }
}

fn told(by: Authority, decision: Decision) -> &'static str {
    match (by, decision) {
        (Authority::Rule(_), _) => "the last rule above says so",
        (Authority::Remembered(_), _) => "an answer for always is remembered",
        (Authority::Default, _) => "no rule fits, and permissions.default says so",
    }
}

fn because(by: Authority, why: Why) -> String {
    let would = match by {
        Authority::Rule(_) => "the last rule above",
        Authority::Remembered(_) => "a remembered answer",
        Authority::Default => "permissions.default",
    };
    match (why, by) {
        (Why::Told, by) => told(by, Decision::Ask).to_owned(),
        (Why::Unsure, _) => "the last rule above denies or asks, and may fit".to_owned(),
        (Why::Deceptive, _) => format!(
            "{would} would allow it, but the request has characters that deceive, names that \
             stand twice, or parts that cannot be read"
        ),
        (Why::Options, _) => {
            format!("{would} would allow it, but no option is clearly the one that allows once")
        }
    }
}

/// What was understood of a request; `null` is what cannot be compared.
fn understood(request: &Request) -> Value {
    use policy::Said;
    fn part<T>(said: &Said<T>, value: impl Fn(&T) -> Value) -> Option<Value> {
        match said {
            Said::Nothing => None,
            Said::Unclear => Some(Value::Null),
            Said::This(known) => Some(value(known)),
        }
    }
    let call = &request.call;
    let text = |text: &String| Value::from(text.as_str());
    let parts = [
        ("kind", part(&call.kind, |kind| kind.name().into())),
        ("title", part(&call.title, text)),
        ("command", part(&call.command, text)),
        (
            "paths",
            part(&request.places, |places| {
                places.iter().map(|place| json!(place.absolute)).collect()
            }),
        ),
    ];
    let said = parts.into_iter();
    said.filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
