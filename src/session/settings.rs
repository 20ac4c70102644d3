//! Mode, model and config options: what a session was set to, what its agent
//! says after it came back, and how the one becomes the other again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::host::Host;
use super::live::Live;
use super::offered::{Choice, Offered};
use super::preamble::restored;
use super::state::OwnError;
use crate::acp::Failure;
use crate::acp::extension::SessionSettings;
use crate::acp::failure::METHOD_NOT_FOUND;
use crate::acp::methods::{self, response_kind};
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};
use crate::store::{EventPage, EventRow};

/// Events about settings that are looked at, newest first.
const EVENTS_READ: usize = 2000;
const PAGE_EVENTS: usize = 200;
const PAGE_BYTES: usize = 4 << 20;

/// Options that are put back at most; nobody has as many.
const OPTIONS: usize = 256;

const UPDATES: [&str; 2] = ["current_mode_update", "config_option_update"];
const SETTERS: [&str; 3] = [
    methods::SET_MODE,
    methods::SET_MODEL,
    methods::SET_CONFIG_OPTION,
];
/// Answers that name everything.
const BEGINNINGS: [&str; 2] = [methods::SESSION_NEW, methods::SESSION_FORK];

impl Host {
    /// What a session was set to last, by its client or by its agent.
    pub(super) async fn settings(&self, session: &str) -> Result<SessionSettings, Failure> {
        Ok(self.known_settings(session).await?.settings)
    }

    /// The same, with the agent's list of options if it came apart.
    pub(super) async fn known_settings(&self, session: &str) -> Result<Known, Failure> {
        let answers = SETTERS.iter().chain(&BEGINNINGS);
        let kinds = (UPDATES
            .iter()
            .chain(&SETTERS)
            .map(|kind| (*kind).to_owned()))
        .chain(answers.map(|method| response_kind(method, false).into_owned()))
        .chain([methods::SESSION_RESTORED.to_owned()]);
        let kinds: Vec<String> = kinds.collect();
        let mut pages: Vec<Vec<EventRow>> = Vec::new();
        let mut before = i64::MAX;
        let mut count = 0;
        while count < EVENTS_READ {
            let page = EventPage {
                session: session.to_owned(),
                before: Some(before),
                limit: PAGE_EVENTS,
                max_bytes: PAGE_BYTES,
                kinds: kinds.clone(),
                ..EventPage::default()
            };
            let rows = self.store.events(page).await?;
            let Some(oldest) = rows.first() else { break };
            before = oldest.seq;
            count += rows.len();
            let is_enough = rows.iter().any(is_complete);
            pages.push(rows);
            if is_enough {
                break;
            }
        }
        let mut history = History::default();
        for row in pages.iter().rev().flatten() {
            history.feed(row);
        }
        Ok(Known {
            settings: history.settings,
            listed: history.listed,
        })
    }
}

/// Whether an event says all there is, so that nothing before it counts.
fn is_complete(row: &EventRow) -> bool {
    let is_beginning = |method: &&str| row.kind == response_kind(method, false);
    BEGINNINGS.iter().any(is_beginning)
        || (row.kind == methods::SESSION_RESTORED
            && restored(row).is_some_and(|restored| !restored.settings.is_empty()))
}

/// What a session was set to.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) settings: SessionSettings,
    /// The newest full list of options since the session began or came back, raw.
    pub(super) listed: Option<Box<str>>,
}

/// Settings as the events change them.
#[derive(Default)]
struct History {
    settings: SessionSettings,
    listed: Option<Box<str>>,
    /// The option that stands for the mode, and the one for the model.
    mode_option: Option<String>,
    model_option: Option<String>,
    /// Requests of the client's without an answer, by their raw id.
    asked: BTreeMap<String, Value>,
}

impl History {
    fn feed(&mut self, row: &EventRow) {
        let part = |name: &str| splice::member(&row.raw, name);
        let value = |raw: Option<&str>| -> Value {
            raw.and_then(|raw| serde_json::from_str(raw).ok())
                .unwrap_or_default()
        };
        let kind = row.kind.as_ref();
        if kind == methods::SESSION_RESTORED {
            self.listed = None;
            if let Some(restored) = restored(row)
                && !restored.settings.is_empty()
            {
                self.settings = restored.settings;
            }
        } else if UPDATES.contains(&kind) {
            let update = part("params").and_then(|params| splice::member(params, "update"));
            let Some(update) = update else { return };
            if kind == UPDATES[0] {
                self.mode(value(splice::member(update, "currentModeId")));
            } else {
                self.listed(update);
            }
        } else if SETTERS.contains(&kind) {
            if let Some(id) = part("id")
                && self.asked.len() < EVENTS_READ
            {
                self.asked.insert(id.to_owned(), value(part("params")));
            }
        } else if BEGINNINGS
            .iter()
            .any(|it| *kind == *response_kind(it, false))
        {
            let offered = Offered::of(part("result").unwrap_or("{}"));
            self.settings = offered.settings();
            self.options(&offered);
            self.listed = None;
        } else {
            let asked = part("id").and_then(|id| self.asked.remove(id));
            let Some(asked) = asked else { return };
            let text = |member: &str| asked.get(member).cloned().unwrap_or_default();
            if kind == &*response_kind(methods::SET_MODE, false) {
                self.mode(text("modeId"));
            } else if kind == &*response_kind(methods::SET_MODEL, false) {
                self.model(text("modelId"));
            } else {
                self.option(text("configId"), text("value"));
            }
            self.listed(part("result").unwrap_or("{}"));
        }
    }

    /// Takes over what an update or answer lists.
    fn listed(&mut self, object: &str) {
        let offered = Offered::of(object);
        if offered.options.is_some() {
            self.listed = splice::member(object, "configOptions").map(Into::into);
        }
        self.options(&offered);
    }

    fn mode(&mut self, mode: Value) {
        if let Value::String(mode) = mode {
            if let Some(option) = &self.mode_option {
                let options = &mut self.settings.config_options;
                options.insert(option.clone(), mode.as_str().into());
            }
            self.settings.mode = Some(mode);
        }
    }

    fn model(&mut self, model: Value) {
        if let Value::String(model) = model {
            if let Some(option) = &self.model_option {
                let options = &mut self.settings.config_options;
                options.insert(option.clone(), model.as_str().into());
            }
            self.settings.model = Some(model);
        }
    }

    fn option(&mut self, id: Value, value: Value) {
        if let Value::String(id) = id
            && (value.is_string() || value.is_boolean())
        {
            self.follow(&id, &value);
            self.settings.config_options.insert(id, value);
        }
    }

    /// Takes over a full list of options; one that is absent says nothing.
    fn options(&mut self, offered: &Offered) {
        let Some(options) = &offered.options else {
            return;
        };
        let of_category = |category: &str| {
            let found = options.iter().find(|option| option.category == category);
            found.map(|option| option.id.clone())
        };
        self.mode_option = of_category("mode");
        self.model_option = of_category("model");
        self.settings.config_options = offered.settings().config_options;
        for (id, value) in self.settings.config_options.clone() {
            self.follow(&id, &value);
        }
    }

    /// An option that stands for the mode or the model changes that too.
    fn follow(&mut self, id: &str, value: &Value) {
        let Value::String(value) = value else { return };
        if self.mode_option.as_deref() == Some(id) && self.settings.mode.is_some() {
            self.settings.mode = Some(value.clone());
        }
        if self.model_option.as_deref() == Some(id) && self.settings.model.is_some() {
            self.settings.model = Some(value.clone());
        }
    }
}

/// What came of putting settings back.
#[derive(Debug, Default)]
pub(super) struct PutBack {
    /// Names of what was set.
    pub(super) done: Vec<String>,
    /// Why others were not.
    pub(super) reasons: Vec<String>,
    /// As they are now.
    pub(super) settings: SessionSettings,
    /// The agent's answer, as it would be now.
    pub(super) result: Box<str>,
}

impl Live {
    /// Sets what differs between `wanted` and the agent's answer to `session/new`,
    /// `load`, `resume` or `fork`. The model comes first and the thought level
    /// last, since what is offered there depends on the others.
    pub(super) async fn put_back(&self, wanted: &SessionSettings, result: Box<str>) -> PutBack {
        let own = self.state().row.agent_session.clone().unwrap_or_default();
        let mut work = Work {
            live: self,
            own,
            deadline: Instant::now() + self.bounds.session_timeout,
            offered: Offered::of(&result),
            kept: wanted.clone(),
            options: None,
            done: Vec::new(),
            reasons: Vec::new(),
        };
        let has_option = |work: &Work<'_>, category: &str| {
            let options = work.offered.options.iter().flatten();
            let mut such = options.filter(|option| option.category == category);
            such.any(|option| wanted.config_options.contains_key(&option.id))
        };
        if let Some(model) = &wanted.model
            && !has_option(&work, "model")
        {
            let params = json!({"modelId": model});
            let is_set = work
                .choose("model", methods::SET_MODEL, model, params, |offered| {
                    &mut offered.models
                })
                .await;
            if !work.note("model", is_set) {
                work.kept.model = None;
            }
        }
        work.put_options_back(&wanted.config_options).await;
        if let Some(mode) = &wanted.mode
            && !has_option(&work, "mode")
        {
            let params = json!({"modeId": mode});
            let is_set = work
                .choose("mode", methods::SET_MODE, mode, params, |offered| {
                    &mut offered.modes
                })
                .await;
            if !work.note("mode", is_set) {
                work.kept.mode = None;
            }
        }
        work.finish(result)
    }
}

struct Work<'a> {
    live: &'a Live,
    /// The agent's own id of the session.
    own: String,
    deadline: Instant,
    offered: Offered,
    /// What was wanted, less what could not be.
    kept: SessionSettings,
    /// The agent's newest full list of options, raw.
    options: Option<Box<str>>,
    done: Vec<String>,
    reasons: Vec<String>,
}

/// What came of one setting.
enum Step {
    Same,
    Set,
    Not(String),
    /// The agent does not know the method.
    Unknown(String),
}

impl Work<'_> {
    /// Whether it is as it was.
    fn note(&mut self, name: &str, step: Step) -> bool {
        match step {
            Step::Same => true,
            Step::Set => {
                self.done.push(name.to_owned());
                true
            }
            Step::Not(reason) | Step::Unknown(reason) => {
                self.reasons.push(reason);
                false
            }
        }
    }

    async fn choose(
        &mut self,
        what: &str,
        method: &'static str,
        wanted: &str,
        params: Value,
        choice: impl Fn(&mut Offered) -> &mut Option<Choice>,
    ) -> Step {
        if let Some(choice) = choice(&mut self.offered) {
            if choice.current == wanted {
                return Step::Same;
            }
            if !choice.available.iter().any(|it| it == wanted) {
                return Step::Not(format!("the {what} `{wanted}` is not offered any more"));
            }
        }
        match self.set(what, wanted, method, params).await {
            Ok(answer) => {
                if let Some(choice) = choice(&mut self.offered) {
                    wanted.clone_into(&mut choice.current);
                }
                self.take_options(&answer);
                Step::Set
            }
            Err(step) => step,
        }
    }

    async fn put_options_back(&mut self, wanted: &BTreeMap<String, Value>) {
        let mut left: Vec<&String> = wanted.keys().take(OPTIONS).collect();
        while !left.is_empty() {
            let rank = |id: &&&String| self.offered.rank(id);
            let Some(id) = left.iter().min_by_key(rank).copied() else {
                return;
            };
            left.retain(|it| *it != id);
            let step = self.put_option_back(id, &wanted[id]).await;
            let is_unknown = matches!(step, Step::Unknown(_));
            if !self.note(id, step) {
                self.kept.config_options.remove(id);
            }
            if is_unknown {
                self.kept.config_options.clear();
                return;
            }
        }
    }

    async fn put_option_back(&mut self, id: &str, wanted: &Value) -> Step {
        let shown = wanted
            .as_str()
            .map_or_else(|| wanted.to_string(), str::to_owned);
        if let Some(options) = &self.offered.options {
            let Some(option) = options.iter().find(|option| option.id == id) else {
                return Step::Not(format!("the option `{id}` is not offered any more"));
            };
            if option.current == *wanted {
                return Step::Same;
            }
            if !option.takes(wanted) {
                return Step::Not(format!(
                    "the option `{id}` does not offer `{shown}` any more"
                ));
            }
        }
        let mut params = json!({"configId": id, "value": wanted});
        if wanted.is_boolean() {
            params["type"] = "boolean".into();
        }
        match self
            .set(id, &shown, methods::SET_CONFIG_OPTION, params)
            .await
        {
            Ok(answer) => {
                for option in self.offered.options.iter_mut().flatten() {
                    if option.id == id {
                        option.current = wanted.clone();
                    }
                }
                self.take_options(&answer);
                Step::Set
            }
            Err(step) => step,
        }
    }

    async fn set(
        &self,
        what: &str,
        wanted: &str,
        method: &'static str,
        mut params: Value,
    ) -> Result<Box<str>, Step> {
        params["sessionId"] = self.own.as_str().into();
        let patience = self.deadline.saturating_duration_since(Instant::now());
        let failed = |why: &str| format!("`{what}` could not be put back to `{wanted}`: {why}");
        if patience == Duration::ZERO {
            return Err(Step::Not(failed("the agent took too long before")));
        }
        match self
            .live
            .request(method, &params.to_string(), patience)
            .await
        {
            Ok(answer) => Ok(answer),
            Err(OwnError::Failed(failure)) => Err(Step::Not(failed(&failure.message))),
            Err(OwnError::Agent(raw)) => {
                let reason = failed(&super::comeback::brief(&raw));
                let code = splice::member(&raw, "code").and_then(|code| code.parse().ok());
                Err(match code {
                    Some(METHOD_NOT_FOUND) => Step::Unknown(reason),
                    _ => Step::Not(reason),
                })
            }
        }
    }

    /// An answer may list all options anew.
    fn take_options(&mut self, answer: &str) {
        if let Some(raw) = splice::member(answer, "configOptions")
            && let Some(options) = Offered::of(answer).options
        {
            self.offered.options = Some(options);
            self.options = Some(raw.into());
        }
    }

    fn finish(mut self, result: Box<str>) -> PutBack {
        self.offered.let_modes_follow();
        let mut edits = Edits::of(&result);
        if let Some(options) = self.options {
            edits.set(&result, "configOptions", String::from(options));
        }
        let current = [
            ("modes", "currentModeId", &self.offered.modes),
            ("models", "currentModelId", &self.offered.models),
        ];
        for (part, member, choice) in current {
            let shown = splice::member(&result, part).and_then(|part| splice::member(part, member));
            if let (Some(shown), Some(choice)) = (shown, choice)
                && message::string(shown).is_none_or(|shown| shown != choice.current)
            {
                edits.replace(shown, Value::from(choice.current.as_str()).to_string());
            }
        }
        let edited = edits.apply().into();
        // Of what its answers do not tell, the agent is taken at its word.
        let mut settings = self.offered.settings();
        settings.mode = settings.mode.or(self.kept.mode);
        settings.model = settings.model.or(self.kept.model);
        if self.offered.options.is_none() {
            settings.config_options = self.kept.config_options;
        }
        PutBack {
            done: self.done,
            reasons: self.reasons,
            settings,
            result: edited,
        }
    }
}
