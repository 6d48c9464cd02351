//! Instances that connect to each other.

use crate::deployment::Deployment;
use crate::{rows, run};

#[test]
fn rows_of_all_writers_arrive_complete_and_in_order() {
    run(rows::rows_of_all_writers_arrive_complete_and_in_order(Deployment::new("tcp-arrive", None)));
}

#[test]
fn a_burst_is_streamed_to_its_end() {
    run(rows::a_burst_is_streamed_to_its_end(Deployment::new("tcp-burst", None)));
}

#[test]
fn a_worker_that_was_stopped_catches_up() {
    run(rows::a_worker_that_was_stopped_catches_up(Deployment::new("tcp-worker", None)));
}

#[test]
fn a_writer_that_was_stopped_goes_on_with_higher_tokens() {
    run(rows::a_writer_that_was_stopped_goes_on_with_higher_tokens(Deployment::new("tcp-writer", None)));
}

#[test]
fn users_of_a_worker_that_stops_no_longer_sync() {
    run(rows::users_of_a_worker_that_stops_no_longer_sync(Deployment::new("tcp-syncs", None)));
}
