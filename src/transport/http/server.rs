//! The answering end.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{GET_UPDATES, INSTANCE_HEADER, PATH_PREFIX};
use crate::env::observer::Trouble;
use crate::env::{Env, Listener};
use crate::protocol::{InstanceName, Token};
use crate::replication::CommandHandler;
use crate::streams::Promise;

/// Serves every request that comes, until the instance stops.
pub async fn serve_requests(
    mut listener: Box<dyn Listener>,
    instance: InstanceName,
    secret: String,
    handler: Rc<CommandHandler>,
    env: Env,
) {
    let endpoint = Rc::new(Endpoint { instance, secret, handler });
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                env.observer.trouble(Trouble::Connection { peer: "the HTTP listener", error: &error });
                tokio::time::sleep(crate::replication::backoff::DELAY_MIN).await;
                continue;
            }
        };
        let (endpoint, observer) = (Rc::clone(&endpoint), Rc::clone(&env.observer));
        env.tasks.spawn("http_connection", async move {
            let service = service_fn(move |request| {
                let endpoint = Rc::clone(&endpoint);
                async move { Ok::<_, Infallible>(endpoint.answer(&request).await) }
            });
            // No date header: it would come from the machine's clock.
            let mut server = hyper::server::conn::http1::Builder::new();
            let served = server.auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                observer.trouble(Trouble::Connection { peer: "an HTTP client", error: &error });
            }
        });
    }
}

struct Endpoint {
    instance: InstanceName,
    secret: String,
    handler: Rc<CommandHandler>,
}

/// A refusal: the status, and what was wrong.
type Refusal = (StatusCode, String);

impl Endpoint {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match self.updates(request).await {
            Ok(body) => (StatusCode::OK, body),
            Err((status, error)) => (status, json!({ "errcode": "M_UNKNOWN", "error": error })),
        };
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("status and headers are valid")
    }

    async fn updates(&self, request: &Request<Incoming>) -> Result<Value, Refusal> {
        let refuse = |status, error: String| Err((status, error));
        let Some(arguments) = request.uri().path().strip_prefix(PATH_PREFIX).map(|path| path.split('/')) else {
            return refuse(StatusCode::NOT_FOUND, format!("no such endpoint: {}", request.uri().path()));
        };
        let arguments: Vec<Cow<'_, str>> = arguments.map(|part| percent_decode_str(part).decode_utf8_lossy()).collect();
        let [endpoint, stream, _transaction_id] = arguments.as_slice() else {
            return refuse(StatusCode::NOT_FOUND, format!("no such endpoint: {}", request.uri().path()));
        };
        if endpoint != GET_UPDATES {
            return refuse(StatusCode::NOT_FOUND, format!("no such endpoint: {endpoint}"));
        }
        if request.method() != Method::GET {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{GET_UPDATES} answers GET only"));
        }
        self.authorize(request)?;
        let from = token_parameter(request, "from_token")?;
        let upto = token_parameter(request, "upto_token")?;
        let Some(stream) = self.handler.stream(stream) else {
            return refuse(StatusCode::BAD_REQUEST, format!("unknown stream {stream}"));
        };
        if !stream.writers().contains(&self.instance) {
            let writers: Vec<_> = stream.writers().iter().map(InstanceName::as_str).collect();
            let error = format!("{} is written by {}: ask there", stream.name(), writers.join(", "));
            return refuse(StatusCode::BAD_REQUEST, error);
        }
        if stream.promise() == Promise::Memory {
            self.check_acquaintance(request)?;
        }
        let updates = stream.updates(&self.instance, from, upto).await;
        let updates = updates.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let rows: Vec<Value> = updates.rows.iter().map(|(token, row)| json!([token, row.to_json()])).collect();
        Ok(json!({ "updates": rows, "upto_token": updates.upto, "limited": updates.limited }))
    }

    /// Refuses whoever asks about a position of an earlier run.
    fn check_acquaintance(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let Some(asker) = request.headers().get(INSTANCE_HEADER) else { return Ok(()) };
        let asker = String::from_utf8_lossy(asker.as_bytes());
        if self.handler.has_met(&asker) {
            return Ok(());
        }
        let error = format!("{} was restarted since {asker} connected to it: connect again", self.instance);
        Err((StatusCode::CONFLICT, error))
    }

    fn authorize(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let Some(given) = request.headers().get(header::AUTHORIZATION) else {
            return Err((StatusCode::UNAUTHORIZED, "the shared secret is missing".into()));
        };
        if given.as_bytes().strip_prefix(b"Bearer ") != Some(self.secret.as_bytes()) {
            return Err((StatusCode::FORBIDDEN, "that is not the shared secret".into()));
        }
        Ok(())
    }
}

fn token_parameter(request: &Request<Incoming>, name: &str) -> Result<Token, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(key, _)| *key == name) else {
        return Err((StatusCode::BAD_REQUEST, format!("{name} is missing")));
    };
    match value.parse() {
        Ok(token) if token >= 0 => Ok(Token(token)),
        _ => Err((StatusCode::BAD_REQUEST, format!("{name} is no token: {value}"))),
    }
}
