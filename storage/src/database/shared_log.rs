//! The journal's writer, shared by the committer, which appends, and the owner of the store, which
//! closes it. It adds nothing to what the log promises.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::journal::{
    AppendError, Appended, Ended, Entry, FileLog, Head, Log, Position, ReadLog, Reader, Syncing,
};

/// A handle of the writer.
#[derive(Clone)]
pub(super) struct SharedLog {
    log: Arc<Mutex<Option<FileLog>>>,
    reader: Reader,
}

impl SharedLog {
    pub(super) fn new(log: FileLog) -> Self {
        let reader = log.reader();
        Self { log: Arc::new(Mutex::new(Some(log))), reader }
    }

    /// Takes the writer out; handles are of no use afterwards.
    pub(super) fn take(&self) -> Option<FileLog> {
        self.log.lock().take()
    }
}

impl Log for SharedLog {
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError> {
        self.log.lock().as_mut().ok_or(AppendError::Stopped)?.append(time, entries)
    }

    fn append_with(
        &mut self,
        time: u64,
        entries: &[Entry<'_>],
        hand_over: &mut dyn FnMut(Box<dyn Syncing>),
    ) -> Result<Appended, AppendError> {
        let mut log = self.log.lock();
        log.as_mut().ok_or(AppendError::Stopped)?.append_with(time, entries, hand_over)
    }

    fn begin_sync(&mut self) -> Box<dyn Syncing> {
        match self.log.lock().as_mut() {
            Some(log) => log.begin_sync(),
            None => Box::new(Ended),
        }
    }

    fn finish_sync(
        &mut self,
        done: Result<Position, AppendError>,
    ) -> Result<Position, AppendError> {
        self.log.lock().as_mut().ok_or(AppendError::Stopped)?.finish_sync(done)
    }

    fn next_sequence(&self) -> u64 {
        let head = || self.reader.head().position.sequence + 1;
        self.log.lock().as_ref().map_or_else(head, Log::next_sequence)
    }

    fn appended(&self) -> Head {
        self.log.lock().as_ref().map_or_else(|| self.reader.head(), Log::appended)
    }

    fn reader(&self) -> Arc<dyn ReadLog> {
        Arc::new(self.reader.clone())
    }
}
