//! The traffic of a star: each spoke sends the hub a line now and then, and the hub sends it to every spoke.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, split};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

/// Bytes of a line, its end included.
pub(crate) const LINE: usize = 60;

/// A star, and for how long it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Star {
    /// Hosts besides the hub.
    pub(crate) spokes: usize,
    /// The time between two lines of a spoke.
    pub(crate) every: Duration,
    /// Simulated seconds.
    pub(crate) secs: u64,
    /// True if the hub sends each line to every spoke.
    pub(crate) fans_out: bool,
}

impl Star {
    /// The lines that arrive at any host.
    pub(crate) fn lines(self) -> u64 {
        let sent = self.spokes as u64 * self.lines_of_a_spoke();
        if self.fans_out { sent * (1 + self.spokes as u64) } else { sent }
    }

    fn lines_of_a_spoke(self) -> u64 {
        (Duration::from_secs(self.secs).as_micros() / self.every.as_micros()) as u64
    }

    /// When spoke `n` sends its first line: no two spokes send at one time.
    fn offset(self, n: usize) -> Duration {
        self.every.mul_f64(n as f64 / self.spokes as f64)
    }
}

/// The number of lines that have arrived.
pub(crate) type Arrived = Rc<Cell<u64>>;

/// The spokes that are connected to the hub: what is sent here is written to them.
pub(crate) type Outboxes = Rc<RefCell<Vec<UnboundedSender<Rc<str>>>>>;

/// Serves one spoke at the hub, as a server does: one task reads its lines, another one writes what is sent to it.
pub(crate) fn serve<S: AsyncRead + AsyncWrite + 'static>(stream: S, outboxes: &Outboxes, star: Star, arrived: Arrived) {
    let (reader, mut writer) = split(stream);
    let (outbox, mut lines) = unbounded_channel::<Rc<str>>();
    outboxes.borrow_mut().push(outbox);
    let outboxes = Rc::clone(outboxes);
    spawn_local(async move {
        let mut reader = BufReader::new(reader).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            arrived.set(arrived.get() + 1);
            if star.fans_out {
                let line: Rc<str> = Rc::from(line + "\n");
                for outbox in outboxes.borrow().iter() {
                    outbox.send(Rc::clone(&line)).expect("the connection lasts");
                }
            }
        }
    });
    spawn_local(async move {
        while let Some(line) = lines.recv().await {
            writer.write_all(line.as_bytes()).await.expect("the connection lasts");
            writer.flush().await.expect("the connection lasts"); // madsim sends only then
        }
    });
}

/// Plays spoke `n`: sends lines, and reads what the hub sends. `sleep` is the network's own.
pub(crate) async fn spoke<S, F>(stream: S, n: usize, star: Star, sleep: impl Fn(Duration) -> F, arrived: Arrived)
where
    S: AsyncRead + AsyncWrite + 'static,
    F: Future<Output = ()>,
{
    let (reader, mut writer) = split(stream);
    spawn_local(async move {
        let mut reader = BufReader::new(reader).lines();
        while let Ok(Some(_)) = reader.next_line().await {
            arrived.set(arrived.get() + 1);
        }
    });
    sleep(star.offset(n)).await;
    let line = format!("{:x<1$}\n", "", LINE - 1);
    for _ in 0..star.lines_of_a_spoke() {
        writer.write_all(line.as_bytes()).await.expect("the connection lasts");
        writer.flush().await.expect("the connection lasts");
        sleep(star.every).await;
    }
    std::future::pending().await
}
