//! The streams of Synapse, up to version 1.163.

/// The newest streams, the newest first. Of two versions, the older one may not have them.
const NEWEST: [&str; 4] = ["profile_updates", "quarantined_media", "sticky_events", "thread_subscriptions"];

/// The other streams of Synapse 1.163.
const OTHERS: [&str; 15] = [
    "account_data",
    "backfill",
    "caches",
    "device_lists",
    "events",
    "federation",
    "presence",
    "presence_federation",
    "push_rules",
    "pushers",
    "receipts",
    "to_device",
    "typing",
    "un_partial_stated_event",
    "un_partial_stated_room",
];

/// Streams that only earlier versions have.
const FORMER: [&str; 5] = ["current_state_deltas", "groups", "public_rooms", "tag_account_data", "user_signature"];

/// Streams that have one writer in every configuration, or that only the main process writes.
pub(super) const OF_ONE_WRITER: [&str; 10] = [
    "account_data",
    "federation",
    "presence",
    "presence_federation",
    "push_rules",
    "pushers",
    "to_device",
    "typing",
    "un_partial_stated_event",
    "un_partial_stated_room",
];

/// Streams that every event persister writes, besides `events`.
pub(super) const OF_EVENT_PERSISTERS: [&str; 3] = ["backfill", "profile_updates", "sticky_events"];

/// Streams that are kept in memory. They begin again when the process that writes them is restarted.
pub(super) const IN_MEMORY: [&str; 3] = ["typing", "federation", "presence_federation"];

/// Returns the streams of Synapse 1.163.
pub(super) fn current() -> impl Iterator<Item = &'static str> {
    NEWEST.into_iter().chain(OTHERS)
}

/// Returns true if Synapse 1.163 or an earlier version has the stream.
pub(super) fn is_known(stream: &str) -> bool {
    current().chain(FORMER).any(|known| known == stream)
}

/// Returns how many of the newest streams are newer than this one, if it is one of them.
pub(super) fn newer_than(stream: &str) -> Option<usize> {
    NEWEST.iter().position(|newest| *newest == stream)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use squall_protocol::rows::{self, v1_19};

    #[test]
    fn every_list_names_known_streams() {
        for stream in OF_ONE_WRITER.iter().chain(&OF_EVENT_PERSISTERS).chain(&IN_MEMORY) {
            assert!(current().any(|current| current == *stream), "{stream}");
        }
        assert_eq!(BTreeSet::from_iter(current()), BTreeSet::from(rows::NAMES));
        assert!(v1_19::NAMES.into_iter().all(is_known));
        assert!(is_known("groups") && current().all(|stream| stream != "groups"));
        assert!(!is_known("nonesuch"));
    }

    #[test]
    fn the_newest_stream_has_none_that_are_newer() {
        assert_eq!(["profile_updates", "sticky_events", "events"].map(newer_than), [Some(0), Some(2), None]);
    }
}
