//! When the state is written aside: after some bytes of journal, on a thread of its own, and at a
//! clean stop. A checkpoint that fails costs time at the next start and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::checkpoint::{self, Stamp};
use crate::fold::State;
use crate::journal::Reader;
use crate::record::Fact;
use crate::store::{Published, Store};

/// A checkpoint is due after this many bytes of journal, so that the tail that opening replays is
/// short.
const DUE_BYTES: usize = 32 << 20;

/// A checkpoint writes the whole state. While that is larger than [`DUE_BYTES`] the next one waits
/// for as many bytes of journal, or a backlog would be written again and again; but for no more
/// than this, which is replayed in half a second.
const DUE_BYTES_MAX: usize = 256 << 20;

/// Bytes of an entry in the journal besides its body and its long texts.
const ENTRY_BYTES: usize = 320;

/// Frames of a replay that make a checkpoint due at once.
const REPLAYED_DUE: u64 = 50_000;

enum Job {
    Write,
    Stop,
}

/// The thread that writes checkpoints.
pub(super) struct Checkpoints {
    folder: PathBuf,
    reader: Reader,
    jobs: SyncSender<Job>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn start(
        folder: &Path,
        store: &Store,
        reader: &Reader,
        replayed: u64,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let since = AtomicUsize::new(if replayed > REPLAYED_DUE { DUE_BYTES } else { 0 });
        let due_bytes = Arc::new(AtomicUsize::new(DUE_BYTES));
        let work = Work {
            folder: folder.into(),
            reader: reader.clone(),
            store: store.clone(),
            due_bytes: Arc::clone(&due_bytes),
        };
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || work.run(&queue))?;
        let due = jobs.clone();
        store.listen(Box::new(move |published| {
            let bytes = size(published);
            if since.fetch_add(bytes, Ordering::Relaxed) + bytes
                >= due_bytes.load(Ordering::Relaxed)
            {
                since.store(0, Ordering::Relaxed);
                // One is enough: a full queue means that the next one is under way.
                let _ = due.try_send(Job::Write);
            }
            true
        }));
        Ok(Self { folder: folder.into(), reader: reader.clone(), jobs, thread: Some(thread) })
    }

    pub(super) fn stop(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// The last checkpoint of a clean stop.
    pub(super) fn finish(&mut self, store: &Store) {
        self.stop();
        store.state(|state| write(&self.folder, &self.reader, state));
    }
}

struct Work {
    folder: PathBuf,
    reader: Reader,
    store: Store,
    due_bytes: Arc<AtomicUsize>,
}

impl Work {
    fn run(self, queue: &Receiver<Job>) {
        while let Ok(Job::Write) = queue.recv() {
            let state = self.store.state(State::snapshot);
            let Some(path) = write(&self.folder, &self.reader, &state) else { continue };
            let size = std::fs::metadata(&path).map_or(0, |file| file.len());
            let size = usize::try_from(size).unwrap_or(DUE_BYTES_MAX);
            self.due_bytes.store(size.clamp(DUE_BYTES, DUE_BYTES_MAX), Ordering::Relaxed);
        }
    }
}

fn write(folder: &Path, reader: &Reader, state: &State) -> Option<PathBuf> {
    let frame = reader.frame(state.sequence).ok()?;
    let stamp = Stamp { journal: reader.identity().journal, hash: frame.hash };
    let written = checkpoint::write(folder, state, &stamp);
    written
        .inspect_err(|error| {
            tracing::warn!(error.text = %error, "checkpoint not written; the next start is slower");
        })
        .ok()
}

fn size(published: &Published) -> usize {
    let entry = |fact: &Fact, body: u32| {
        let value = match fact {
            Fact::Put(write) => write.value.as_ref().map_or(0, |value: &Arc<[u8]>| value.len()),
            _ => 0,
        };
        ENTRY_BYTES + value + body as usize
    };
    published.entries.iter().map(|(_, record, body)| entry(&record.fact, body.length)).sum()
}
