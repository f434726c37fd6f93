//! Salts of bodies. Random bytes are asked of the system by the page, as one call for each message
//! would cost as much as its digest. A salt is used once.

use std::cell::RefCell;

/// Bytes of a salt.
pub(crate) const SALT_BYTES: usize = 16;

/// Salts that one call of the system gives.
const SALTS_AT_ONCE: usize = 256;

/// Random bytes of one thread, taken from the end.
struct Pool(Vec<u8>);

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool(Vec::new())) };
}

/// A salt that nobody else has.
pub(crate) fn fresh() -> [u8; SALT_BYTES] {
    POOL.with_borrow_mut(Pool::take)
}

impl Pool {
    fn take(&mut self) -> [u8; SALT_BYTES] {
        if self.0.len() < SALT_BYTES {
            self.0 = random(SALT_BYTES * SALTS_AT_ONCE);
        }
        let mut salt = [0; SALT_BYTES];
        let from = self.0.len().saturating_sub(SALT_BYTES);
        for (to, byte) in salt.iter_mut().zip(self.0.drain(from..)) {
            *to = byte;
        }
        salt
    }
}

/// Random bytes, as many as the system gives at once. When it gives too few even for one salt, that
/// one is of zeros: a digest is then as good as an unsalted one.
fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let flags = rustix::rand::GetRandomFlags::empty();
    let given = rustix::rand::getrandom(&mut bytes[..], flags).unwrap_or(0);
    bytes.truncate(given.max(SALT_BYTES));
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{SALTS_AT_ONCE, fresh};

    #[test]
    fn no_two_salts_are_alike_on_any_thread() {
        let many = || (0..SALTS_AT_ONCE * 3).map(|_| fresh()).collect::<Vec<_>>();
        let mut all = many();
        all.extend(std::thread::scope(|scope| scope.spawn(many).join().unwrap()));
        let distinct: HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|salt| salt.iter().any(|byte| *byte != 0)));
    }
}
