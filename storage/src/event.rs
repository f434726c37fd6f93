//! The names of the audit events and their numbers on disk. A number is never used again.

use std::fmt;

use bincode::{Decode, Encode};

macro_rules! events {
    ($($variant:ident = $code:literal, $name:literal;)*) => {
        /// An audit event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
        pub struct Event(u16);

        #[expect(non_upper_case_globals, missing_docs, reason = "the name says it")]
        impl Event {
            $(pub const $variant: Self = Self($code);)*

            /// Every event that this program knows.
            pub const ALL: &'static [Self] = &[$(Self($code)),*];

            /// Its name; one of a newer program is `unknown`.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($code => $name,)*
                    _ => "unknown",
                }
            }
        }
    };
}

events! {
    Connect = 1, "openclaw.connect";
    Disconnect = 2, "openclaw.disconnect";
    Register = 3, "openclaw.register";
    Heartbeat = 4, "openclaw.heartbeat";
    MessageQueued = 10, "message.queued";
    MessageSent = 11, "message.sent";
    MessageDelivered = 12, "message.delivered";
    MessageRetry = 13, "message.retry";
    MessageFailed = 14, "message.failed";
    MessageExpired = 15, "message.expired";
    MessageReceived = 16, "message.received";
    MessageProcessed = 17, "message.processed";
    MessageRejected = 18, "message.rejected";
    MessageDuplicate = 19, "message.duplicate";
    MessageHeld = 20, "message.held";
    MessageReleased = 21, "message.released";
    MessagePruned = 22, "message.pruned";
    TaskCreate = 30, "task.create";
    TaskOffer = 31, "task.offer";
    TaskAccept = 32, "task.accept";
    TaskReject = 33, "task.reject";
    TaskStart = 34, "task.start";
    TaskUpdate = 35, "task.update";
    TaskComplete = 36, "task.complete";
    TaskFail = 37, "task.fail";
    TaskCancel = 38, "task.cancel";
    TaskExpire = 39, "task.expire";
    StateSync = 50, "state.sync";
    StateConflict = 51, "state.conflict";
    SessionStart = 60, "session.start";
    SessionStop = 61, "session.stop";
    SessionComplete = 62, "session.complete";
    SessionFail = 63, "session.fail";
    AuthTokenCreate = 70, "auth.token.create";
    AuthTokenUse = 71, "auth.token.use";
    AuthTokenRevoke = 72, "auth.token.revoke";
    AuthFail = 73, "auth.fail";
    PermissionDenied = 74, "permission.denied";
    KeyRotate = 80, "key.rotate";
    StoreOpen = 90, "store.open";
    StoreRecover = 91, "store.recover";
    StoreRebuild = 92, "store.rebuild";
    StoreCompact = 93, "store.compact";
    StoreMigrate = 94, "store.migrate";
    StoreRollback = 95, "store.rollback";
    StoreDamage = 96, "store.damage";
    StoreForget = 97, "store.forget";
    StoreFull = 98, "store.full";
    StoreRoom = 99, "store.room";
    ConfigLoad = 100, "config.load";
    StoreTrim = 101, "store.trim";
    StoreCarry = 102, "store.carry";
    StoreWitness = 105, "store.witness";
    StoreImport = 106, "store.import";
    AuditSign = 110, "audit.sign";
}

impl Event {
    /// Its number on disk.
    pub fn code(self) -> u16 {
        self.0
    }

    /// The event of a name, or `None`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.name() == name)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
