//! The coordination server: registry, matching, tasks, mailboxes and its REST API.
