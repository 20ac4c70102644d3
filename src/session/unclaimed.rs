//! A session between its start and the moment when somebody knows of it.

use std::sync::Arc;

use super::live::Live;

/// A session that nobody knows yet: it ends when whoever starts it gives up.
pub struct Unclaimed(Option<Arc<Live>>);

impl Unclaimed {
    pub fn new(live: Arc<Live>) -> Unclaimed {
        Unclaimed(Some(live))
    }

    /// Lets the session live on.
    pub fn claim(mut self) {
        self.0 = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(live) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { live.close().await });
        }
    }
}
