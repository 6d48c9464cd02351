//! The open ports of a host.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use super::segment::Flow;

/// The most connections that wait to be accepted, those in mid-handshake included. Linux: `somaxconn`.
const BACKLOG: usize = 1024;

/// An open port.
#[derive(Default)]
pub(crate) struct Listening {
    ready: VecDeque<Flow>,
    /// The number of connections in mid-handshake.
    handshakes: usize,
    acceptors: Vec<Waker>,
}

impl Listening {
    /// Returns true if there is no room for another connection.
    pub(crate) fn is_full(&self) -> bool {
        self.handshakes + self.ready.len() >= BACKLOG
    }

    /// A handshake begins.
    pub(crate) fn handshake(&mut self) {
        self.handshakes += 1;
    }

    /// The handshake of a socket is complete.
    pub(crate) fn established(&mut self, socket: Flow) {
        self.handshakes -= 1;
        self.ready.push_back(socket);
        self.acceptors.drain(..).for_each(Waker::wake);
    }

    /// Takes the next established connection.
    pub(crate) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<io::Result<Flow>> {
        if let Some(socket) = self.ready.pop_front() {
            return Poll::Ready(Ok(socket));
        }
        if !self.acceptors.iter().any(|registered| registered.will_wake(cx.waker())) {
            self.acceptors.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The established connections that were not accepted.
    pub(crate) fn into_ready(self) -> VecDeque<Flow> {
        self.ready
    }
}
