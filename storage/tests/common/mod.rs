//! What tests of received messages share.

use storage::database::Database;
use storage::event::Event;
use storage::record::{Direction, MessageHead, Reason, Status};
use storage::transaction::{Act, Body};

/// A message that an agent sent here.
pub fn head(id: &str, status: Status) -> MessageHead {
    MessageHead {
        direction: Direction::Inbound,
        message_id: id.into(),
        message_type: "task_update".into(),
        namespace: "default".into(),
        peer: "agent".into(),
        destination: String::new(),
        sender: "agent".into(),
        lane: String::new(),
        priority: 2,
        created_at: 0,
        deadline: None,
        expires_at: None,
        task_id: None,
        correlation_id: None,
        retry_of: None,
        sealed: false,
        size: 4,
        digest: [0; 32],
        status,
        reason: Reason::None,
        due_at: 0,
    }
}

/// Accepts it with this body.
pub fn receive(database: &Database, id: &str, status: Status, body: &[u8]) {
    let (id, body) = (id.to_owned(), Body::new(body));
    let done = database.store().commit(move |transaction| -> Result<(), ()> {
        let act = Act::new(Event::MessageReceived, "agent", "default", &id);
        transaction.accept(act, head(&id, status), body);
        Ok(())
    });
    done.wait().expect("durable").expect("accepted");
}
