//! What lies in a server's mailboxes and what it gave up, asked for over HTTP and by the commands
//! pointed at its folder, while it runs and when it is stopped; and what a person decides about it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Program, World, output};

const NOWHERE: &str = "http://127.0.0.1:9";

/// A server that two agents know: one sends notes, the other one refuses some for good.
struct Place {
    world: World,
    server: Program,
    folder: PathBuf,
}

impl Place {
    fn new() -> Self {
        let world = World::new();
        let server = world.server("server", 0);
        let folder = world.path("server");
        let place = Self { world, server, folder };
        for agent in ["writer", "reader"] {
            place.say(&json!({"message_type": "register", "agent_id": agent}));
        }
        place
    }

    fn say(&self, message: &Value) {
        let (code, answer) =
            self.world.post(&format!("{}/messages", self.server.address), message).expect("answer");
        assert_eq!(code, 202, "{answer}");
    }

    fn note(&self, id: &str) {
        self.say(&json!({"message_type": "review_note", "agent_id": "writer", "message_id": id,
            "to": "reader", "payload": {"text": id}}));
    }

    /// The reader refuses a note for good.
    fn refuse(&self, id: &str) {
        self.note(id);
        let error = json!({"code": "invalid_field", "message": format!("{id} is odd"),
            "retryable": false});
        self.say(&json!({"message_type": "nack", "agent_id": "reader",
            "payload": {"message_id": id, "error": error}}));
        assert_eq!(self.get(&format!("/messages/{id}"))["status"], "failed");
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("{}/api/openclaw{path}", self.server.address);
        self.world.get(&url).unwrap_or_else(|| panic!("an answer of {path}"))
    }

    fn ids(&self, query: &str) -> Vec<String> {
        let page = self.get(&format!("/messages?{query}"));
        let ids = page["messages"].as_array().expect("messages").iter();
        ids.map(|row| row["message_id"].as_str().expect("an id").to_owned()).collect()
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/openclaw{path}", self.server.address);
        self.world.post(&url, body).expect("an answer")
    }

    /// A command that is pointed at the server's folder.
    fn ask(&self, words: &str) -> (Option<i32>, String, String) {
        let mut command = self.world.loki("one", NOWHERE);
        output(command.arg("--data-dir").arg(&self.folder).args(words.split(' ')))
    }

    /// The ids in the reader's mailbox.
    fn mailbox(&self, wait: u8) -> Vec<String> {
        let notes = self.mail("reader", wait);
        let notes = notes.iter().filter(|one| one["message_type"] == "review_note");
        notes.map(|one| one["message_id"].as_str().expect("an id").to_owned()).collect()
    }

    /// What the writer was told to be undelivered.
    fn given_back(&self) -> Vec<String> {
        let nacks = self.mail("writer", 0).into_iter();
        let nacks = nacks.filter(|one| one["payload"]["error"]["code"] == "undeliverable");
        nacks.map(|one| one["correlation_id"].as_str().expect("an id").to_owned()).collect()
    }

    fn mail(&self, agent: &str, wait: u8) -> Vec<Value> {
        let path = format!("/messages?agent_id={agent}&wait={wait}");
        let mail = self.world.get(&format!("{}{path}", self.server.address)).expect("mail");
        mail["messages"].as_array().expect("messages").clone()
    }
}

#[test]
fn a_server_lists_its_messages_and_tells_the_life_of_one() {
    let place = Place::new();
    place.note("note-1");
    place.refuse("odd-1");
    place.refuse("odd-2");
    let of_reader = "type=review_note&direction=outbound";
    assert_eq!(place.ids(&format!("{of_reader}&peer=reader")), ["odd-2", "odd-1", "note-1"]);
    assert_eq!(place.ids(&format!("{of_reader}&status=pending")), ["note-1"]);
    assert_eq!(place.ids(&format!("{of_reader}&namespace=other")), [""; 0]);
    let first = place.get(&format!("/messages?{of_reader}&limit=2"));
    let after = format!("{of_reader}&after={}", first["next"].as_str().expect("more"));
    assert_eq!(place.ids(&after), ["note-1"]);
    assert_eq!(first["damage"], json!([]));

    let life = place.get("/messages/odd-1");
    assert_eq!((&life["payload"]["text"], &life["peer"]), (&json!("odd-1"), &json!("reader")));
    let steps = life["history"].as_array().expect("steps").iter();
    let events: Vec<_> = steps.map(|step| step["event"].as_str().expect("an event")).collect();
    assert_eq!(events, ["message.queued", "message.failed"]);
    let why = place.get("/messages/odd-1/explain")["explanation"].to_string();
    assert!(why.contains("permanent") && why.contains("odd-1 is odd"), "{why}");
    let why = place.get("/messages/note-1/explain")["explanation"].to_string();
    assert!(why.contains("it lies in the mailbox of reader"), "{why}");

    let (code, listed, talk) = place.ask("openclaw messages --json --namespace default");
    assert_eq!((code, listed.lines().count()), (Some(0), place.ids("").len()), "{talk}");
    let (code, listed, _) = place.ask("openclaw messages --json --namespace other");
    assert_eq!((code, listed.as_str()), (Some(0), ""));

    let causes = place.get("/causes");
    assert_eq!(
        (&causes["messages"], causes["causes"].as_array().map(Vec::len)),
        (&2.into(), Some(1))
    );
    for (path, body, code) in [
        ("/retry", json!({"status": "pending"}), 400),
        ("/retry", json!({"message_ids": ["nobody"]}), 404),
        ("/retry", json!({"message_ids": ["note-1"]}), 409),
        ("/prune", json!({"statos": "failed"}), 400),
    ] {
        let (found, answer) = place.post(path, &body);
        assert_eq!(found, code, "{answer}");
        assert!(answer["detail"].is_string(), "{answer}");
    }
    let missing = place.world.get(&format!("{}/api/openclaw/messages/x", place.server.address));
    assert_eq!(missing, None);
    assert_eq!(place.server.stop(), Some(0));
}

#[test]
fn a_servers_dead_letters_are_sent_again_and_pruned_running_and_stopped() {
    let mut place = Place::new();
    for id in ["odd-1", "odd-2", "odd-3", "odd-4"] {
        place.refuse(id);
    }
    assert_eq!(place.mailbox(0), [""; 0]);
    // Who waits for the mailbox is told at once.
    let again = json!({"message_ids": ["odd-1"], "actor": "ada"});
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| place.mailbox(60));
        assert_eq!(place.post("/retry", &again).1["retried"], 1);
        assert_eq!(waits.join().expect("the mailbox"), ["odd-1"]);
    });
    let life = place.get("/messages/odd-1");
    assert_eq!((&life["status"], &life["history"][2]["actor"]), (&"pending".into(), &"ada".into()));
    let (code, _, talk) = place.ask("openclaw retry odd-2");
    assert_eq!((code, place.mailbox(0).len()), (Some(0), 2), "{talk}");
    let (code, told, talk) = place.ask("openclaw prune odd-3");
    assert_eq!((code, told.trim()), (Some(0), "1 message pruned"), "{talk}");
    assert_eq!(place.get("/messages/odd-3")["status"], "pruned");

    // Whoever sent a note is told, once, that it is not delivered.
    let all_odd = ["odd-1", "odd-2", "odd-3", "odd-4"];
    assert_eq!(place.given_back(), all_odd);
    place.note("note-1");
    place.note("note-2");
    assert_eq!(place.post("/prune", &json!({"message_ids": ["note-1"]})).1["pruned"], 1);
    assert_eq!(place.given_back()[4..], ["note-1"]);

    let port = place.server.port();
    let Place { world, server, folder } = place;
    assert_eq!(server.stop(), Some(0));
    let ask = |words: &str| {
        let mut command = world.loki("one", NOWHERE);
        output(command.arg("--data-dir").arg(&folder).args(words.split(' ')))
    };
    let (code, told, talk) = ask("openclaw retry");
    assert_eq!(
        (code, told.trim()),
        (Some(0), "1 message is sent again at the next start"),
        "{talk}"
    );
    assert_eq!(ask("openclaw prune note-2").0, Some(0));
    assert_eq!(ask("openclaw pause").0, Some(2), "a server holds mailboxes by its API");
    assert!(!folder.join("agent_id").exists(), "a server needs no id");
    let server = world.server("server", port);
    // An agent that comes by WebSocket takes all three.
    let bridge = world.bridge("two", &server.address, "reader");
    place = Place { world, server, folder };
    place.world.wait("the notes to be taken", || {
        let delivered = place.ids("type=review_note&direction=outbound&status=delivered");
        (delivered.len() == 3).then_some(())
    });
    assert_eq!(place.given_back()[4..], ["note-1", "note-2"]);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(place.server.stop(), Some(0));
}
