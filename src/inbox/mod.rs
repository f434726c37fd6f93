//! Admits what arrives: the order of checks, deduplication, one outcome for each message.
