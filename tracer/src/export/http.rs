//! The endpoint: HTTP/1.1, one answer per connection. The number, time and size of connections are limited; further clients wait in
//! the kernel's queue.

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

/// Connections at a time at most.
const CONNECTIONS: usize = 32;
/// Time for a request to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Time for a whole connection; slower clients are cut off.
const CONNECTION_TIME: Duration = Duration::from_secs(20);
/// Size of request line and headers: the lowest limit that hyper accepts.
const REQUEST_BYTES: usize = 8192;
/// Time for answers under way when the program ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pause after a connection failed, usually because descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// Free places for connections.
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    /// All places are free.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }

    /// Waits for answers under way, for a limited time.
    pub(crate) async fn close(&self) {
        let _ =
            tokio::time::timeout(FAREWELL, self.0.acquire_many(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX))).await;
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves for ever, within a [`tokio::task::LocalSet`].
pub(crate) async fn serve(listener: &TcpListener, places: &Places, exporter: &Rc<RefCell<Exporter>>) {
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
            // A failing client is not this program's error.
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
                ": guest time, host time and pin-control writes of KVM hosts\n\n/metrics  for Prometheus\n/healthz  health of the collector\n"
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

/// An answer that several clients may read.
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
