//! Event, completion, send and receive queues.
