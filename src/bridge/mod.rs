//! The agent's side: session, tasks, shared state and the local REST API.

pub mod prd;
