//! The index itself: what is in it, who writes it, and what is left of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use acpbox::session::index::catch_up;
use acpbox::store::{
    Direction, EventRow, SearchCursor, SearchFilter, SearchPage, SearchQuery, SessionRow, Store,
};
use rusqlite::Connection;
use serde_json::json;

use crate::cli::Place;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn pages_hold_every_hit_once_and_a_long_session_hides_no_other() {
    let fixture = Fixture::new();
    for session in 0..70 {
        // One of them says it more often than there is room for.
        let count = if session == 35 {
            3000
        } else {
            1 + session % 40
        };
        fixture
            .talk(session, (0..count).map(|number| format!("common {number}")))
            .await;
    }
    assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
    let expected: usize = (0..70)
        .map(|it| if it == 35 { 20 } else { (1 + it % 40).min(20) })
        .sum();
    assert!(expected > 1000, "else there is one page of candidates");
    let mut all = fixture.every_page("common", |filter| filter).await;
    assert_eq!(all.len(), expected);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), expected, "some came twice");

    let named = |filter| SearchFilter {
        session: Some("35".into()),
        ..filter
    };
    assert_eq!(fixture.every_page("common", named).await.len(), 3000);
    let of_agent = |filter| SearchFilter {
        agent: Some("agent-1".into()),
        ..filter
    };
    let found = fixture.every_page("common", of_agent).await;
    let is_theirs = |(session, _): &(String, i64)| session.parse::<i64>().unwrap() % 7 == 1;
    assert!(
        found.iter().all(is_theirs) && found.len() > 100,
        "{found:?}"
    );
    let nowhere = |filter| SearchFilter {
        cwd: Some("/nowhere".into()),
        ..filter
    };
    assert_eq!(fixture.every_page("common", nowhere).await, []);
}

#[tokio::test]
async fn many_who_index_at_once_make_each_document_once() {
    let fixture = Fixture::new();
    for session in 0..30 {
        fixture
            .talk(
                session,
                (0..100).map(|number| format!("word{number} ").repeat(200)),
            )
            .await;
    }
    let others: Vec<Store> = (0..4)
        .map(|_| Store::open(&fixture.path).unwrap())
        .collect();
    let indexing = others.iter().map(|store| catch_up(store, PATIENCE));
    for is_complete in futures::future::join_all(indexing).await {
        is_complete.unwrap();
    }
    assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
    let database = Connection::open(&fixture.path).unwrap();
    let count = |sql: &str| {
        database
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count("SELECT count(*) FROM documents"), 3000);
    assert_eq!(
        count("SELECT count(DISTINCT (id / 16777216) || ':' || seq) FROM documents"),
        3000
    );
    assert_eq!(
        count("SELECT count(*) FROM search WHERE search MATCH 'word57'"),
        30
    );
    assert_eq!(count("SELECT count(*) FROM unindexed"), 0);
}

#[tokio::test]
async fn a_deleted_session_leaves_no_word_in_the_file_and_the_index_whole() {
    let fixture = Fixture::new();
    // Words that begin alike share bytes in the index: their ends are looked for.
    let text = |session: i64, number: i64| {
        let own: String = (0..40)
            .map(|it| format!("common{it}{number}q{session}z "))
            .collect();
        format!("the usual words {own} parseHttpq{session}z")
    };
    for part in 0..10 {
        for session in [1, 2] {
            let texts = (part * 50..part * 50 + 50).map(|number| text(session, number));
            fixture.talk(session, texts).await;
        }
        assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
    }
    assert!(
        fixture.holds("q1z") && fixture.holds("q2z"),
        "else this test proves nothing"
    );
    fixture.store.delete_session("1").await.unwrap().unwrap();
    assert!(!fixture.holds("q1z"));
    assert_eq!(fixture.search("common0499q1z").await.hits.len(), 0);
    assert_eq!(fixture.search("common0499q2z").await.hits.len(), 1);
    assert_eq!(fixture.search("usual").await.hits.len(), 20);
    let database = Connection::open(&fixture.path).unwrap();
    database
        .execute("INSERT INTO search(search) VALUES ('integrity-check')", [])
        .unwrap();
    drop(database);
    fixture.store.delete_session("2").await.unwrap().unwrap();
    assert!(!fixture.holds("q2z"));
    fixture.store.check().await.unwrap();
}

#[tokio::test]
async fn a_title_is_found_until_another_takes_its_place() {
    let fixture = Fixture::new();
    let mut row = fixture.talk(1, ["hello".to_owned()].into_iter()).await;
    for (title, found, lost) in [
        ("First title", "first", "second"),
        ("Second title", "second", "first"),
    ] {
        row.title = Some(title.into());
        fixture.store.update_session(&row).await.unwrap();
        assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
        assert_eq!(fixture.search(found).await.hits.len(), 1);
        assert_eq!(fixture.search(lost).await.hits.len(), 0);
    }
    row.title = None;
    fixture.store.update_session(&row).await.unwrap();
    assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
    assert_eq!(fixture.search("title").await.hits.len(), 0);
    assert_eq!(fixture.search("hello").await.hits.len(), 1);
}

#[tokio::test]
async fn better_and_newer_hits_come_first() {
    let fixture = Fixture::new();
    let filling = "filling ".repeat(300);
    for (session, text) in [
        (1, "relay ".to_owned()),
        (2, format!("relay {filling}")),
        (3, "relay relay relay".into()),
    ] {
        fixture.talk(session, [text].into_iter()).await;
    }
    assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
    let order = async |now| -> Vec<String> {
        let filter = SearchFilter {
            now,
            ..fixture.filter("relay")
        };
        let page = fixture.store.search(filter).await.unwrap();
        page.hits.into_iter().map(|hit| hit.session.id).collect()
    };
    assert_eq!(order(TIME).await, ["3", "1", "2"]);
    // Of the same text the newer one.
    fixture
        .talk_at(
            4,
            TIME - 400 * DAY,
            ["relay relay relay".to_owned()].into_iter(),
        )
        .await;
    assert!(catch_up(&fixture.store, PATIENCE).await.unwrap());
    assert_eq!(order(TIME).await, ["3", "1", "4", "2"]);
}

#[tokio::test]
async fn a_search_does_not_wait_for_ever_for_what_is_not_indexed() {
    let fixture = Fixture::new();
    for session in 0..20 {
        fixture
            .talk(session, (0..500).map(|number| format!("late {number}")))
            .await;
    }
    assert!(!catch_up(&fixture.store, Duration::ZERO).await.unwrap());
    assert_eq!(fixture.search("late").await.hits.len(), 0);
    // Piece by piece it gets there.
    let mut rounds = 0;
    while !catch_up(&fixture.store, Duration::from_millis(20))
        .await
        .unwrap()
    {
        rounds += 1;
        assert!(rounds < 1000, "it never ends");
    }
    assert!(fixture.search("late").await.next.is_some());
}

#[test]
fn an_older_database_is_brought_up_to_date_and_searched() {
    let place = Place::new();
    let id = place.session("[[say:old words]]");
    let database = Connection::open(place.file("state/acpbox/acpbox.db")).unwrap();
    // As the first released schema was.
    database
        .execute_batch(crate::support::older::FIRST_SCHEMA)
        .unwrap();
    drop(database);
    let found = place
        .acpbox(&["sessions", "search", "old", "words", "--json"])
        .expect(0)
        .json();
    let hits = found["hits"].as_array().unwrap();
    assert!(
        hits.len() == 2 && hits.iter().all(|hit| hit["sessionId"] == id.as_str()),
        "{found}"
    );
}

const TIME: i64 = 1_795_000_000_000;
const DAY: i64 = 24 * 3600 * 1000;

struct Fixture {
    store: Store,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acpbox.db");
        Fixture {
            store: Store::open(&path).unwrap(),
            path,
            folder,
        }
    }

    async fn talk(&self, session: i64, texts: impl Iterator<Item = String>) -> SessionRow {
        self.talk_at(session, TIME, texts).await
    }

    /// Lets the agent of a session, which is made if need be, say these messages.
    async fn talk_at(
        &self,
        session: i64,
        time: i64,
        texts: impl Iterator<Item = String>,
    ) -> SessionRow {
        let row = SessionRow {
            id: session.to_string(),
            agent: format!("agent-{}", session % 7),
            vm: "vm".into(),
            agent_session: None,
            cwd: "/work".into(),
            title: None,
            created: 1,
            updated: 1,
            state: "open".into(),
            options: "{}".into(),
            usage: "{}".into(),
        };
        if self.store.session(&row.id).await.unwrap().is_none() {
            self.store.create_session(&row).await.unwrap();
        }
        let last = self.store.last_seq(&row.id).await.unwrap();
        let id: Arc<str> = row.id.as_str().into();
        let events = (last + 1..).zip(texts).map(|(seq, text)| EventRow {
            session: Arc::clone(&id),
            seq,
            time,
            direction: Direction::Agent,
            kind: "agent_message_chunk".into(),
            raw: json!({"params": {"update": {"sessionUpdate": "agent_message_chunk",
                "messageId": seq.to_string(), "content": {"type": "text", "text": text}}}})
            .to_string()
            .into(),
        });
        let append = self
            .store
            .reserve()
            .await
            .unwrap()
            .append(events.collect(), false);
        append.await.unwrap();
        row
    }

    fn filter(&self, query: &str) -> SearchFilter {
        SearchFilter {
            query: SearchQuery::parse(query).unwrap(),
            session: None,
            cwd: None,
            agent: None,
            weights: &[],
            now: TIME,
            limit: 20,
            cursor: None,
        }
    }

    async fn search(&self, query: &str) -> SearchPage {
        self.store.search(self.filter(query)).await.unwrap()
    }

    /// Session and number of all that is found, page by page.
    async fn every_page(
        &self,
        query: &str,
        narrowed: impl Fn(SearchFilter) -> SearchFilter,
    ) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        let mut cursor: Option<SearchCursor> = None;
        loop {
            let filter = SearchFilter {
                cursor,
                limit: 33,
                ..self.filter(query)
            };
            let page = self.store.search(narrowed(filter)).await.unwrap();
            all.extend(page.hits.into_iter().map(|hit| (hit.session.id, hit.seq)));
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    }

    fn holds(&self, text: &str) -> bool {
        let finder = memchr::memmem::Finder::new(text);
        let holds = |path: &Path| finder.find(&std::fs::read(path).unwrap()).is_some();
        std::fs::read_dir(self.folder.path())
            .unwrap()
            .any(|file| holds(&file.unwrap().path()))
    }
}
