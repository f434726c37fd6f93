//! A disk for tests: a FUSE file system in memory that remembers which writes were synced. When its
//! power is cut, every call fails from then on, and [`Disk::image`] gives what a real disk might
//! have kept: all that was synced, and of the rest what chance decides, torn and in any order.
//!
//! Only `fsync`, `fdatasync` and the sync of a directory count. `sync_file_range`, `close` and time
//! make nothing durable. A name is durable only by a sync of its directory, whatever became of the
//! file. It is for Linux, and mounting needs root and `/dev/fuse`.

mod chance;
mod content;
mod loss;
mod mount;
mod state;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use parking_lot::Mutex;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

pub use chance::Chance;
use loss::Rule;
pub use loss::{Kept, Unsynced};
use mount::Mounted;
use state::State;

/// When the power is cut. Events are counted from the mount on, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// At a sync of a file or a directory. `true`: it is done, and nobody is told.
    Sync(u64, bool),
    /// At a write, a change of a length or of a name. `true`: it reached the cache.
    Change(u64, bool),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Writes, changes of lengths and of names.
    pub changes: u64,
}

/// A disk that is mounted until it is dropped.
pub struct Disk {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    folder: TempDir,
}

impl Disk {
    /// Why no disk can be mounted here, or `None`.
    pub fn unavailable() -> Option<&'static str> {
        let device = fs::File::options().read(true).write(true).open("/dev/fuse");
        device.is_err().then_some("/dev/fuse cannot be opened: this test needs root and FUSE")
    }

    /// Mounts a disk with the files of `from`, all of them durable, or an empty one.
    ///
    /// # Errors
    /// When FUSE is not available or `from` cannot be read.
    pub fn mount(from: Option<&Path>) -> io::Result<Self> {
        let mut state = State::default();
        if let Some(from) = from {
            state.load(from)?;
        }
        let state = Arc::new(Mutex::new(state));
        let folder = tempfile::tempdir()?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".into())];
        let mounted = Mounted(Arc::clone(&state));
        let session = fuser::spawn_mount(mounted, folder.path(), &config)?;
        Ok(Self { state, session: Some(session), folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Cuts the power when this happens.
    pub fn schedule(&self, cut: Cut) {
        self.state.lock().schedule(cut);
    }

    /// Cuts the power before the first event for which this is true. It is asked with the path of
    /// the file or folder, from the root of the disk, and whether the event is a sync of it.
    pub fn cut_when(&self, is_now: impl FnMut(&Path, bool) -> bool + Send + 'static) {
        self.state.lock().set_trap(Box::new(is_now));
    }

    /// Cuts the power now.
    pub fn cut(&self) {
        self.state.lock().die();
    }

    /// The power is cut.
    pub fn is_dead(&self) -> bool {
        self.state.lock().is_dead()
    }

    /// From now on a sync fails when what it writes needs more than so many new blocks of 4,096
    /// bytes: a disk that reserves nothing when bytes are written, only when they are synced.
    /// Blocks that were synced once keep their place. `None`: there is room again.
    pub fn limit(&self, blocks: Option<u64>) {
        self.state.lock().limit(blocks);
    }

    /// What happened so far.
    pub fn events(&self) -> Events {
        self.state.lock().events()
    }

    /// Writes what the disk kept into an empty folder. `chance` decides about what was not synced.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn image(&self, chance: &mut Chance, into: &Path) -> io::Result<()> {
        self.state.lock().image(chance, into)
    }

    /// The same, with what a rule keeps of what was not synced. It is asked with the path of the
    /// file or folder, from the root of the disk.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn image_if<K: Into<Kept>>(
        &self,
        mut keeps: impl FnMut(&Path, Unsynced<'_>) -> K,
        into: &Path,
    ) -> io::Result<()> {
        self.state.lock().image(&mut Rule(&mut |path, change| keeps(path, change).into()), into)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open gets errors, and does not keep it mounted; the folder goes
        // with its owner.
        self.state.lock().die();
        // It may have been unmounted by hand.
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
        if let Some(session) = self.session.take() {
            drop(session.umount_and_join());
        }
    }
}
