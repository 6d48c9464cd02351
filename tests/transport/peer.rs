//! The other end of a connection, played by the test.

use std::time::Duration;

use squall::env::BoxStream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// How long something may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Peer {
    stream: BufReader<BoxStream>,
    /// The part of a line that has come.
    partial: Vec<u8>,
}

impl Peer {
    pub fn new(stream: BoxStream) -> Self {
        Peer { stream: BufReader::new(stream), partial: Vec::new() }
    }

    /// Says a line.
    pub async fn say(&mut self, line: &str) {
        self.say_bytes(format!("{line}\n").as_bytes()).await;
    }

    /// Says whatever it is, as far as the other end still listens.
    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next line, or `None` once the other end has closed the connection.
    pub async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.stream.read_until(b'\n', &mut self.partial))
            .await
            .unwrap_or_else(|_| panic!("nothing came for {PATIENCE:?}"))
            .unwrap();
        let line = String::from_utf8(std::mem::take(&mut self.partial)).unwrap();
        assert!(line.is_empty() || line.ends_with('\n'), "closed in the middle of {line:?}");
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// Waits for a line that begins like this, and forgets those before it.
    pub async fn hear(&mut self, beginning: &str) -> String {
        loop {
            match self.line().await {
                Some(line) if line.starts_with(beginning) => return line,
                Some(_) => {}
                None => panic!("closed before it said {beginning:?}"),
            }
        }
    }

    /// The lines that come within `duration`.
    pub async fn lines_for(&mut self, duration: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        let until = tokio::time::Instant::now() + duration;
        while let Ok(line) = tokio::time::timeout_at(until, self.line()).await {
            lines.push(line.expect("the connection stays open"));
        }
        lines
    }

    /// All lines until the other end closes the connection.
    pub async fn lines_to_end(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    /// Everything until the other end closes the connection.
    pub async fn text_to_end(mut self) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_string(&mut text));
        read.await.expect("the other end closes").unwrap();
        text
    }
}
