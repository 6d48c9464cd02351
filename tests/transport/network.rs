//! A network in memory: hosts that are joined by pipes. It delays nothing, so the time of every event is known.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use squall_env::{Address, BoxStream, Listener, LocalBoxFuture, Network};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Capacity of a pipe, in bytes. It is small, so that a peer that does not read is soon noticed.
const PIPE_BYTES: usize = 4096;

type Ports = Rc<RefCell<BTreeMap<Address, mpsc::UnboundedSender<DuplexStream>>>>;

/// All hosts. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hosts {
    ports: Ports,
}

impl Hosts {
    /// Returns the network of `host`.
    pub(crate) fn seen_by(&self, host: &str) -> HostNetwork {
        HostNetwork { host: host.to_owned(), ports: Rc::clone(&self.ports) }
    }
}

/// One host's end of the network.
pub(crate) struct HostNetwork {
    host: String,
    ports: Ports,
}

impl Network for HostNetwork {
    fn connect(&self, to: &Address) -> LocalBoxFuture<'static, io::Result<BoxStream>> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let accepted = self.ports.borrow().get(to).is_some_and(|port| port.send(theirs).is_ok());
        let connected = if accepted { Ok(Box::new(ours) as BoxStream) } else { Err(io::ErrorKind::ConnectionRefused) };
        Box::pin(async move { Ok(connected?) })
    }

    fn listen(&self, port: u16) -> LocalBoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = Address::new(self.host.as_str(), port);
        let (port, incoming) = mpsc::unbounded_channel();
        self.ports.borrow_mut().insert(address, port);
        Box::pin(async move { Ok(Box::new(Incoming(incoming)) as Box<dyn Listener>) })
    }
}

/// A listener that yields the streams of a queue.
#[cfg(feature = "sim")]
pub(crate) struct QueueListener(pub mpsc::UnboundedReceiver<BoxStream>);

#[cfg(feature = "sim")]
impl Listener for QueueListener {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async { self.0.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into()) })
    }
}

/// An open port. Connections are refused once it is dropped.
struct Incoming(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Incoming {
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = self.0.recv().await.expect("the hosts outlive their ports");
            Ok(Box::new(stream) as BoxStream)
        })
    }
}
