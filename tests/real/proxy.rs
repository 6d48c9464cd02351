//! A proxy in front of a broker, which cuts its connections or lets them fall silent.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes connections to one port on to another. Dropping it ends them.
pub(crate) struct Proxy {
    port: u16,
    target: Rc<Cell<u16>>,
    order: watch::Sender<Order>,
    accepting: JoinHandle<()>,
}

/// The behaviour of the connections that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Pass,
    Close,
    /// Stay open and pass nothing on.
    FallSilent,
}

impl Proxy {
    /// Begins to pass connections on to `target`.
    pub(crate) fn start(target: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, order) = (Rc::new(Cell::new(target)), watch::Sender::new(Order::Pass));
        let accepting = tokio::task::spawn_local(accept(listener, Rc::clone(&target), order.clone()));
        Proxy { port, target, order, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Passes new connections on to `target`. Those that are open stay where they are.
    pub(crate) fn lead_to(&self, target: u16) {
        self.target.set(target);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        self.order.send_replace(Order::Close);
    }

    /// Lets all connections fall silent: both ends believe that they are open.
    pub(crate) fn silence(&self) {
        self.order.send_replace(Order::FallSilent);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: Rc<Cell<u16>>, order: watch::Sender<Order>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let (target, mut order) = (target.get(), order.subscribe());
        tokio::task::spawn_local(async move {
            // A target that refuses closes the connection.
            let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                _ = order.changed() => {}
            }
            while *order.borrow_and_update() != Order::Close && order.changed().await.is_ok() {}
        });
    }
}
