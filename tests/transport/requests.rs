//! Requests over HTTP, made by the test.

use crate::deployment::{Deployment, SECRET};

/// Sends a request to `host`, and returns the status and the body of the answer.
pub(crate) async fn ask(
    deployment: &Deployment,
    host: &str,
    request: &str,
    authorization: Option<&str>,
    body: Option<&str>,
) -> (u16, String) {
    let mut connection = deployment.connect_http(host).await;
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
    let head = format!("{request} HTTP/1.1\r\nHost: {host}\r\n{authorization}{length}Connection: close\r\n\r\n");
    connection.say_bytes(format!("{head}{}", body.unwrap_or_default()).as_bytes()).await;
    let answer = connection.text_to_end().await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
    (status, body.to_owned())
}

/// Sends a GET request like [`ask`], with the shared secret.
pub(crate) async fn get(deployment: &Deployment, host: &str, path: &str) -> (u16, String) {
    ask(deployment, host, &format!("GET {path}"), Some(&format!("Bearer {SECRET}")), None).await
}

/// Sends a POST request like [`ask`], with the shared secret and a body.
pub(crate) async fn post(deployment: &Deployment, host: &str, path: &str, body: &str) -> (u16, String) {
    ask(deployment, host, &format!("POST {path}"), Some(&format!("Bearer {SECRET}")), Some(body)).await
}
