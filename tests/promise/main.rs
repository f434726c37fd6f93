//! The promise, through the real programs: each test starts `loki` and `openclaw-server` as a user
//! would, on loopback and free ports, in a temporary folder.

mod audit;
mod carriers;
mod checks;
mod commands;
mod crash;
mod delivery;
mod ending;
mod observed;
mod proxy;
mod refusals;
mod rows;
mod seed;
mod stopped;
mod support;
mod tasks;
mod terminal;
mod way;
