//! Full text search over documents: pieces of sessions' text that a caller
//! above has made of events.
//!
//! `words` cuts text into words, `index` writes them, `query` reads what somebody
//! typed, `snippet` shows where it is. FTS5 only says which documents have the
//! words; of those the newest thousand are ranked here, so that a word which is
//! in every session costs no more than a rare one.

mod index;
mod words;
mod query;
mod snippet;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

pub(super) use index::{Prepared, remove_some, unindexed};
pub use query::{QueryError, SearchQuery};
pub use snippet::SnippetPart;

use super::error::Fault;
use super::paths::StoredPath;
use super::rows::{SearchCursor, SearchFilter, SearchHit, SearchPage, SessionRow};
use super::sessions;

/// The kind of the document that is a session's title; its `seq` is 0.
pub const TITLE: &str = "title";

/// Documents that a session can have.
const NUMBERS: i64 = 1 << 24;

/// Documents that are ranked against each other, in number and in text.
const CANDIDATES: usize = 1000;
const CANDIDATE_BYTES: usize = 1 << 20;

/// Of one session, unless it is the only one looked into: a long session does
/// not push all others aside.
const CANDIDATES_PER_SESSION: usize = 20;

/// Documents of no use that are passed one by one before the index is asked
/// anew, which costs about as much.
const PASSED: usize = 200;

/// When the search for further candidates is given up; the next page goes on.
const PATIENCE: Duration = Duration::from_millis(500);

/// BM25's constants, and the length of a usual document in bytes.
const SATURATION: f64 = 1.2;
const LENGTH_SHARE: f64 = 0.75;
const USUAL_BYTES: f64 = 600.0;

/// After so long a document's advantage of being recent is halved.
const RECENT_MILLISECONDS: f64 = 30.0 * 24.0 * 3600.0 * 1000.0;

fn first_id(key: i64) -> i64 {
    key * NUMBERS
}

/// The best of the newest candidates. With `filter.cursor`, what comes behind
/// them in rank, then older candidates.
pub(super) fn page(connection: &Connection, filter: &SearchFilter) -> Result<SearchPage, Fault> {
    // What is found in the index must be there in the tables.
    let snapshot = connection.unchecked_transaction()?;
    let mut scope = Scope::new(&snapshot, filter)?;
    let (mut candidates, rest) = candidates(&snapshot, filter, &mut scope)?;
    let top = candidates.first().map(|candidate| candidate.id + 1);
    candidates.sort_by(|one, other| {
        let by_score = other.score.total_cmp(&one.score);
        by_score.then(other.id.cmp(&one.id))
    });
    let offset = filter.cursor.map_or(0, |cursor| cursor.offset);
    let end = offset.saturating_add(filter.limit);
    let next = match top {
        Some(below) if end < candidates.len() => Some(SearchCursor { below, offset: end }),
        _ => rest.map(|below| SearchCursor { below, offset: 0 }),
    };
    let shown = candidates.into_iter().skip(offset).take(filter.limit);
    let hits = shown.filter_map(|candidate| {
        let session = scope.session_of(candidate.id / NUMBERS)?;
        let places = filter.query.find(&candidate.text).places;
        Some(SearchHit {
            session,
            seq: candidate.seq,
            time: candidate.time,
            kind: candidate.kind,
            snippet: snippet::snippet(&candidate.text, &places),
        })
    });
    Ok(SearchPage {
        hits: hits.collect(),
        next,
    })
}

struct Candidate {
    id: i64,
    seq: i64,
    time: i64,
    kind: String,
    text: String,
    score: f64,
}

/// The newest documents with the words, newest first, and where the older ones begin.
fn candidates(
    connection: &Connection,
    filter: &SearchFilter,
    scope: &mut Scope<'_>,
) -> Result<(Vec<Candidate>, Option<i64>), Fault> {
    let mut matching = connection.prepare_cached(
        "SELECT rowid FROM search WHERE search MATCH ?1 AND rowid < ?2 AND rowid >= ?3 ORDER BY rowid DESC",
    )?;
    let mut document =
        connection.prepare_cached("SELECT seq, time, kind, text FROM documents WHERE id = ?1")?;
    let expression = filter.query.expression();
    let mut below = filter.cursor.map_or(i64::MAX, |cursor| cursor.below);
    let mut found: Vec<Candidate> = Vec::new();
    let mut bytes = 0;
    // From the first match on: a page without any would help nobody.
    let mut deadline: Option<Instant> = None;
    'anew: loop {
        let mut rows = matching.query(params![expression, below, scope.lowest])?;
        let mut passed = 0;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let is_full = found.len() >= CANDIDATES || bytes >= CANDIDATE_BYTES;
            let now = Instant::now();
            if is_full || now > *deadline.get_or_insert(now + PATIENCE) {
                return Ok((found, Some(id + 1)));
            }
            match scope.admit(id / NUMBERS)? {
                Admission::Take => {}
                Admission::PassTo(_) if passed < PASSED => {
                    passed += 1;
                    continue;
                }
                Admission::PassTo(end) => {
                    below = end.min(id);
                    continue 'anew;
                }
                Admission::Over => return Ok((found, None)),
            }
            if id % NUMBERS == 0 && promote_others(&mut found, id / NUMBERS, filter) {
                continue;
            }
            let candidate = document.query_row([id], |row| {
                Ok(Candidate {
                    id,
                    seq: row.get(0)?,
                    time: row.get(1)?,
                    kind: row.get(2)?,
                    text: row.get(3)?,
                    score: 0.0,
                })
            });
            if let Some(mut candidate) = candidate.optional()? {
                candidate.score = score(filter, &candidate);
                bytes += candidate.text.len();
                found.push(candidate);
            }
        }
        return Ok((found, None));
    }
}

/// BM25 without the rarity of words, since every hit has all of them; then the
/// kind counts, and a recent document up to twice as much as an old one.
fn score(filter: &SearchFilter, candidate: &Candidate) -> f64 {
    let counts = filter.query.find(&candidate.text).counts;
    let length = candidate.text.len() as f64 / USUAL_BYTES;
    let damping = SATURATION * (1.0 - LENGTH_SHARE + LENGTH_SHARE * length);
    let terms = counts.iter().map(|count| {
        let count = *count as f64;
        count / (count + damping)
    });
    let age = filter.now.saturating_sub(candidate.time).max(0) as f64;
    let recency = 1.0 + (-age / RECENT_MILLISECONDS).exp2();
    terms.sum::<f64>() * weight(filter, &candidate.kind) * recency
}

fn weight(filter: &SearchFilter, kind: &str) -> f64 {
    let weight = filter.weights.iter().find(|(named, _)| *named == kind);
    weight.map_or(1.0, |(_, weight)| *weight)
}

/// A title is shown with every hit of its session: where there are others, it
/// only lifts them. Often it is the beginning of the first prompt anyway.
fn promote_others(found: &mut [Candidate], key: i64, filter: &SearchFilter) -> bool {
    // The title comes last of a session's documents.
    let others = found.iter_mut().rev();
    let mut others = others
        .take_while(|other| other.id / NUMBERS == key)
        .peekable();
    let are_there = others.peek().is_some();
    others.for_each(|other| other.score *= weight(filter, TITLE));
    are_there
}

/// Which sessions are looked into.
struct Scope<'a> {
    connection: &'a Connection,
    /// The keys of those that the filter names, ascending; `None` for all.
    keys: Option<Vec<i64>>,
    /// The first document that can be one of theirs.
    lowest: i64,
    /// Candidates of the session at hand, by its key.
    taken: (i64, usize),
    per_session: usize,
    known: HashMap<i64, Option<SessionRow>>,
}

enum Admission {
    Take,
    /// Nothing of use comes before a document below this one.
    PassTo(i64),
    /// Nothing of use comes any more.
    Over,
}

impl<'a> Scope<'a> {
    fn new(connection: &'a Connection, filter: &SearchFilter) -> Result<Scope<'a>, Fault> {
        let is_narrowed =
            filter.session.is_some() || filter.cwd.is_some() || filter.agent.is_some();
        let keys = match is_narrowed {
            true => Some(named(connection, filter)?),
            false => None,
        };
        let lowest = match &keys {
            Some(keys) => keys.first().map_or(i64::MAX, |key| first_id(*key)),
            None => 0,
        };
        Ok(Scope {
            connection,
            keys,
            lowest,
            taken: (0, 0),
            per_session: match filter.session {
                Some(_) => usize::MAX,
                None => CANDIDATES_PER_SESSION,
            },
            known: HashMap::new(),
        })
    }

    fn admit(&mut self, key: i64) -> Result<Admission, Fault> {
        if let Some(keys) = &self.keys {
            let after = keys.partition_point(|named| *named <= key);
            match keys[..after].last() {
                None => return Ok(Admission::Over),
                Some(named) if *named < key => return Ok(Admission::PassTo(first_id(named + 1))),
                Some(_) => {}
            }
        }
        if self.taken.0 != key {
            self.taken = (key, 0);
        }
        if self.taken.1 >= self.per_session || !self.exists(key)? {
            return Ok(Admission::PassTo(first_id(key)));
        }
        self.taken.1 += 1;
        Ok(Admission::Take)
    }

    /// A deleted session may still have documents, for a moment.
    fn exists(&mut self, key: i64) -> Result<bool, Fault> {
        if let Some(known) = self.known.get(&key) {
            return Ok(known.is_some());
        }
        let row = sessions::by_key(self.connection, key)?;
        let exists = row.is_some();
        self.known.insert(key, row);
        Ok(exists)
    }

    fn session_of(&self, key: i64) -> Option<SessionRow> {
        self.known.get(&key).cloned().flatten()
    }
}

/// The keys of the sessions that the filter names, ascending.
fn named(connection: &Connection, filter: &SearchFilter) -> Result<Vec<i64>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT key FROM sessions WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR cwd = ?2)
            AND (?3 IS NULL OR agent = ?3) ORDER BY key",
    )?;
    let cwd = filter.cwd.as_deref().map(StoredPath);
    let rows = statement.query_map(params![filter.session, cwd, filter.agent], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
