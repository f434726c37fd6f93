//! Carries envelopes over WebSocket or HTTP. Decides nothing about retry or storage.
