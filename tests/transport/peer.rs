//! A peer that the test plays.

use std::time::Duration;

use squall_env::BoxStream;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Time within which an expected event must happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Peer {
    stream: BufReader<BoxStream>,
    /// The part of a line that has been received.
    partial: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: BoxStream) -> Self {
        Peer { stream: BufReader::new(stream), partial: Vec::new() }
    }

    /// Sends a line.
    pub(crate) async fn say(&mut self, line: &str) {
        self.say_bytes(format!("{line}\n").as_bytes()).await;
    }

    /// Sends bytes. An error is ignored: the other end may have closed the connection.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Receives the next line; `None` once the other end has closed the connection.
    pub(crate) async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.stream.read_until(b'\n', &mut self.partial))
            .await
            .unwrap_or_else(|_| panic!("nothing was received for {PATIENCE:?}"))
            .unwrap();
        let line = String::from_utf8(std::mem::take(&mut self.partial)).unwrap();
        assert!(line.is_empty() || line.ends_with('\n'), "closed in the middle of {line:?}");
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// Receives a text of this many bytes.
    pub(crate) async fn text(&mut self, length: usize) -> String {
        let mut text = vec![0; length];
        let read = tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut text));
        read.await.expect("the other end sends all of it").unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Receives lines until one begins with `beginning`, and returns that one.
    pub(crate) async fn hear(&mut self, beginning: &str) -> String {
        loop {
            match self.line().await {
                Some(line) if line.starts_with(beginning) => return line,
                Some(_) => {}
                None => panic!("closed before a line that begins with {beginning:?}"),
            }
        }
    }

    /// Receives lines for `duration`.
    pub(crate) async fn lines_for(&mut self, duration: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        let until = tokio::time::Instant::now() + duration;
        while let Ok(line) = tokio::time::timeout_at(until, self.line()).await {
            lines.push(line.expect("the connection stays open"));
        }
        lines
    }

    /// Receives all lines until the other end closes the connection.
    pub(crate) async fn lines_to_end(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    /// Receives everything until the other end closes the connection.
    pub(crate) async fn text_to_end(mut self) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_string(&mut text));
        read.await.expect("the other end closes").unwrap();
        text
    }
}
