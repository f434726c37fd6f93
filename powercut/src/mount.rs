//! The disk as FUSE sees it: each call goes to the state, failures become error numbers. Nothing is
//! cached by the kernel that would hide a write.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use crate::content::Change;
use crate::state::{Facts, Failure, State};

/// How long the kernel may remember a name or a length: not at all.
const TTL: Duration = Duration::ZERO;

/// What the disk says of its size, in blocks of 4,096 bytes: 16 GiB, never full.
const BLOCKS: u64 = 4 << 20;
const BLOCK: u32 = 4_096;

pub(crate) struct Mounted(pub(crate) Arc<Mutex<State>>);

fn error(failure: Failure) -> Errno {
    match failure {
        Failure::Dead => Errno::EIO,
        Failure::Missing => Errno::ENOENT,
        Failure::Exists => Errno::EEXIST,
        Failure::NotEmpty => Errno::ENOTEMPTY,
        Failure::NotSupported => Errno::EXDEV,
        Failure::NoRoom => Errno::ENOSPC,
    }
}

fn attributes(node: u64, facts: Facts) -> FileAttr {
    let (kind, perm, nlink) = if facts.is_folder {
        (FileType::Directory, 0o755, 2)
    } else {
        (FileType::RegularFile, 0o644, 1)
    };
    FileAttr {
        ino: INodeNo(node),
        size: facts.length,
        blocks: facts.length.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

impl Mounted {
    fn attributes(&self, node: u64) -> Result<FileAttr, Failure> {
        Ok(attributes(node, self.0.lock().facts(node)?))
    }

    fn entry(&self, node: Result<u64, Failure>, reply: ReplyEntry) {
        match node.and_then(|node| self.attributes(node)) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(failure) => reply.error(error(failure)),
        }
    }
}

fn empty(done: Result<(), Failure>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(failure) => reply.error(error(failure)),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.lock().look_up(parent.0, name);
        self.entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(failure) => reply.error(error(failure)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = |size| self.0.lock().change(ino.0, Change::Length(size));
        match size.map_or(Ok(()), change).and_then(|()| self.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(failure) => reply.error(error(failure)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.lock().make(parent.0, name, true);
        self.entry(made, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.0.lock().make(parent.0, name, false);
        match made.and_then(|node| self.attributes(node)) {
            Ok(attributes) => {
                let flags = FopenFlags::empty();
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(failure) => reply.error(error(failure)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.lock().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.lock().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(self.0.lock().rename((parent.0, name), (new_parent.0, new_name)), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.lock().facts(ino.0) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(failure) => reply.error(error(failure)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(failure) => reply.error(error(failure)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().change(ino.0, Change::Write(offset, data.to_vec())) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(failure) => reply.error(error(failure)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut state = self.0.lock();
        let end = offset.saturating_add(length);
        let grown = state.facts(ino.0).and_then(|facts| {
            if facts.length < end { state.change(ino.0, Change::Length(end)) } else { Ok(()) }
        });
        empty(grown, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The kernel then asks no more: a process that ends with a file open here would wait for an
        // answer that its own thread cannot give.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.lock().sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.lock().sync(ino.0), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.0.lock();
        let entries = match state.list(ino.0) {
            Ok(entries) => entries,
            Err(failure) => return reply.error(error(failure)),
        };
        let dots = [".", ".."].map(|name| (name.into(), ino.0));
        let all = dots.into_iter().chain(entries);
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, node)) in (1_u64..).zip(all).skip(skip) {
            let is_folder = state.facts(node).is_ok_and(|facts| facts.is_folder);
            let kind = if is_folder { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(node), at, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 0, 0, BLOCK, 255, BLOCK);
    }
}
