//! The traffic of a star: each spoke sends the hub a line now and then, and the hub sends it to every spoke.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Mutex;

/// Bytes of a line.
pub const LINE: usize = 60;

/// A star, and for how long it runs.
#[derive(Debug, Clone, Copy)]
pub struct Star {
    /// Hosts besides the hub.
    pub spokes: usize,
    /// The time between two lines of a spoke.
    pub every: Duration,
    /// Simulated seconds.
    pub secs: u64,
    /// True if the hub sends each line to every spoke.
    pub fans_out: bool,
}

impl Star {
    /// The lines that arrive at any host.
    pub fn lines(self) -> u64 {
        let sent = self.spokes as u64 * (Duration::from_secs(self.secs).as_micros() / self.every.as_micros()) as u64;
        if self.fans_out { sent * (1 + self.spokes as u64) } else { sent }
    }

    /// When spoke `n` sends its first line: no two spokes send at one time.
    fn offset(self, n: usize) -> Duration {
        self.every.mul_f64(n as f64 / self.spokes as f64)
    }
}

/// The number of lines that have arrived.
pub type Arrived = Rc<Cell<u64>>;

/// Serves one spoke at the hub: sends its lines to all of `spokes`.
pub async fn serve<S: AsyncRead + AsyncWrite>(
    mut reader: ReadHalf<S>,
    spokes: Rc<Mutex<Vec<WriteHalf<S>>>>,
    star: Star,
    arrived: Arrived,
) {
    let mut line = [0; LINE];
    while reader.read_exact(&mut line).await.is_ok() {
        arrived.set(arrived.get() + 1);
        if star.fans_out {
            for spoke in spokes.lock().await.iter_mut() {
                spoke.write_all(&line).await.expect("the connection lasts");
            }
        }
    }
}

/// Plays spoke `n`: sends lines, and reads what the hub sends. `sleep` is the network's own.
pub async fn spoke<S, F>(stream: S, n: usize, star: Star, sleep: impl Fn(Duration) -> F, arrived: Arrived)
where
    S: AsyncRead + AsyncWrite + 'static,
    F: Future<Output = ()>,
{
    let (mut reader, mut writer) = split(stream);
    let reading = async {
        let mut line = [0; LINE];
        while reader.read_exact(&mut line).await.is_ok() {
            arrived.set(arrived.get() + 1);
        }
    };
    let writing = async {
        sleep(star.offset(n)).await;
        let lines = star.lines() / star.spokes as u64 / if star.fans_out { 1 + star.spokes as u64 } else { 1 };
        for _ in 0..lines {
            writer.write_all(&[b'x'; LINE]).await.expect("the connection lasts");
            sleep(star.every).await;
        }
        std::future::pending::<()>().await
    };
    tokio::join!(reading, writing);
}
