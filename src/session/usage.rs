//! What a session has used, added up from what its agent tells: the `usage` of
//! prompt results, and `usage_update`.
//!
//! The sums are kept with the session's row. They follow from its events, so
//! that what a killed process had no time to write is added later.

use serde::{Deserialize, Serialize};

use crate::acp::extension::{Cost, Restored, SessionUsage, Tier};
use crate::acp::methods;
use crate::rpc::{message, splice};
use crate::store::{EventPage, SessionRow, Store, StoreError};

/// The kinds of events that count.
const KINDS: [&str; 3] = [PROMPT_RESULT, UPDATE, methods::SESSION_RESTORED];
const PROMPT_RESULT: &str = "session/prompt:result";
const UPDATE: &str = "usage_update";

/// Currencies kept of one session; an agent could name one after the other.
const CURRENCIES: usize = 8;
const CURRENCY_BYTES: usize = 32;

const PAGE_EVENTS: usize = 1000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The sums as they are stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Tally {
    /// The last event that is counted.
    through: i64,
    turns: u64,
    total: u64,
    input: u64,
    output: u64,
    thought: u64,
    cached_read: u64,
    cached_write: u64,
    /// Tokens in the context now, and how many it holds.
    context: Option<(u64, u64)>,
    costs: Vec<Count>,
}

/// Agents tell what a session has cost them until now, each in its own way after
/// a restart: some go on, some begin at zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Count {
    currency: String,
    /// What was told before the agent last began at zero.
    earlier: f64,
    /// What it told last.
    now: f64,
}

/// Counts an event, if it tells of use. `stored` is the row's `usage`.
pub fn count(stored: &mut String, seq: i64, kind: &str, raw: &str) {
    if !KINDS.contains(&kind) {
        return;
    }
    let mut tally = Tally::parse(stored);
    tally.through = seq;
    tally.count(kind, raw);
    tally.write(stored);
}

/// What is told to clients. `None` where the agent told nothing.
pub fn shown(stored: &str) -> Option<SessionUsage> {
    let tally = Tally::parse(stored);
    let costs = tally.costs.iter().map(|count| Cost {
        amount: sum(count.earlier, count.now),
        currency: count.currency.clone(),
    });
    let shown = SessionUsage {
        turns: tally.turns,
        total_tokens: tally.total,
        input_tokens: tally.input,
        output_tokens: tally.output,
        thought_tokens: tally.thought,
        cached_read_tokens: tally.cached_read,
        cached_write_tokens: tally.cached_write,
        context_used: tally.context.map(|(used, _)| used),
        context_size: tally.context.map(|(_, size)| size),
        costs: costs.collect(),
    };
    let is_told = shown.turns > 0 || tally.context.is_some() || !shown.costs.is_empty();
    is_told.then_some(shown)
}

/// What nobody used yet, counted from behind an event.
pub fn nothing_up_to(seq: i64) -> String {
    let mut stored = String::from("{}");
    let tally = Tally {
        through: seq,
        ..Tally::default()
    };
    tally.write(&mut stored);
    stored
}

/// The row with the events counted that it was written before.
pub async fn caught_up(store: &Store, mut row: SessionRow) -> Result<SessionRow, StoreError> {
    let last = store.last_seq(&row.id).await?;
    let mut after = Tally::parse(&row.usage).through;
    loop {
        let page = EventPage {
            session: row.id.clone(),
            after: Some(after),
            before: None,
            limit: PAGE_EVENTS,
            max_bytes: PAGE_BYTES,
            kinds: KINDS.map(str::to_owned).into(),
        };
        let events = store.events(page).await?;
        if events.is_empty() {
            // What tells of no use need not be looked through again.
            let mut tally = Tally::parse(&row.usage);
            tally.through = tally.through.max(last);
            tally.write(&mut row.usage);
            return Ok(row);
        }
        for event in events {
            count(&mut row.usage, event.seq, &event.kind, &event.raw);
            after = event.seq;
        }
    }
}

impl Tally {
    /// What cannot be read counts as nothing; the events are there.
    fn parse(stored: &str) -> Tally {
        serde_json::from_str(stored).unwrap_or_default()
    }

    fn write(&self, stored: &mut String) {
        if let Ok(text) = serde_json::to_string(self) {
            *stored = text;
        }
    }

    fn count(&mut self, kind: &str, raw: &str) {
        let members = |object: &str, key: &str| {
            let part = splice::member(object, key)?.to_owned();
            splice::members(&part).is_some().then_some(part)
        };
        match kind {
            PROMPT_RESULT => {
                if let Some(usage) = members(raw, "result").and_then(|it| members(&it, "usage")) {
                    self.turn(&usage);
                }
            }
            UPDATE => {
                if let Some(update) = members(raw, "params").and_then(|it| members(&it, "update")) {
                    self.update(&update);
                }
            }
            _ => {
                let restored = splice::member(raw, "params");
                let restored =
                    restored.and_then(|params| serde_json::from_str::<Restored>(params).ok());
                if restored.is_some_and(|restored| restored.tier == Tier::New) {
                    self.begin_anew();
                }
            }
        }
    }

    fn turn(&mut self, usage: &str) {
        let tokens = |key: &str| splice::member(usage, key).and_then(tokens);
        let parts = [
            (&mut self.input, tokens("inputTokens")),
            (&mut self.output, tokens("outputTokens")),
            (&mut self.thought, tokens("thoughtTokens")),
            (&mut self.cached_read, tokens("cachedReadTokens")),
            (&mut self.cached_write, tokens("cachedWriteTokens")),
        ];
        let mut sum: u64 = 0;
        let mut is_told = false;
        for (total, part) in parts {
            is_told |= part.is_some();
            *total = total.saturating_add(part.unwrap_or(0));
            sum = sum.saturating_add(part.unwrap_or(0));
        }
        let total = tokens("totalTokens");
        if is_told || total.is_some() {
            self.turns += 1;
            self.total = self.total.saturating_add(total.unwrap_or(sum));
        }
    }

    fn update(&mut self, update: &str) {
        let of = |key: &str| splice::member(update, key);
        if let (Some(used), Some(size)) = (of("used").and_then(tokens), of("size").and_then(tokens))
        {
            self.context = Some((used, size));
        }
        let Some(cost) = of("cost") else { return };
        let amount = splice::member(cost, "amount").and_then(|raw| raw.parse::<f64>().ok());
        let currency = splice::member(cost, "currency").and_then(message::string);
        if let (Some(amount), Some(currency)) = (amount, currency)
            && amount.is_finite()
            && amount >= 0.0
            && currency.len() <= CURRENCY_BYTES
        {
            self.cost(amount, &currency);
        }
    }

    fn cost(&mut self, amount: f64, currency: &str) {
        let costs = &mut self.costs;
        match costs.iter().position(|count| count.currency == currency) {
            Some(at) => {
                let count = &mut costs[at];
                // A sum that shrinks began anew.
                if amount < count.now {
                    count.earlier = sum(count.earlier, count.now);
                }
                count.now = amount;
            }
            None if costs.len() < CURRENCIES => costs.push(Count {
                currency: currency.to_owned(),
                earlier: 0.0,
                now: amount,
            }),
            None => {}
        }
    }

    /// The agent has a new session, and counts from zero.
    fn begin_anew(&mut self) {
        for count in &mut self.costs {
            count.earlier = sum(count.earlier, std::mem::take(&mut count.now));
        }
        self.context = None;
    }
}

/// JSON has no infinity: what is written could not be read again.
fn sum(one: f64, other: f64) -> f64 {
    (one + other).min(f64::MAX)
}

/// A number of tokens, however it is spelled.
fn tokens(raw: &str) -> Option<u64> {
    let plain = raw.parse().ok();
    plain.or_else(|| {
        let number: f64 = raw.parse().ok()?;
        // `as` holds it to the range.
        (number >= 0.0).then_some(number as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: &[(&str, &str)]) -> Option<SessionUsage> {
        let mut stored = "{}".to_owned();
        for (seq, (kind, raw)) in (1..).zip(events) {
            count(&mut stored, seq, kind, raw);
        }
        shown(&stored)
    }

    fn costs(amounts: &[&str]) -> Vec<(String, f64)> {
        let events: Vec<(&str, String)> = (amounts.iter())
            .map(|amount| match *amount {
                "new" => (
                    methods::SESSION_RESTORED,
                    r#"{"params":{"tier":"new"}}"#.to_owned(),
                ),
                "resume" => (
                    methods::SESSION_RESTORED,
                    r#"{"params":{"tier":"resume"}}"#.to_owned(),
                ),
                _ => {
                    let (amount, currency) = amount.split_once(' ').unwrap();
                    let cost = format!(r#"{{"amount":{amount},"currency":"{currency}"}}"#);
                    let update = format!(r#"{{"used":1,"size":2,"cost":{cost}}}"#);
                    (UPDATE, format!(r#"{{"params":{{"update":{update}}}}}"#))
                }
            })
            .collect();
        let events: Vec<(&str, &str)> = events.iter().map(|(kind, raw)| (*kind, &**raw)).collect();
        let costs = after(&events).unwrap().costs.into_iter();
        costs.map(|cost| (cost.currency, cost.amount)).collect()
    }

    #[test]
    fn a_cost_that_is_told_as_a_sum_is_counted_once() {
        let usd = |amount: f64| vec![("USD".to_owned(), amount)];
        assert_eq!(costs(&["0.25 USD", "0.5 USD"]), usd(0.5));
        assert_eq!(
            costs(&["0.5 USD", "resume", "0.75 USD"]),
            usd(0.75),
            "it goes on"
        );
        assert_eq!(
            costs(&["0.5 USD", "resume", "0.25 USD", "0.5 USD"]),
            usd(1.0),
            "it began at zero"
        );
        assert_eq!(
            costs(&["0.5 USD", "new", "0.75 USD"]),
            usd(1.25),
            "a new session of the agent's cannot go on"
        );
        assert_eq!(
            costs(&["0.5 USD", "3 credits", "4 credits"]),
            [("USD".to_owned(), 0.5), ("credits".to_owned(), 4.0)]
        );
    }

    #[test]
    fn nonsense_counts_as_nothing() {
        for raw in [
            "{}",
            r#"{"result":null}"#,
            r#"{"result":{"stopReason":"end_turn"}}"#,
            r#"{"result":{"usage":7}}"#,
            r#"{"result":{"usage":{"totalTokens":"many","inputTokens":-1}}}"#,
            "not JSON",
        ] {
            assert_eq!(after(&[(PROMPT_RESULT, raw)]), None, "{raw}");
        }
        for raw in [
            r#"{"params":{"update":{"used":1}}}"#,
            r#"{"params":{"update":{"cost":{"amount":-1,"currency":"USD"}}}}"#,
            r#"{"params":{"update":{"cost":{"amount":1e999,"currency":"USD"}}}}"#,
            r#"{"params":{"update":{"cost":{"amount":"1","currency":"USD"}}}}"#,
        ] {
            assert_eq!(after(&[(UPDATE, raw)]), None, "{raw}");
        }
        let huge = |amount: &str| format!("{amount} USD");
        let told = ["1.7e308", "0", "1.7e308", "0", "1.7e308"].map(huge);
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        assert_eq!(
            costs(&told),
            [("USD".to_owned(), f64::MAX)],
            "JSON has no infinity"
        );
        let huge =
            r#"{"result":{"usage":{"inputTokens":18446744073709551615,"outputTokens":5e30}}}"#;
        let usage = after(&[(PROMPT_RESULT, huge), (PROMPT_RESULT, huge)]).unwrap();
        assert_eq!((usage.turns, usage.total_tokens), (2, u64::MAX));
        let mut stored = "{}".to_owned();
        for number in 0..100 {
            let cost = format!(r#"{{"amount":1,"currency":"C{number}"}}"#);
            let raw = format!(r#"{{"params":{{"update":{{"cost":{cost}}}}}}}"#);
            count(&mut stored, number, UPDATE, &raw);
        }
        assert_eq!(shown(&stored).unwrap().costs.len(), CURRENCIES);
    }
}
