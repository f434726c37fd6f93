//! Wire types of OpenClaw 1.0: envelope, payloads, error codes. Knows no socket and no storage.
