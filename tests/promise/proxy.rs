//! Something between the two programs, as companies have it: passes requests on, or does not. It
//! knows enough HTTP to read one request of a connection, and nothing of the protocol.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

/// A connection that says nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// What the proxy answers itself: the text of a whole response; `None` passes the request on.
pub type Rule = Box<dyn Fn(&str) -> Option<String> + Send>;

struct Shared {
    target: String,
    rule: Mutex<Rule>,
    seen: Mutex<Vec<String>>,
    is_over: Mutex<bool>,
}

/// A running proxy. Dropped, it takes no more connections.
pub struct Proxy {
    /// Its base URL.
    pub address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A response with this status and no content.
pub fn response(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
}

/// The request asks for a WebSocket.
pub fn is_upgrade(request: &str) -> bool {
    request.to_ascii_lowercase().contains("upgrade: websocket")
}

impl Proxy {
    /// Before a server at this base URL.
    pub fn start(target: &str, rule: Rule) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            target: target.trim_start_matches("http://").to_owned(),
            rule: Mutex::new(rule),
            seen: Mutex::default(),
            is_over: Mutex::new(false),
        });
        let inner = Arc::clone(&shared);
        let acceptor = Builder::new().spawn(move || accept(&listener, &inner)).expect("a thread");
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Answers by another rule from now on.
    pub fn set(&self, rule: Rule) {
        *self.shared.rule.lock() = rule;
    }

    /// The first lines of all requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.shared.is_over.lock() = true;
        // Wakes the acceptor, which looks whether it is over.
        drop(TcpStream::connect(self.address.trim_start_matches("http://")));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor ends");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if *shared.is_over.lock() {
            return;
        }
        let (Ok(client), inner) = (connection, Arc::clone(shared)) else { continue };
        // It ends with its connection, which either side gives up.
        Builder::new().spawn(move || drop(serve(client, &inner))).expect("a thread");
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_read_timeout(Some(SILENCE_MAX))?;
    let request = read(&mut client)?;
    let text = String::from_utf8_lossy(&request).into_owned();
    shared.seen.lock().push(text.lines().next().unwrap_or_default().to_owned());
    if let Some(answer) = (shared.rule.lock())(&text) {
        return client.write_all(answer.as_bytes());
    }
    let mut server = TcpStream::connect(&shared.target)?;
    server.set_read_timeout(Some(SILENCE_MAX))?;
    if text.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else if is_upgrade(&text) {
        server.write_all(&request)?;
    } else {
        // One request a connection, so that each is judged.
        let (line, rest) = text.split_once("\r\n").unwrap_or_default();
        server.write_all(format!("{line}\r\nconnection: close\r\n{rest}").as_bytes())?;
    }
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    let upwards = Builder::new().spawn(move || {
        // An error is the end of the connection, however it came about.
        let _ = io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Both);
    })?;
    let _ = io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    upwards.join().map_err(|_| io::Error::other("the other direction failed"))
}

/// A request with its content.
fn read(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|it| it.lines().next());
            let length: usize = length.and_then(|it| it.parse().ok()).unwrap_or(0);
            if request.len() >= head.len() + 4 + length {
                return Ok(request);
            }
        }
        match client.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
}
