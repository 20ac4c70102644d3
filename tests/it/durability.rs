//! What a client has seen is in the database, however acpbox ends.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::json;
use serde_json::value::RawValue;

use crate::support::bare::Bare;
use crate::support::raw::{Raw, expect_stored, seq, stored};
use crate::support::site::Site;

mod clock;
mod damage;
mod ending;
pub(crate) mod full;
mod lost;
mod migration;
mod power;
mod sync;
mod two;

const ROUNDS: u64 = 20;

/// The guest's processes are gone by then.
const AT_MOST: Duration = Duration::from_secs(2);

#[test]
fn every_event_that_a_client_received_survives_kill_9() {
    let mut random = Random(seed());
    let site = Site::new();
    let workspace = site.repository("project");
    let mut total = 0;
    for round in 0..ROUNDS {
        let (text, span) = match round % 4 {
            3 => ("[[slow:600]]", 700),
            _ => ("[[flood:100000]]", 300),
        };
        let mut raw = Raw::start(&site, &[]);
        let session = raw.open(&workspace);
        raw.prompt(&session, text);
        raw.wait_for(|line| seq(line).is_some());
        std::thread::sleep(Duration::from_micros(random.below(span * 1000)));
        let watch = site.watch();
        raw.signal(Signal::KILL);
        raw.wait(AT_MOST).expect("it was killed");
        watch.expect_none(AT_MOST);
        let lines = raw.lines();

        let rows = stored(&site.database(), &session);
        let count = expect_stored(&lines, &rows);
        assert!(count > 0, "round {round}: nothing came");
        total += count;
        let last = rows.last().unwrap().seq;
        println!("round {round}: {count} of {last} events were seen");

        let mut again = site.connect(&[]);
        let read = read_back(&mut again, &session, last);
        for row in &rows {
            assert_eq!(read.get(&row.seq).map(|raw| raw.get()), Some(&*row.raw));
        }
        // Loaded from near its end, so that a round stays short.
        let after = json!({"acpbox": {"after": last - 10}});
        let params =
            json!({"sessionId": session, "cwd": workspace, "mcpServers": [], "_meta": after});
        let loaded = again.request("session/load", params);
        assert_eq!(loaded["_meta"]["acpbox"]["restored"]["tier"], "resume");
        let answer = again.prompt(&session, "[[say:again]]");
        assert_eq!(answer["stopReason"], "end_turn");
        assert!(answer["_meta"]["acpbox"]["lastSeq"].as_i64().unwrap() > last);
        let status = again.close(Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
    assert!(total > 1000, "only {total} events in all rounds");
}

/// Every event up to `last` by its number, through `_acpbox/session/events`.
fn read_back(acpbox: &mut Bare, session: &str, last: i64) -> BTreeMap<i64, Box<RawValue>> {
    #[derive(serde::Deserialize)]
    struct Event {
        seq: i64,
        message: Box<RawValue>,
    }
    let mut all = BTreeMap::new();
    while all.last_key_value().is_none_or(|(seq, _)| *seq < last) {
        let after = all.last_key_value().map_or(0, |(seq, _)| *seq);
        let params = json!({"sessionId": session, "after": after, "limit": 10_000});
        let page = acpbox.request_raw("_acpbox/session/events", params);
        let page: BTreeMap<String, Box<RawValue>> = serde_json::from_str(page.get()).unwrap();
        let events: Vec<Event> = serde_json::from_str(page["events"].get()).unwrap();
        assert!(!events.is_empty(), "nothing after {after}");
        all.extend(events.into_iter().map(|event| (event.seq, event.message)));
    }
    all
}

/// Another one each time. `ACPBOX_TEST_SEED` repeats a run, as far as time can
/// be repeated.
fn seed() -> u64 {
    let seed = std::env::var("ACPBOX_TEST_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap().subsec_nanos().into()
    });
    println!("ACPBOX_TEST_SEED={seed}");
    seed
}

/// Xorshift: enough to choose moments and places.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 |= 1;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
