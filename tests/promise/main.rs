//! The promise, through the real programs: each test starts `loki` and `openclaw-server` as a user
//! would, on loopback and free ports, in a temporary folder.

mod audit;
mod carriers;
mod checks;
mod clients;
mod commands;
mod crash;
mod delivery;
mod disk;
mod durable;
mod ending;
mod full;
mod garbage;
mod growth;
mod hostile;
mod letters;
mod link;
mod observed;
mod outage;
mod power;
mod proxy;
mod refusals;
mod rollback;
mod rows;
mod seed;
mod stopped;
mod stopping;
mod store;
mod support;
mod syslog;
mod tasks;
mod terminal;
mod traffic;
mod units;
mod verify;
mod way;
