//! A bad network: a TCP proxy that delays, stalls, closes, half-closes and resets connections, also
//! in the middle of a frame, and that repeats or drops whole frames of a WebSocket and whole
//! requests. What happens to the n-th connection follows from the seed. It knows nothing of what
//! they say.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::Duration;

use loki_openclaw::clock::Clock;
use parking_lot::Mutex;

use crate::units::{Unit, Units};

/// Bytes that leave at once, so that a frame arrives in pieces.
const PIECE_BYTES_MAX: u64 = 4_096;

/// Bytes in one direction before something happens to the connection.
const HARMLESS_BYTES_MAX: u64 = 16 * 1_024;

/// Delay of a piece.
const DELAY_MILLIS_MAX: u64 = 15;

/// A connection that stalls goes on after this time at the latest.
const STALL_MILLIS_MAX: u64 = 4_000;

/// One of so many frames and requests is passed on twice.
const TWICE_EVERY: u64 = 8;

/// One of so many is not passed on at all.
const NEVER_EVERY: u64 = 48;

/// How long the server may take to answer a request that nobody waits for.
const REPEATED_MAX: Duration = Duration::from_secs(5);

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
    repeated: AtomicU64,
    dropped: AtomicU64,
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
            repeated: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
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

    /// From now on it only passes on. What it broke stays broken, and what is open now ends, so
    /// that nobody waits for what it dropped.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::SeqCst);
        for pair in self.shared.open.lock().iter().filter_map(Weak::upgrade) {
            pair.shut(Shutdown::Both);
        }
    }

    /// How many frames and requests it passed on twice, and how many not at all.
    pub fn repeated_and_dropped(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (count(&self.shared.repeated), count(&self.shared.dropped))
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
    let mut left = 1 + chance.draw(HARMLESS_BYTES_MAX);
    let mut units = Units::new(upwards);
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES_MAX).expect("a piece")];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if pair.broken.load(Ordering::SeqCst) {
            break;
        }
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            break;
        }
        let calm = shared.calm.load(Ordering::SeqCst);
        let mut bytes = Vec::new();
        for unit in units.feed(&buffer[..read]) {
            let fate = if calm { Fate::Once } else { fate(&unit, chance) };
            match (fate, &unit) {
                (Fate::Once, unit) => bytes.extend_from_slice(unit.bytes()),
                (Fate::Twice, Unit::Request(request)) => {
                    shared.repeated.fetch_add(1, Ordering::SeqCst);
                    repeat(shared.target, request.clone());
                    bytes.extend_from_slice(request);
                }
                (Fate::Twice, unit) => {
                    shared.repeated.fetch_add(1, Ordering::SeqCst);
                    bytes.extend_from_slice(&[unit.bytes(), unit.bytes()].concat());
                }
                (Fate::Never, unit) => {
                    shared.dropped.fetch_add(1, Ordering::SeqCst);
                    if matches!(unit, Unit::Request(_)) {
                        // Who asked sees an end without an answer.
                        pair.shut(Shutdown::Both);
                    }
                }
            }
        }
        let sent = if calm {
            to.write_all(&bytes).is_ok()
        } else {
            send(shared, pair, to, &bytes, &mut left, chance)
        };
        if !sent {
            break;
        }
    }
}

/// What becomes of a unit.
#[derive(Clone, Copy)]
enum Fate {
    Once,
    Twice,
    Never,
}

fn fate(unit: &Unit, chance: &Clock) -> Fate {
    let one_in = |every: u64| chance.draw(every - 1) == 0;
    match unit {
        Unit::Bytes(_) => Fate::Once,
        _ if one_in(TWICE_EVERY) => Fate::Twice,
        _ if one_in(NEVER_EVERY) => Fate::Never,
        _ => Fate::Once,
    }
}

/// Sends a request once more, by a connection of its own; nobody waits for the answer.
fn repeat(target: SocketAddr, request: Vec<u8>) {
    let work = move || {
        let Ok(mut server) = TcpStream::connect(target) else { return };
        let _ = server.set_read_timeout(Some(REPEATED_MAX));
        if server.write_all(&request).is_ok() {
            let _ = server.read(&mut [0; 64]);
        }
    };
    // It ends with its answer, or when that takes too long.
    drop(Builder::new().name("link repeat".into()).spawn(work).expect("a thread"));
}

/// Passes bytes on in delayed pieces, and does harm after some; says whether it goes on.
fn send(
    shared: &Shared,
    pair: &Pair,
    mut to: &TcpStream,
    bytes: &[u8],
    left: &mut u64,
    chance: &Clock,
) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let bound = (1 + chance.draw(PIECE_BYTES_MAX - 1)).min(*left);
        let now = rest.len().min(usize::try_from(bound).expect("a piece"));
        park_timeout(Duration::from_millis(chance.draw(DELAY_MILLIS_MAX)));
        if to.write_all(&rest[..now]).is_err() {
            pair.shut(Shutdown::Both);
            return false;
        }
        rest = &rest[now..];
        *left -= now as u64;
        if *left == 0 {
            if !harm(shared, pair, to, chance) {
                return false;
            }
            *left = 1 + chance.draw(HARMLESS_BYTES_MAX);
        }
    }
    true
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
