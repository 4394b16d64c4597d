//! The endpoint: HTTP/1.1, one answer a connection. Connections, their time and their requests are bounded; who waits for
//! more, waits in the kernel.

use std::{cell::RefCell, convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderName},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::export::{
    bodies::Form,
    exporter::Exporter,
    negotiate::{Format, allows_gzip},
};

/// Connections at a time.
const CONNECTIONS: u32 = 32;
/// For a request to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// For a connection as a whole: who reads more slowly is cut off.
const CONNECTION_TIME: Duration = Duration::from_secs(20);
/// Request line and headers: the least that hyper takes.
const REQUEST_BYTES: usize = 8192;
/// For answers under way when the program ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Before the next connection is tried where one failed: usually because descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// Free places for connections.
pub struct Places(Arc<Semaphore>);

impl Places {
    /// All free.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS as usize)))
    }

    /// Lets answers under way come to their end, but not for long.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(FAREWELL, self.0.acquire_many(CONNECTIONS)).await;
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves for ever; within a [`tokio::task::LocalSet`].
pub async fn serve(listener: &TcpListener, places: &Places, exporter: &Rc<RefCell<Exporter>>) {
    loop {
        let Ok(place) = Arc::clone(&places.0).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let exporter = Rc::clone(exporter);
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &exporter))));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIME)
                .max_buf_size(REQUEST_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that fails has itself to blame.
            let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
            drop(place);
        });
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(request: &Request<Incoming>, exporter: &RefCell<Exporter>) -> Answer {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let mut exporter = exporter.borrow_mut();
    match request.uri().path() {
        "/metrics" => metrics(request, &mut exporter),
        "/healthz" => match exporter.health() {
            Ok(health) => text(StatusCode::OK, &health),
            Err(problem) => text(StatusCode::SERVICE_UNAVAILABLE, &problem),
        },
        "/" => text(
            StatusCode::OK,
            concat!(
                "vmentry ",
                env!("CARGO_PKG_VERSION"),
                ": VM-entry latency of KVM hosts\n\n/metrics  for Prometheus\n/healthz  is it alive?\n"
            ),
        ),
        _ => text(StatusCode::NOT_FOUND, "there are /, /metrics and /healthz\n"),
    }
}

fn metrics(request: &Request<Incoming>, exporter: &mut Exporter) -> Answer {
    let value = |name: HeaderName| {
        let values = request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.collect::<Vec<_>>().join(",")
    };
    let form =
        Form { format: Format::negotiate(&value(header::ACCEPT)), gzip: allows_gzip(&value(header::ACCEPT_ENCODING)) };
    let Some(bytes) = exporter.scrape(form) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many slow clients: try again\n");
    };
    let mut answer = Response::new(Full::new(Bytes::from_owner(Shared(bytes))));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(form.format.content_type()));
    headers.insert(header::VARY, header::HeaderValue::from_static("Accept, Accept-Encoding"));
    if form.gzip {
        headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    }
    answer
}

/// An answer that others read, too.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
