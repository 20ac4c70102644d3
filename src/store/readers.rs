//! Connections that only read, used on tokio's blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::error::{Fault, StoreError};
use super::open;

/// Reads at once; each keeps a connection with its page cache.
const READERS: u32 = 4;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Arc<Readers> {
        Arc::new(Readers {
            path,
            idle: Mutex::default(),
            places: Semaphore::new(READERS as usize),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a query beside the writer. Must be called inside a tokio runtime.
    pub(super) async fn read<T, F>(self: &Arc<Self>, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let readers = self.clone();
        let place = self
            .places
            .acquire()
            .await
            .map_err(|_| StoreError::Stopped)?;
        let task = tokio::task::spawn_blocking(move || {
            let connection = match readers.take() {
                Some(connection) => connection,
                None => open::reader(&readers.path)?,
            };
            let value = query(&connection).map_err(|fault| fault.into_error(&readers.path))?;
            // Not after an error: a new connection sees a damaged file afresh.
            readers.put_back(connection);
            Ok(value)
        });
        let value = task.await.map_err(|_| StoreError::Stopped)?;
        drop(place);
        value
    }

    /// Runs a short query on this thread, beside the writer and the other readers.
    pub(super) fn read_here<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        if self.places.is_closed() {
            return Err(StoreError::Stopped);
        }
        let connection = match self.take() {
            Some(connection) => connection,
            None => open::reader(&self.path)?,
        };
        let value = query(&connection).map_err(|fault| fault.into_error(&self.path))?;
        self.put_back(connection);
        Ok(value)
    }

    /// Waits for running reads and refuses new ones.
    pub(super) async fn close(&self) {
        // Fails only when they are closed already.
        let _all = self.places.acquire_many(READERS).await;
        self.places.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn take(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn put_back(&self, connection: Connection) {
        if !self.places.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }
}
