//! What the disk holds now, and what of it is durable. It knows nothing of FUSE.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::content::{Change, Content, pages};
use crate::loss::Loss;
use crate::{Cut, Events, Unsynced};

/// The number of the root.
pub(crate) const ROOT: u64 = 1;

/// Why a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The power is cut.
    Dead,
    Missing,
    Exists,
    NotEmpty,
    NotSupported,
    NoRoom,
}

type Done<T> = Result<T, Failure>;

/// A change of a folder's names, which a disk does as a whole or not at all.
#[derive(Clone, Debug)]
enum Naming {
    Set(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString, u64),
}

impl Naming {
    fn told(&self) -> Unsynced<'_> {
        match self {
            Self::Set(name, _) => Unsynced::Made(name),
            Self::Remove(name) => Unsynced::Removed(name),
            Self::Rename(from, to, _) => Unsynced::Renamed(from, to),
        }
    }
}

#[derive(Debug, Default)]
struct Folder {
    now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// Since the last sync.
    changes: Vec<Naming>,
}

#[derive(Debug, Default)]
struct Plain {
    now: Content,
    durable: Content,
    /// Since the last sync.
    changes: Vec<Change>,
    /// The pages that have a place on the disk, from the first on.
    placed: Vec<bool>,
}

impl Plain {
    /// Gives every page that was written a place, if there is room for all of them.
    fn place(&mut self, room: Option<&mut u64>) -> Done<()> {
        let touched = || self.changes.iter().flat_map(Change::pages);
        if let Some(room) = room {
            let is_new = |page: &usize| !self.placed.get(*page).is_some_and(|placed| *placed);
            let wanted: BTreeSet<usize> = touched().filter(is_new).collect();
            *room = room.checked_sub(wanted.len() as u64).ok_or(Failure::NoRoom)?;
        }
        let last = touched().max().map_or(0, |last| last + 1);
        let mut placed = std::mem::take(&mut self.placed);
        placed.resize(last.max(placed.len()), false);
        for page in touched() {
            placed[page] = true;
        }
        self.placed = placed;
        Ok(())
    }
}

#[derive(Debug)]
enum Node {
    Folder(Folder),
    File(Plain),
}

/// A kind of node and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) is_folder: bool,
    pub(crate) length: u64,
}

/// Asked before each event with the path of what it is about, and whether it is a sync.
pub(crate) type Trap = Box<dyn FnMut(&Path, bool) -> bool + Send>;

pub(crate) struct State {
    nodes: HashMap<u64, Node>,
    newest: u64,
    events: Events,
    cut: Option<Cut>,
    trap: Option<Trap>,
    dead: bool,
    /// Pages that may still get a place; `None`: as many as are wanted.
    room: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        let nodes = HashMap::from([(ROOT, Node::Folder(Folder::default()))]);
        let events = Events::default();
        Self { nodes, newest: ROOT, events, cut: None, trap: None, dead: false, room: None }
    }
}

fn name_in(names: &mut BTreeMap<OsString, u64>, naming: &Naming) {
    match naming {
        Naming::Set(name, node) => {
            names.insert(name.clone(), *node);
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
        Naming::Rename(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

impl State {
    pub(crate) fn schedule(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    pub(crate) fn set_trap(&mut self, trap: Trap) {
        self.trap = Some(trap);
    }

    pub(crate) fn limit(&mut self, room: Option<u64>) {
        self.room = room;
    }

    pub(crate) fn die(&mut self) {
        self.dead = true;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn events(&self) -> Events {
        self.events
    }

    pub(crate) fn alive(&self) -> Done<()> {
        if self.dead { Err(Failure::Dead) } else { Ok(()) }
    }

    /// The power goes when the trap says so.
    fn spring(&mut self, node: u64, is_sync: bool) -> Done<()> {
        self.alive()?;
        if let Some(mut trap) = self.trap.take() {
            let path = self.path_of(ROOT, Path::new(""), node).unwrap_or_default();
            self.dead = trap(&path, is_sync);
            self.trap = Some(trap);
        }
        self.alive()
    }

    /// Where a node is found below a folder.
    fn path_of(&self, folder: u64, path: &Path, wanted: u64) -> Option<PathBuf> {
        if folder == wanted {
            return Some(path.into());
        }
        let Some(Node::Folder(here)) = self.nodes.get(&folder) else { return None };
        here.now.iter().find_map(|(name, node)| self.path_of(*node, &path.join(name), wanted))
    }

    /// Counts a change; `false`: it is lost in the cut.
    fn changes(&mut self, node: u64) -> Done<bool> {
        self.spring(node, false)?;
        self.events.changes += 1;
        match self.cut {
            Some(Cut::Change(at, done)) if at == self.events.changes => {
                self.dead = true;
                Ok(done)
            }
            _ => Ok(true),
        }
    }

    fn folder(&mut self, node: u64) -> Done<&mut Folder> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(Failure::Missing),
        }
    }

    fn file(&mut self, node: u64) -> Done<&mut Plain> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(Failure::Missing),
        }
    }

    pub(crate) fn facts(&self, node: u64) -> Done<Facts> {
        self.alive()?;
        match self.nodes.get(&node) {
            Some(Node::Folder(_)) => Ok(Facts { is_folder: true, length: 0 }),
            Some(Node::File(file)) => Ok(Facts { is_folder: false, length: file.now.length() }),
            None => Err(Failure::Missing),
        }
    }

    pub(crate) fn look_up(&mut self, parent: u64, name: &OsStr) -> Done<u64> {
        self.alive()?;
        self.folder(parent)?.now.get(name).copied().ok_or(Failure::Missing)
    }

    pub(crate) fn list(&mut self, node: u64) -> Done<Vec<(OsString, u64)>> {
        self.alive()?;
        let names = &self.folder(node)?.now;
        Ok(names.iter().map(|(name, node)| (name.clone(), *node)).collect())
    }

    fn name(&mut self, parent: u64, naming: Naming) -> Done<()> {
        if self.changes(parent)? {
            let folder = self.folder(parent)?;
            name_in(&mut folder.now, &naming);
            folder.changes.push(naming);
        }
        self.alive()
    }

    pub(crate) fn make(&mut self, parent: u64, name: &OsStr, is_folder: bool) -> Done<u64> {
        if self.look_up(parent, name).is_ok() {
            return Err(Failure::Exists);
        }
        self.newest += 1;
        let node = self.newest;
        let made =
            if is_folder { Node::Folder(Folder::default()) } else { Node::File(Plain::default()) };
        self.nodes.insert(node, made);
        self.name(parent, Naming::Set(name.into(), node))?;
        Ok(node)
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr) -> Done<()> {
        let node = self.look_up(parent, name)?;
        if matches!(self.nodes.get(&node), Some(Node::Folder(folder)) if !folder.now.is_empty()) {
            return Err(Failure::NotEmpty);
        }
        self.name(parent, Naming::Remove(name.into()))
    }

    /// Renames within one folder.
    pub(crate) fn rename(
        &mut self,
        (parent, from): (u64, &OsStr),
        (new_parent, to): (u64, &OsStr),
    ) -> Done<()> {
        let node = self.look_up(parent, from)?;
        if parent != new_parent {
            return Err(Failure::NotSupported);
        }
        self.name(parent, Naming::Rename(from.into(), to.into(), node))
    }

    pub(crate) fn change(&mut self, node: u64, change: Change) -> Done<()> {
        self.file(node)?;
        if self.changes(node)? {
            let file = self.file(node)?;
            file.now.apply(&change);
            file.changes.push(change);
        }
        self.alive()
    }

    pub(crate) fn read(&mut self, node: u64, offset: u64, size: usize) -> Done<Vec<u8>> {
        self.alive()?;
        Ok(self.file(node)?.now.read(offset, size))
    }

    pub(crate) fn sync(&mut self, node: u64) -> Done<()> {
        self.spring(node, true)?;
        self.events.syncs += 1;
        if let Some(Cut::Sync(at, done)) = self.cut
            && at == self.events.syncs
        {
            self.dead = true;
            if !done {
                return Err(Failure::Dead);
            }
        }
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => {
                file.place(self.room.as_mut())?;
                for change in file.changes.drain(..) {
                    file.durable.apply(&change);
                }
            }
            Some(Node::Folder(folder)) => {
                for naming in folder.changes.drain(..) {
                    name_in(&mut folder.durable, &naming);
                }
            }
            None => return Err(Failure::Missing),
        }
        self.alive()
    }

    /// Takes the files of a folder in, all of them durable.
    pub(crate) fn load(&mut self, from: &Path) -> io::Result<()> {
        self.load_into(ROOT, from)
    }

    fn load_into(&mut self, parent: u64, from: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            self.newest += 1;
            let node = self.newest;
            if entry.file_type()?.is_dir() {
                self.nodes.insert(node, Node::Folder(Folder::default()));
                self.load_into(node, &entry.path())?;
            } else {
                let mut content = Content::default();
                content.apply(&Change::Write(0, fs::read(entry.path())?));
                let placed = vec![true; pages(0, content.length()).end];
                let (now, durable, changes) = (content.clone(), content, Vec::new());
                self.nodes.insert(node, Node::File(Plain { now, durable, changes, placed }));
            }
            if let Some(Node::Folder(folder)) = self.nodes.get_mut(&parent) {
                folder.now.insert(entry.file_name(), node);
                folder.durable.insert(entry.file_name(), node);
            }
        }
        Ok(())
    }

    /// Writes what the disk kept, as `loss` decides about what was not synced.
    pub(crate) fn image(&self, loss: &mut dyn Loss, into: &Path) -> io::Result<()> {
        self.image_of(ROOT, loss, Path::new(""), into)
    }

    fn image_of(&self, node: u64, loss: &mut dyn Loss, path: &Path, into: &Path) -> io::Result<()> {
        match self.nodes.get(&node) {
            Some(Node::Folder(folder)) => {
                fs::create_dir_all(into)?;
                let mut names = folder.durable.clone();
                let told: Vec<_> = folder.changes.iter().map(Naming::told).collect();
                for (naming, _) in
                    folder.changes.iter().zip(loss.names(path, &told)).filter(|(_, kept)| *kept)
                {
                    name_in(&mut names, naming);
                }
                for (name, node) in names {
                    self.image_of(node, loss, &path.join(&name), &into.join(name))?;
                }
                Ok(())
            }
            Some(Node::File(file)) => {
                let mut content = file.durable.clone();
                for change in loss.bytes(path, &file.changes) {
                    content.apply(&change);
                }
                content.save(&fs::File::create(into)?)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;

    use super::{Failure, ROOT, State};
    use crate::Unsynced;
    use crate::content::Change;
    use crate::loss::{Kept, Rule};

    #[test]
    fn a_rule_decides_what_is_kept_of_what_was_not_synced() {
        let mut state = State::default();
        let name = OsStr::new("file");
        let file = state.make(ROOT, name, false).expect("made");
        state.change(file, Change::Write(0, vec![1; 8])).expect("written");
        for node in [file, ROOT] {
            state.sync(node).expect("synced");
        }
        state.change(file, Change::Write(8, vec![2; 4])).expect("written");
        state.change(file, Change::Write(12, vec![3; 4])).expect("written");
        state.remove(ROOT, name).expect("removed");
        let image = tempfile::tempdir().expect("a folder");
        let mut seen = Vec::new();
        let mut rule = |path: &Path, change: Unsynced<'_>| {
            seen.push(format!("{} {change:?}", path.display()));
            if change == Unsynced::Written(12, 4) { Kept::First(3) } else { Kept::Nothing }
        };
        state.image(&mut Rule(&mut rule), image.path()).expect("an image");
        let kept = fs::read(image.path().join("file")).expect("the file");
        assert_eq!(kept, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 3, 3, 3]);
        assert_eq!(seen, [" Removed(\"file\")", "file Written(8, 4)", "file Written(12, 4)"]);
    }

    #[test]
    fn a_sync_without_room_fails_and_synced_blocks_keep_their_place() {
        let mut state = State::default();
        let file = state.make(ROOT, OsStr::new("file"), false).expect("made");
        state.change(file, Change::Write(0, vec![0; 5_000])).expect("written");
        state.limit(Some(1));
        assert_eq!(state.sync(file), Err(Failure::NoRoom));
        state.limit(Some(2));
        assert_eq!(state.sync(file), Ok(()));
        state.change(file, Change::Write(100, vec![1; 8_000])).expect("written");
        assert_eq!(state.sync(file), Ok(()));
        state.change(file, Change::Write(8_192, vec![1])).expect("written");
        assert_eq!(state.sync(file), Err(Failure::NoRoom));
    }
}
