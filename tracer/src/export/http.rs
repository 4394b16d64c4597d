//! The endpoint: HTTP/1.1, one answer per connection. Every connection is accepted at once, and `connections` says who goes for it.
//! Idle and slow clients, however many, neither keep others out nor take memory without bound, and encoding is limited by `bodies`.
//! Requests are limited by nothing but the CPU: a flood of them slows every answer, also scrapes, down to what one thread can do (some
//! ten thousand a second), and a client whose request takes longer to arrive than the flood to open half of all connections is cut off.
//! Against that help a firewall, a Unix socket, and the limits of the service (CPUQuota=).

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    os::fd::AsFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinSet, spawn_local},
};

use crate::export::{
    allowed_hosts::{self, AllowedHosts},
    bodies::Form,
    connections::{Connections, Place},
    exporter::Exporter,
    listener::{Listener, Socket},
    negotiate::{Format, allows_gzip},
};

/// Time for a request to arrive once its connection is accepted. Prometheus sends it at once; over a network with a round trip of 600 ms
/// (a satellite), a request that is lost once comes after 1.8 s.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Time for a whole connection: twice the time that Prometheus waits for an answer unless told otherwise (scrape_timeout, 10 s).
const CONNECTION_TIME: Duration = Duration::from_secs(20);
/// Size of request line and headers: the lowest limit that hyper accepts.
const REQUEST_BYTES: usize = 8192;
/// Size of a piece of an answer: a client is active when it takes one.
const PIECE: usize = 64 << 10;
/// Pause after a connection failed although there was none to cut off, because the system has no descriptors or no memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests.
pub(crate) struct Endpoint {
    pub(crate) exporter: Rc<RefCell<Exporter>>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) hosts: AllowedHosts,
}

/// Serves for ever, within a [`tokio::task::LocalSet`].
pub(crate) async fn serve(listeners: &Rc<Vec<Listener>>, endpoint: &Rc<Endpoint>) {
    let mut accepting = JoinSet::new();
    for at in 0..listeners.len() {
        let (listeners, endpoint) = (Rc::clone(listeners), Rc::clone(endpoint));
        accepting.spawn_local(async move {
            loop {
                if let Err(error) = accept(&listeners[at].socket, &endpoint).await {
                    recover(&error, &endpoint.connections).await;
                }
            }
        });
    }
    while accepting.join_next().await.is_some() {}
    // Without listeners.
    std::future::pending().await
}

/// Accepts a connection and starts to serve it.
async fn accept(socket: &Socket, endpoint: &Rc<Endpoint>) -> io::Result<()> {
    let endpoint = Rc::clone(endpoint);
    match socket {
        Socket::Tcp(socket) => {
            let (stream, _) = socket.accept().await?;
            let is_loopback = stream.local_addr()?.ip().to_canonical().is_loopback();
            let checked = is_loopback || endpoint.hosts.everywhere;
            spawn_local(converse(stream, endpoint.connections.open(), endpoint, checked));
        }
        Socket::Unix(socket) => {
            // No browser connects to one.
            let (stream, _) = socket.accept().await?;
            spawn_local(converse(stream, endpoint.connections.open(), endpoint, false));
        }
    }
    Ok(())
}

/// Makes room if descriptors or memory ran out.
async fn recover(error: &io::Error, connections: &Connections) {
    let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
    if is_full && connections.make_room() {
        // The connection that was cut off closes its descriptor.
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves a connection until its answer is read, its time is over, or its place is needed. `is_checked`: whether the Host header counts.
pub(crate) async fn converse<S>(stream: S, place: Place, endpoint: Rc<Endpoint>, is_checked: bool)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin + 'static,
{
    let place = Rc::new(place);
    let service = service_fn(|request: Request<Incoming>| {
        let is_allowed = !is_checked || endpoint.hosts.allow(&request);
        let mut response = if is_allowed {
            endpoint.answer(&request)
        } else {
            text(StatusCode::MISDIRECTED_REQUEST, allowed_hosts::REFUSAL)
        };
        // A browser must not guess that names of VMs are a script or a page.
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        place.reads(response.body());
        std::future::ready(Ok::<_, Infallible>(response.map(|rest| Pieces { rest, place: Rc::clone(&place) })))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A failing client is not this program's error.
    let has_ended = tokio::select! {
        ended = tokio::time::timeout(CONNECTION_TIME, &mut connection) => ended.is_ok(),
        () = place.cut() => false,
    };
    if !has_ended {
        // The kernel drops at once what it holds for the client, which gets a reset.
        let _ = set_socket_linger(connection.into_parts().io.into_inner(), Some(Duration::ZERO));
    }
}

type Answer = Response<Bytes>;

impl Endpoint {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let mut exporter = self.exporter.borrow_mut();
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
}

fn metrics(request: &Request<Incoming>, exporter: &mut Exporter) -> Answer {
    let value = |name: HeaderName| {
        let values = request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.collect::<Vec<_>>().join(",")
    };
    let form =
        Form { format: Format::negotiate(&value(header::ACCEPT)), gzip: allows_gzip(&value(header::ACCEPT_ENCODING)) };
    let mut answer = Response::new(exporter.scrape(form));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if form.gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Bytes::copy_from_slice(text.as_bytes()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// An answer that is handed out in pieces, so that it is known when its client has read one.
struct Pieces {
    rest: Bytes,
    place: Rc<Place>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        self.place.is_active();
        let size = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
