//! Open connections, as the world sees and cuts them.

use std::task::{Context, Waker};

use super::State;
use super::host::{HostIndex, Process};
use crate::{Connection, Side};

/// A connection one of whose ends at least an application holds.
#[derive(Default)]
pub(crate) struct Held {
    pub client: Option<HeldEnd>,
    pub server: Option<HeldEnd>,
    port: u16,
    cut: bool,
}

/// One end that an application holds.
pub(crate) struct HeldEnd {
    process: Process,
    /// True if its application knows that the connection is over, or has ended it itself.
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The reason why an operation waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Something to read.
    ToRead,
    /// Space to write.
    ToWrite,
}

impl Held {
    fn end(&mut self, side: Side) -> &mut Option<HeldEnd> {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

impl State {
    /// Records that an application holds one end of connection `id`.
    pub(crate) fn hold(&mut self, id: u64, side: Side, process: Process, port: u16) {
        let held = self.held.entry(id).or_default();
        held.port = port;
        *held.end(side) = Some(HeldEnd { process, over: false, reader: None, writer: None });
    }

    /// Records that the application has dropped its end.
    pub(crate) fn let_go(&mut self, id: u64, side: Side) {
        let Some(held) = self.held.get_mut(&id) else { return };
        *held.end(side) = None;
        if held.client.is_none() && held.server.is_none() {
            self.held.remove(&id);
        }
    }

    /// Records that the application knows that the connection is over.
    pub(crate) fn is_over(&mut self, id: u64, side: Side) {
        if let Some(end) = self.held.get_mut(&id).and_then(|held| held.end(side).as_mut()) {
            end.over = true;
        }
    }

    /// Returns true if the connection was cut.
    pub(crate) fn is_cut(&self, id: u64) -> bool {
        self.held.get(&id).is_some_and(|held| held.cut)
    }

    /// Records that the application waits, to wake it on a cut.
    pub(crate) fn waits(&mut self, id: u64, side: Side, waiting: Waiting, cx: &Context<'_>) {
        let Some(end) = self.held.get_mut(&id).and_then(|held| held.end(side).as_mut()) else { return };
        let waker = match waiting {
            Waiting::ToRead => &mut end.reader,
            Waiting::ToWrite => &mut end.writer,
        };
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The connections between two hosts that are open at both ends, oldest first.
    pub(crate) fn connections(&self, a: HostIndex, b: HostIndex) -> Vec<Connection> {
        let name = |end: &HeldEnd| self.hosts[end.process.host.0].name.clone();
        let open = self.held.iter().filter_map(|(id, held)| {
            let (client, server) = self.open_ends(held)?;
            let is_meant = [(a, b), (b, a)].contains(&(client.process.host, server.process.host));
            is_meant.then(|| Connection { id: *id, client: name(client), server: name(server), port: held.port })
        });
        open.collect()
    }

    /// Makes both ends of a connection fail from now on. False if it was not open any more.
    pub(crate) fn cut(&mut self, id: u64) -> bool {
        if self.held.get(&id).and_then(|held| self.open_ends(held)).is_none() {
            return false;
        }
        let Some(held) = self.held.get_mut(&id) else { return false };
        held.cut = true;
        for end in [&mut held.client, &mut held.server].into_iter().flatten() {
            end.reader.take().into_iter().chain(end.writer.take()).for_each(Waker::wake);
        }
        true
    }

    /// Returns both ends, if both are open and their processes are alive.
    fn open_ends<'a>(&self, held: &'a Held) -> Option<(&'a HeldEnd, &'a HeldEnd)> {
        let (client, server) = (held.client.as_ref()?, held.server.as_ref()?);
        let open = |end: &HeldEnd| !end.over && self.is_alive(end.process);
        (!held.cut && open(client) && open(server)).then_some((client, server))
    }
}
