//! The durable store of loki-openclaw: a journal that is the truth, a pure fold of it in memory,
//! and a view of it in sled. Sync code: no runtime, no protocol, no keys. The bytes are drawn in
//! `FORMAT.md`.

pub mod backup;
mod batch;
pub mod checkpoint;
pub mod codec;
pub mod commit;
pub mod database;
pub mod digest;
pub mod event;
pub mod fold;
pub mod format;
pub mod info;
pub mod inspect;
pub mod journal;
pub mod ledger;
pub mod messages;
pub mod queue;
pub mod record;
pub mod retention;
mod salt;
pub mod shred;
mod slab;
pub mod store;
mod table;
pub mod transaction;
mod trim;
pub mod view;
