//! The state that the typing stream replicates: the users who are typing in each room.
//!
//! On the writer it changes by client requests and by time-outs, on a follower by rows. It does not depend on the
//! replication layer, which registers a listener for changes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::Instant;

use crate::limits::{LimitHit, TYPING_KEPT_MS};
use crate::observer::Observer;
use crate::tasks;
use squall_env::{Noop, TaskSpawner};
use squall_protocol::Token;
use squall_protocol::rows::{Row, TypingRow, Updates};

/// A listener that is called with each change on the writer.
pub(super) type OnChange = Box<dyn Fn(Token, &TypingRow)>;

/// The typing users of each room, with the number of the room's last change.
pub struct TypingHandler {
    /// Time for which a room without typing users is kept.
    kept: Duration,
    observer: Rc<dyn Observer>,
    state: RefCell<State>,
    resets: Cell<u64>,
    on_change: RefCell<Vec<OnChange>>,
}

#[derive(Default)]
struct State {
    serial: Token,
    /// The highest number of a room that was dropped.
    forgotten_upto: Token,
    rooms: BTreeMap<String, Room>,
}

struct Room {
    serial: Token,
    changed: Instant,
    /// The users with their time-outs. `None` on a follower: there the writer decides.
    users: IndexMap<String, Option<Instant>>,
}

impl Default for TypingHandler {
    /// Creates the empty state of a follower.
    fn default() -> Self {
        TypingHandler {
            kept: Duration::from_millis(TYPING_KEPT_MS),
            observer: Rc::new(Noop),
            state: RefCell::default(),
            resets: Cell::default(),
            on_change: RefCell::default(),
        }
    }
}

impl TypingHandler {
    /// Creates the empty state of the `run`-th run of the writer. A follower uses the [`Default`].
    pub fn on_writer(run: i64) -> Self {
        let beginning = Token::beginning_of(run);
        let state = State { serial: beginning, forgotten_upto: beginning, rooms: BTreeMap::new() };
        TypingHandler { state: RefCell::new(state), ..TypingHandler::default() }
    }

    /// Returns the handler with another time for which a room without typing users is kept, in milliseconds. A room that is
    /// dropped is reported to `observer`.
    pub fn with_typing_kept_ms(self, typing_kept_ms: u64, observer: Rc<dyn Observer>) -> Self {
        TypingHandler { kept: Duration::from_millis(typing_kept_ms), observer, ..self }
    }

    /// Calls `listener` after each change that is made here, but not for rows from the writer.
    pub fn on_change(&self, listener: OnChange) {
        self.on_change.borrow_mut().push(listener);
    }

    /// Returns the number of the last change.
    pub fn serial(&self) -> Token {
        self.state.borrow().serial
    }

    /// Returns the number of resets.
    pub fn resets(&self) -> u64 {
        self.resets.get()
    }

    /// Returns the highest number of a room that was dropped because it has no typing users. A reader from an earlier number
    /// may have missed that room's empty row.
    pub fn forgotten_upto(&self) -> Token {
        self.state.borrow().forgotten_upto
    }

    /// Returns the users who are typing in `room_id`, in the order they began.
    pub fn typing_in(&self, room_id: &str) -> Vec<String> {
        self.state.borrow().rooms.get(room_id).map(|room| room.users.keys().cloned().collect()).unwrap_or_default()
    }

    /// Marks a user as typing for `timeout`, unless this is called again for them. Only on the writer.
    pub fn started(self: &Rc<Self>, tasks: &TaskSpawner, room_id: &str, user_id: &str, timeout: Duration) -> Token {
        let until = Instant::now() + timeout;
        let is_new = {
            let mut state = self.state.borrow_mut();
            let room = state.room(room_id);
            room.users.insert(user_id.to_owned(), Some(until)).is_none()
        };
        let handler = Rc::clone(self);
        let room_id = room_id.to_owned();
        let user_id = user_id.to_owned();
        let token = if is_new { handler.changed(&room_id) } else { handler.serial() };
        tasks.spawn(tasks::TYPING_TIMEOUT, async move {
            tokio::time::sleep_until(until).await;
            handler.timed_out(&room_id, &user_id);
        });
        token
    }

    /// Marks a user as no longer typing. Only on the writer.
    pub fn stopped(&self, room_id: &str, user_id: &str) -> Token {
        let was_typing = self.state.borrow_mut().room(room_id).users.shift_remove(user_id).is_some();
        if was_typing { self.changed(room_id) } else { self.serial() }
    }

    fn timed_out(&self, room_id: &str, user_id: &str) {
        let is_over = |room: &Room| {
            room.users.get(user_id).is_some_and(|until| until.is_some_and(|until| until <= Instant::now()))
        };
        // A user who has typed again in the meantime has a later time-out.
        if self.state.borrow().rooms.get(room_id).is_some_and(is_over) {
            self.stopped(room_id, user_id);
        }
    }

    fn changed(&self, room_id: &str) -> Token {
        let (token, row) = {
            let mut state = self.state.borrow_mut();
            state.serial = state.serial.next();
            let token = state.serial;
            let room = state.room(room_id);
            (room.serial, room.changed) = (token, Instant::now());
            let row = TypingRow { room_id: room_id.to_owned(), user_ids: room.users.keys().cloned().collect() };
            self.drop_idle_rooms(&mut state);
            (token, row)
        };
        for listener in self.on_change.borrow().iter() {
            listener(token, &row);
        }
        token
    }

    /// Returns the newest row of each room that changed in `(from, upto]`, at most `rows_max` rows.
    ///
    /// The answer never reaches beyond the last change, even if `upto` does.
    pub fn updates(&self, from: Token, upto: Token, rows_max: usize) -> Updates {
        let state = self.state.borrow();
        let upto = upto.min(state.serial);
        let mut rows: Vec<(Token, Row)> = state
            .rooms
            .iter()
            .filter(|(_, room)| from < room.serial && room.serial <= upto)
            .map(|(room_id, room)| {
                let user_ids = room.users.keys().cloned().collect();
                (room.serial, Row::Typing(TypingRow { room_id: room_id.clone(), user_ids }))
            })
            .collect();
        rows.sort();
        let limited = rows.len() > rows_max;
        rows.truncate(rows_max);
        let upto = match rows.last() {
            Some((last, _)) if limited => *last,
            _ => upto,
        };
        Updates { rows, upto, limited }
    }

    /// Applies a row from the writer. Only on a follower.
    pub fn apply(&self, token: Token, row: &TypingRow) {
        let mut state = self.state.borrow_mut();
        let room = state.room(&row.room_id);
        (room.serial, room.changed) = (token, Instant::now());
        room.users = row.user_ids.iter().map(|user_id| (user_id.clone(), None)).collect();
        self.drop_idle_rooms(&mut state);
    }

    fn drop_idle_rooms(&self, state: &mut State) {
        for _ in 0..state.drop_idle_rooms(self.kept) {
            self.observer.limit_hit(LimitHit::TypingRoomDropped);
        }
    }

    /// Moves forward to the writer's change number `token`. Only on a follower.
    pub fn advance(&self, token: Token) {
        let mut state = self.state.borrow_mut();
        state.serial = state.serial.max(token);
    }

    /// Drops everything, because the writer has restarted. Only on a follower.
    pub fn reset(&self) {
        *self.state.borrow_mut() = State::default();
        self.resets.set(self.resets.get() + 1);
    }
}

impl State {
    fn room(&mut self, room_id: &str) -> &mut Room {
        let new = || Room { serial: Token(0), changed: Instant::now(), users: IndexMap::new() };
        self.rooms.entry(room_id.to_owned()).or_insert_with(new)
    }

    /// Drops the rooms without typing users whose last change is older than `kept`. Returns their number.
    fn drop_idle_rooms(&mut self, kept: Duration) -> usize {
        let now = Instant::now();
        let before = self.rooms.len();
        let forgotten_upto = &mut self.forgotten_upto;
        self.rooms.retain(|_, room| {
            let is_kept = !room.users.is_empty() || now.duration_since(room.changed) < kept;
            if !is_kept {
                *forgotten_upto = room.serial.max(*forgotten_upto);
            }
            is_kept
        });
        before - self.rooms.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_env::TaskObserver;

    /// The number of rooms that were reported as dropped.
    #[derive(Default)]
    struct Dropped(Cell<usize>);

    impl TaskObserver for Dropped {}

    impl Observer for Dropped {
        fn limit_hit(&self, limit: LimitHit) {
            assert_eq!(limit, LimitHit::TypingRoomDropped);
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn each_run_numbers_on_above_all_before() {
        on_paused_clock(|_, tasks| async move {
            let (first, second) = (Rc::new(TypingHandler::on_writer(1)), Rc::new(TypingHandler::on_writer(2)));
            let last = first.started(&tasks, "!a", "@x", Duration::from_secs(30));
            assert_eq!((last.run(), first.serial()), (1, Token::beginning_of(1).next()));
            assert_eq!(second.updates(last, Token(i64::MAX), 100), Updates::empty(Token::beginning_of(2)));
            assert!(second.started(&tasks, "!a", "@x", Duration::from_secs(30)) > last);
        });
    }

    fn on_paused_clock<F: Future>(test: impl FnOnce(Rc<TypingHandler>, TaskSpawner) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, test(Rc::default(), TaskSpawner::new(Rc::new(Noop))))
    }

    fn row(room_id: &str, user_ids: &[&str]) -> Row {
        let user_ids = user_ids.iter().map(|user_id| user_id.to_string()).collect();
        Row::Typing(TypingRow { room_id: room_id.into(), user_ids })
    }

    #[test]
    fn only_the_newest_row_of_a_room_is_kept() {
        on_paused_clock(|typing, tasks| async move {
            typing.started(&tasks, "!a", "@x", Duration::from_secs(30));
            typing.started(&tasks, "!b", "@x", Duration::from_secs(30));
            typing.started(&tasks, "!a", "@y", Duration::from_secs(30));
            let updates = typing.updates(Token(0), Token(3), 100);
            assert_eq!(updates.rows, [(Token(2), row("!b", &["@x"])), (Token(3), row("!a", &["@x", "@y"]))]);
        });
    }

    #[test]
    fn a_room_without_typing_users_is_forgotten_after_the_time_that_is_set() {
        for (typing_kept_ms, is_kept) in [(5_000, false), (10_000, false), (15_000, true)] {
            on_paused_clock(|_, tasks| async move {
                let dropped = Rc::new(Dropped::default());
                let typing = TypingHandler::on_writer(1).with_typing_kept_ms(typing_kept_ms, dropped.clone());
                let typing = Rc::new(typing);
                typing.started(&tasks, "!a", "@x", Duration::from_secs(30));
                let emptied = typing.stopped("!a", "@x");
                tokio::time::sleep(Duration::from_secs(10)).await;
                let last = typing.started(&tasks, "!b", "@x", Duration::from_secs(30));
                assert_eq!(typing.forgotten_upto() == emptied, !is_kept);
                assert_eq!(dropped.0.get(), usize::from(!is_kept));
                assert_eq!(typing.updates(Token(0), last, 100).rows.len(), 1 + usize::from(is_kept));
            });
        }
    }

    #[test]
    fn typing_times_out_unless_the_user_types_again() {
        on_paused_clock(|typing, tasks| async move {
            typing.started(&tasks, "!a", "@x", Duration::from_secs(30));
            tokio::time::sleep(Duration::from_secs(20)).await;
            typing.started(&tasks, "!a", "@x", Duration::from_secs(30));
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(typing.typing_in("!a"), ["@x"]);
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(typing.typing_in("!a").is_empty());
            assert_eq!(typing.updates(Token(1), Token(2), 100).rows, [(Token(2), row("!a", &[]))]);
        });
    }

    #[test]
    fn a_limited_answer_ends_at_its_last_row() {
        on_paused_clock(|typing, tasks| async move {
            for room in 0..101 {
                typing.started(&tasks, &format!("!{room:03}"), "@x", Duration::from_secs(30));
            }
            let first = typing.updates(Token(0), Token(101), 100);
            assert_eq!((first.rows.len(), first.upto, first.limited), (100, Token(100), true));
            let rest = typing.updates(first.upto, Token(101), 100);
            assert_eq!((rest.rows.len(), rest.upto, rest.limited), (1, Token(101), false));
            let all = typing.updates(Token(0), Token(101), 101);
            assert_eq!((all.rows.len(), all.upto, all.limited), (101, Token(101), false));
        });
    }

    #[test]
    fn an_answer_reaches_beyond_its_last_row_if_later_rows_have_newer_ones_in_their_place() {
        on_paused_clock(|typing, tasks| async move {
            typing.started(&tasks, "!a", "@x", Duration::from_secs(30));
            typing.started(&tasks, "!b", "@x", Duration::from_secs(30));
            typing.started(&tasks, "!b", "@y", Duration::from_secs(30));
            let updates = typing.updates(Token(0), Token(2), 100);
            assert_eq!(updates, Updates { rows: vec![(Token(1), row("!a", &["@x"]))], upto: Token(2), limited: false });
        });
    }

    #[test]
    fn an_answer_does_not_reach_beyond_the_last_change() {
        on_paused_clock(|typing, tasks| async move {
            typing.started(&tasks, "!a", "@x", Duration::from_secs(30));
            assert_eq!(typing.updates(Token(0), Token(26), 100).upto, Token(1));
            assert_eq!(typing.updates(Token(26), Token(0), 100), Updates::empty(Token(0)));
        });
    }
}
