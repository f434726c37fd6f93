//! The promise, through the real programs: each test starts `loki` and `openclaw-server` as a user
//! would, on loopback and free ports, in a temporary folder.

mod clients;
mod crash;
mod delivery;
mod disk;
mod durable;
mod garbage;
mod hostile;
mod link;
mod outage;
mod refusals;
mod rows;
mod seed;
mod support;
mod tasks;
mod traffic;
