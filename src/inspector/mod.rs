//! What people ask of a store's messages, the same of a bridge and of a server, whether the program
//! runs or not. It changes no message by itself and knows no route.

pub mod answer;
pub mod rot;
