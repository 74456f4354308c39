//! What every store promises, each promise written once and run on every store.
//!
//! A failing case panics. `cargo test -p ropeway-store` runs the list over all stores of this crate.

#![allow(clippy::unwrap_used, reason = "a case that fails panics")]

mod absorb;
mod audiences;
mod epochs;
mod feed;
pub mod hand;
mod needs;
mod outbox;
mod plans;
mod purge;
mod quarantine;
mod registry;
mod spaces;
mod writers;

pub use crate::columns::{Known, known};

use crate::Stored;
use async_trait::async_trait;
use ropeway_core::time::Time;
use std::{future::Future, pin::Pin};

/// A database to run a case on, empty at the beginning.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens it; a second time while the first is still open, as another process would.
    async fn open(&self) -> Stored;
    /// The same as a node that follows an upstream. Called instead of [`Self::open`], never beside it.
    async fn open_following(&self) -> Stored;
    /// An image of it as it is now, taken while it is open, in another place.
    async fn image(&self, now: Time) -> On;
}

/// What a case runs on.
pub type On = Box<dyn Place>;

/// A running case.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One promise.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its group and name: `feed::pages_in_stamp_order`.
    pub name: &'static str,
    /// Runs it; it panics when the promise is broken. Needs a tokio runtime of several threads.
    pub run: fn(On) -> Running,
}

macro_rules! list {
    ($($group:ident: $($case:ident),+ $(,)?;)+) => {
        vec![$($(Case {
            name: concat!(stringify!($group), "::", stringify!($case)),
            run: |on| Box::pin($group::$case(on)),
        }),+),+]
    };
}

/// All promises.
pub fn cases() -> Vec<Case> {
    list! {
        spaces: opening_is_idempotent, an_unknown_space_is_named, spaces_see_nothing_of_each_other,
            what_is_written_is_there_after_reopening, sound_and_sized;
        plans: records_round_trip, local_ids_count_within_a_space, history_is_newest_first,
            receipts_are_found_again, prints_are_found_within_their_window, links_are_found_by_parent,
            forgotten_rows_leave_no_trace, an_idle_plan_writes_nothing, quiet_rows_reach_no_reader,
            a_faulty_plan_writes_nothing, digest_equals_a_recomputation;
        needs: only_what_is_missing_is_loaded, what_is_shared_is_read_beside_the_space, asking_without_end_is_a_fault, asking_again_is_a_fault,
            the_snapshot_is_exactly_what_was_asked, survivors_come_with_joined_records,
            a_panic_kills_nothing, clock_head_and_counters_are_given;
        feed: pages_in_stamp_order, large_records_make_short_pages, each_record_once_at_its_newest_stamp, tombstones_and_joins_are_fed,
            collections_are_chosen, an_empty_space_is_complete, lists_are_in_id_order, collections_are_those_that_have_records,
            contested_records_are_counted,
            readers_miss_nothing_while_others_write;
        outbox: entries_round_trip, entries_are_listed_by_state, entries_are_found_by_record_and_number,
            batches_are_sealed_until_answered;
        writers: two_stores_lose_nothing, single_changes_from_many_tasks, a_failing_neighbour_harms_nobody,
            a_caller_that_goes_leaves_no_half, each_sees_what_the_one_before_wrote;
        absorb: everything_at_once, rows_come_in_staging_order, conflicts_come_after_what_they_are_about, reached_entries_are_settled,
            settling_without_progress_is_a_fault, staging_resumes_and_is_replaced, a_failed_step_undoes_all,
            a_first_pull_is_seen_when_it_is_complete, a_failed_portion_undoes_itself, an_empty_pull_moves_the_cursor, pulling_anew_keeps_all_but_the_cursor,
            what_does_not_come_again_is_listed;
        epochs: an_image_is_of_one_moment_and_begins_an_epoch, a_cursor_of_what_is_shared_is_worth_what_both_have,
            new_stamps_bring_the_head_back_to_the_clock_in_the_same_order, an_audit_finds_what_cannot_be_true,
            what_another_epoch_fed_is_listed;
        audiences: rows_are_kept_moved_and_purged, a_reader_is_told_what_enters_and_leaves,
            a_subscription_is_a_source_of_its_own, a_pull_from_the_beginning_names_each_record_once,
            a_readers_digest_is_over_what_they_see,
            what_is_not_asked_for_hides_nothing_behind_it;
        purge: tombstones_go_up_to_the_line_and_not_under_unsettled_work, what_a_question_or_a_joined_row_names_stays,
            receipts_go_by_their_stamp, a_version_counts_from_when_it_was_superseded, settled_entries_and_old_runs_go_by_their_time,
            a_dry_run_counts_the_same_and_changes_nothing;
        quarantine: work_is_kept_once_and_in_order_while_there_is_room,
            what_ends_is_noted_once_makes_room_and_goes_by_its_time;
        registry: devices_round_trip, members_round_trip, runs_are_newest_first,
            settings_swap_once, generation_moves_with_any_writer;
    }
}
