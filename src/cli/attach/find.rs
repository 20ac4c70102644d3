//! The session that is meant, among all that the server knows.

use serde::Deserialize;
use serde_json::json;

use crate::acp::methods;
use crate::cli::client::Client;
use crate::cli::exit::Usage;
use crate::cli::remote;

/// Pages of the server's list that are looked through, newest sessions first.
const MOST_PAGES: usize = 200;

/// Sessions named when an id's beginning fits several.
const NAMED_SESSIONS: usize = 5;

/// A session as `session/list` has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) session_id: String,
    pub(super) cwd: String,
    pub(super) title: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    sessions: Vec<Listed>,
    next_cursor: Option<String>,
}

/// The session of this id, or of the one id that begins so.
pub(super) async fn session(client: &mut Client, given: &str) -> anyhow::Result<Listed> {
    let given = given.to_ascii_lowercase();
    let mut found: Vec<Listed> = Vec::new();
    let mut cursor = None;
    for _ in 0..MOST_PAGES {
        let params = match &cursor {
            Some(cursor) => json!({ "cursor": cursor }),
            None => json!({}),
        };
        let result = remote::ask(client, methods::SESSION_LIST, &params).await?;
        let page: Page = serde_json::from_str(&result)?;
        for session in page.sessions {
            if session.session_id == given {
                return Ok(session);
            }
            if !given.is_empty() && session.session_id.starts_with(&given) {
                found.push(session);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Usage(format!(
            "the server has no session `{given}`; `acpbox status` names those that are live, \
             `acpbox sessions list` all"
        ))
        .into()),
        _ => {
            let named = found.iter().take(NAMED_SESSIONS).map(|session| {
                let title = session.title.as_deref().unwrap_or_default();
                format!("\n  {} {title}", session.session_id)
            });
            Err(Usage(format!(
                "several sessions begin with `{given}`; give more of the id:{}",
                named.collect::<String>()
            ))
            .into())
        }
    }
}
