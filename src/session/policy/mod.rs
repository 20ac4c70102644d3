//! What is answered when an agent asks whether it may: rules and a request in, an
//! answer or a question out. Nothing here has an effect.
//!
//! A rule that allows must be seen to fit. One that denies or asks stops the
//! search also where it cannot be told whether it fits: then a person is asked.

pub mod options;
pub mod request;
#[cfg(test)]
mod tests;

pub use options::{Choice, ChoiceKind, Offered, answer};
pub use request::{Place, Request, Said, Subject, ToolCalls};

use crate::config::{Decision, Permissions, Rule, TextPattern};

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The rule of this number, from 1.
    Rule(usize),
    /// A remembered answer, by its id.
    Remembered(i64),
    Default,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Decided {
        decision: Decision,
        by: Authority,
        /// The chosen option's id; `None` answers as cancelled.
        option: Option<String>,
    },
    Ask {
        by: Authority,
        why: Why,
        /// What an answer for always is to be remembered for, if it is.
        subject: Option<Subject>,
    },
}

/// Why a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is to be so.
    Told,
    /// It cannot be told whether a rule fits that denies or asks.
    Unsure,
    /// It would be allowed, but something of the request is not what it looks.
    Deceptive,
    /// It would be allowed, but no option is clearly the one to say so.
    Options,
}

/// How a rule compares with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// From 1.
    pub number: usize,
    pub fit: Fit,
    /// The conditions, by their names in the configuration, that decide that: none
    /// where all fit.
    pub conditions: Vec<&'static str>,
}

/// Compares a request with the rules, up to the one that decides it.
pub fn compare(settings: &Permissions, request: &Request) -> Vec<Compared> {
    let mut all = Vec::new();
    for (number, rule) in (1..).zip(&settings.rules) {
        let conditions = conditions(rule, request);
        let fit = least(&conditions);
        let deciding = conditions.iter().filter(|(_, it)| *it == fit);
        all.push(Compared {
            number,
            fit,
            conditions: match fit {
                Fit::Yes => Vec::new(),
                _ => deciding.map(|(name, _)| *name).collect(),
            },
        });
        if outcome(fit, rule).is_some() {
            break;
        }
    }
    all
}

/// Decides a request. `remembered` finds an earlier answer for the same thing.
pub fn decide(
    settings: &Permissions,
    request: &Request,
    offered: &Offered,
    remembered: impl FnOnce(&Subject) -> Option<(i64, Decision)>,
) -> Verdict {
    let mut subject = None;
    let (by, (decision, why), always) = match first_rule(settings, request) {
        Some((number, outcome, always)) => (Authority::Rule(number), outcome, always),
        None => {
            subject = request.subject().filter(|_| settings.remember);
            match subject.as_ref().and_then(remembered) {
                Some((id, decision)) => (Authority::Remembered(id), (decision, Why::Told), false),
                None => (Authority::Default, (settings.default, Why::Told), false),
            }
        }
    };
    match decision {
        Decision::Deny => Verdict::Decided {
            decision,
            by,
            option: offered.refusing().map(|choice| choice.id.clone()),
        },
        Decision::Allow if request.may_be_allowed() => match offered.allowing(always) {
            Some(choice) => Verdict::Decided {
                decision,
                by,
                option: Some(choice.id.clone()),
            },
            None => {
                let why = Why::Options;
                Verdict::Ask { by, why, subject }
            }
        },
        Decision::Allow => {
            let why = Why::Deceptive;
            Verdict::Ask { by, why, subject }
        }
        Decision::Ask => Verdict::Ask { by, why, subject },
    }
}

/// The first rule that fits: its number, what it decides, and its `always`.
fn first_rule(settings: &Permissions, request: &Request) -> Option<(usize, (Decision, Why), bool)> {
    (1..).zip(&settings.rules).find_map(|(number, rule)| {
        let outcome = outcome(least(&conditions(rule, request)), rule)?;
        Some((number, outcome, rule.always))
    })
}

/// What a rule decides that fits so.
fn outcome(fit: Fit, rule: &Rule) -> Option<(Decision, Why)> {
    match (fit, rule.decide) {
        (Fit::Yes, decision) => Some((decision, Why::Told)),
        (Fit::Unknown, Decision::Deny | Decision::Ask) => Some((Decision::Ask, Why::Unsure)),
        (Fit::Unknown, Decision::Allow) | (Fit::No, _) => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    No,
    Unknown,
    Yes,
}

/// A rule fits as the least of its conditions does.
fn least(conditions: &[(&'static str, Fit)]) -> Fit {
    let fits = conditions.iter().map(|(_, fit)| *fit);
    fits.min().unwrap_or(Fit::Yes)
}

/// What each of the rule's conditions says, by its name in the configuration.
fn conditions(rule: &Rule, request: &Request) -> Vec<(&'static str, Fit)> {
    let call = &request.call;
    let is_allowing = rule.decide == Decision::Allow;
    let agent = rule
        .agent
        .as_ref()
        .map(|agent| sure(*agent == request.agent));
    let workspace = (rule.workspace.as_ref()).map(|folder| sure(request.cwd.starts_with(folder)));
    let kind = rule.kind.as_ref().map(|kinds| match &call.kind {
        Said::This(kind) => sure(kinds.contains(kind)),
        Said::Nothing | Said::Unclear => Fit::Unknown,
    });
    // What a shell obeys may only stand where the rule's author wrote it.
    let text = |pattern: &TextPattern, text: &str| {
        let is_guarded = is_allowing && call.may_be_command();
        let may_stand = |part: &str| !is_guarded || !part.contains(is_operator);
        sure(pattern.fits(text, may_stand))
    };
    let title = rule.title.as_ref().map(|pattern| match &call.title {
        Said::This(title) => text(pattern, unquoted(title)),
        Said::Nothing | Said::Unclear => Fit::Unknown,
    });
    let command = rule.command.as_ref().map(|pattern| match &call.command {
        _ if !call.may_be_command() => Fit::No,
        Said::This(command) => text(pattern, command),
        Said::Nothing | Said::Unclear => Fit::Unknown,
    });
    let path = rule.path.as_ref().map(|pattern| match &request.places {
        // The files that a command names are not all that it may touch.
        _ if is_allowing && rule.command.is_none() && !call.may_touch_files() => Fit::No,
        Said::This(places) => {
            let mut fitting = (places.iter()).map(|it| pattern.fits(&it.absolute, &it.below));
            // Naming one more file gets nobody around a rule that denies.
            sure(if is_allowing {
                fitting.all(|fits| fits)
            } else {
                fitting.any(|fits| fits)
            })
        }
        Said::Nothing if !call.may_touch_files() => Fit::No,
        Said::Nothing | Said::Unclear => Fit::Unknown,
    });
    let conditions = [
        ("agent", agent),
        ("workspace", workspace),
        ("kind", kind),
        ("title", title),
        ("command", command),
        ("path", path),
    ];
    let set = conditions.into_iter();
    set.filter_map(|(name, fit)| Some((name, fit?))).collect()
}

fn sure(fits: bool) -> Fit {
    if fits { Fit::Yes } else { Fit::No }
}

/// Ends a command, begins another, or puts something in its place.
fn is_operator(character: char) -> bool {
    matches!(
        character,
        ';' | '&' | '|' | '<' | '>' | '(' | ')' | '{' | '}' | '$' | '`' | '!' | '\\'
    )
}

/// Some agents write a command as a title in backticks.
fn unquoted(title: &str) -> &str {
    let inner = title
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'));
    inner.filter(|inner| !inner.contains('`')).unwrap_or(title)
}
