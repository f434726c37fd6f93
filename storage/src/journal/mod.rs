//! The journal in memory, until the one on disk is here.
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyRef {
    pub sequence: u64,
    pub offset: u32,
    pub len: u32,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexKeys {
    pub event: u16,
    pub actor: u64,
    pub id: Option<u128>,
}
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub head: &'a [u8],
    pub body: Option<&'a [u8]>,
    pub index: IndexKeys,
}
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub epoch: u32,
    pub sequence: u64,
}
pub struct Appended {
    pub position: Position,
    pub hash: [u8; 32],
    pub bodies: Vec<Option<BodyRef>>,
}
#[derive(Debug, thiserror::Error)]
#[error("append")]
pub struct AppendError;
#[derive(Debug, thiserror::Error)]
#[error("read")]
pub struct ReadError;
pub trait Log: Send {
    fn append(&mut self, time: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError>;
    fn sync(&mut self) -> Result<Position, AppendError>;
}
#[derive(Clone, Default)]
pub struct Reader(Arc<RwLock<BTreeMap<u64, Vec<u8>>>>);
impl Reader {
    pub fn body(&self, at: &BodyRef) -> Result<Vec<u8>, ReadError> {
        let all = self.0.read();
        let area = all.get(&at.sequence).ok_or(ReadError)?;
        area.get(at.offset as usize..(at.offset + at.len) as usize)
            .map(<[u8]>::to_vec)
            .ok_or(ReadError)
    }
}
#[derive(Default)]
pub struct MemoryLog {
    reader: Reader,
    sequence: u64,
}
impl MemoryLog {
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }
}
impl Log for MemoryLog {
    fn append(&mut self, _: u64, entries: &[Entry<'_>]) -> Result<Appended, AppendError> {
        self.sequence += 1;
        let mut area = Vec::new();
        let bodies = entries
            .iter()
            .map(|e| {
                e.body.map(|b| {
                    let r = BodyRef {
                        sequence: self.sequence,
                        offset: area.len() as u32,
                        len: b.len() as u32,
                    };
                    area.extend_from_slice(b);
                    r
                })
            })
            .collect();
        self.reader.0.write().insert(self.sequence, area);
        Ok(Appended {
            position: Position { epoch: 1, sequence: self.sequence },
            hash: [0; 32],
            bodies,
        })
    }
    fn sync(&mut self) -> Result<Position, AppendError> {
        Ok(Position { epoch: 1, sequence: self.sequence })
    }
}
