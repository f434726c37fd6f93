//! A bad network: a TCP proxy that delays, stalls, closes, half-closes and resets connections, also
//! in the middle of a frame. What happens to the n-th connection follows from the seed. It knows
//! nothing of the protocol.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::Duration;

use loki_openclaw::clock::Clock;
use parking_lot::Mutex;

/// Bytes that leave at once, so that a frame arrives in pieces.
const PIECE_BYTES_MAX: u64 = 4_096;

/// Bytes in one direction before something happens to the connection.
const HARMLESS_BYTES_MAX: u64 = 48 * 1_024;

/// Delay of a piece.
const DELAY_MILLIS_MAX: u64 = 15;

/// A connection that stalls goes on after this time at the latest.
const STALL_MILLIS_MAX: u64 = 4_000;

/// A running proxy. Dropped, it closes everything and waits for its threads.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    seed: u64,
    calm: AtomicBool,
    closing: AtomicBool,
    harms: AtomicU64,
    open: Mutex<Vec<Weak<Pair>>>,
}

/// One connection through the proxy.
struct Pair {
    near: TcpStream,
    far: TcpStream,
    broken: AtomicBool,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Nothing passes for a while, in this direction.
    Stall,
    /// Both sides see an orderly end.
    Close,
    /// Both sides see a reset.
    Reset,
    /// The receiver of this direction sees an end; the other direction goes on.
    HalfClose,
    /// Nothing passes any more in this direction, and nobody is told.
    Swallow,
}

const HARMS: [Harm; 5] = [Harm::Stall, Harm::Close, Harm::Reset, Harm::HalfClose, Harm::Swallow];

impl Link {
    /// Listens on a free port and passes on to `target`.
    pub fn new(target: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            seed,
            calm: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            harms: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let inner = Arc::clone(&shared);
        let acceptor = Builder::new().name("link".into()).spawn(move || accept(&listener, &inner));
        Self { address, shared, acceptor: Some(acceptor.expect("a thread")) }
    }

    /// The URL under which the target is reached through it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it only passes on; what it broke stays broken.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::SeqCst);
    }

    /// How often it did harm.
    pub fn harms(&self) -> u64 {
        self.shared.harms.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it has to end.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pipes = Vec::new();
    for (number, near) in (1_u64..).zip(listener.incoming()) {
        if shared.closing.load(Ordering::SeqCst) {
            break;
        }
        let Ok(near) = near else { continue };
        // An end that nobody listens at is an end of this connection only.
        let Ok(far) = TcpStream::connect(shared.target) else { continue };
        let pair = Arc::new(Pair { near, far, broken: AtomicBool::new(false) });
        shared.open.lock().push(Arc::downgrade(&pair));
        for upwards in [true, false] {
            let (shared, pair) = (Arc::clone(shared), Arc::clone(&pair));
            let chance = Clock::simulated(0, shared.seed ^ (number * 2 + u64::from(upwards)) << 20);
            let pipe = Builder::new().name("link pipe".into());
            let pipe = pipe.spawn(move || pass(&shared, &pair, upwards, &chance));
            pipes.push(pipe.expect("a thread"));
        }
        shared.open.lock().retain(|pair| pair.strong_count() > 0);
    }
    for pair in shared.open.lock().iter().filter_map(Weak::upgrade) {
        pair.shut(Shutdown::Both);
    }
    for pipe in pipes {
        let _ = pipe.join();
    }
}

impl Pair {
    fn shut(&self, how: Shutdown) {
        self.broken.store(true, Ordering::SeqCst);
        // Either may be closed already.
        let _ = self.near.shutdown(how);
        let _ = self.far.shutdown(how);
    }

    /// Arms both ends, so that closing them resets the connection, and wakes who reads from them.
    fn reset(&self) {
        for stream in [&self.near, &self.far] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.shut(Shutdown::Read);
    }
}

/// Passes one direction on until it ends or harm is done.
fn pass(shared: &Shared, pair: &Pair, upwards: bool, chance: &Clock) {
    let (mut from, mut to) =
        if upwards { (&pair.near, &pair.far) } else { (&pair.far, &pair.near) };
    let mut left = chance.draw(HARMLESS_BYTES_MAX);
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES_MAX).expect("a piece")];
    loop {
        let calm = shared.calm.load(Ordering::SeqCst);
        let bound = if calm { PIECE_BYTES_MAX } else { 1 + chance.draw(PIECE_BYTES_MAX - 1) };
        let bound = usize::try_from(bound).expect("a piece");
        let read = from.read(&mut buffer[..bound]).unwrap_or(0);
        if pair.broken.load(Ordering::SeqCst) {
            break;
        }
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            break;
        }
        let now = if calm { read } else { read.min(usize::try_from(left).expect("bytes")) };
        if !calm {
            park_timeout(Duration::from_millis(chance.draw(DELAY_MILLIS_MAX)));
        }
        if to.write_all(&buffer[..now]).is_err() {
            pair.shut(Shutdown::Both);
            break;
        }
        left = left.saturating_sub(now as u64);
        if now == read {
            continue;
        }
        if !harm(shared, pair, to, chance) || to.write_all(&buffer[now..read]).is_err() {
            break;
        }
        left = chance.draw(HARMLESS_BYTES_MAX);
    }
}

/// Does what was drawn; says whether this direction goes on.
fn harm(shared: &Shared, pair: &Pair, to: &TcpStream, chance: &Clock) -> bool {
    shared.harms.fetch_add(1, Ordering::SeqCst);
    let drawn = usize::try_from(chance.draw(HARMS.len() as u64 - 1)).expect("an index");
    match HARMS[drawn] {
        Harm::Stall => {
            park_timeout(Duration::from_millis(chance.draw(STALL_MILLIS_MAX)));
            return true;
        }
        Harm::Close => pair.shut(Shutdown::Both),
        Harm::Reset => pair.reset(),
        Harm::HalfClose => {
            let _ = to.shutdown(Shutdown::Write);
        }
        Harm::Swallow => {}
    }
    false
}
