//! `vmentry export`: attach or replay, sum up, serve and write metrics, detach on every way out.

use std::{
    cell::RefCell,
    fs::{self},
    io::BufReader,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{net::TcpListener, sync::mpsc, task::LocalSet};

use crate::{
    collect::collector::Collection,
    commands::{
        args::ExportArgs,
        child::Endings,
        report::source,
        session::{ensure_exact, runtime, selected_tgids, selected_vcpus, traceable_host, watch_module},
    },
    export::{
        exporter::Exporter,
        family::About,
        http::{self, Places},
        metrics,
        state::VmLabel,
        textfile::Textfile,
    },
    host::{policy, roots::Roots},
    kernel::{
        kvm_module::{Change, Watch},
        options::Options,
        tracer::Tracer,
    },
    model::{interval::Interval, measurement::Aggregation, policy::Policy},
    output,
    recording::{Header, Reader},
    report::openmetrics,
    say,
};

/// Where metrics are served without `--listen`.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9753);
/// A collector that has been silent for so long, or five intervals, is not well.
const SILENCE: Duration = Duration::from_secs(10);

/// Exports as the arguments say.
pub fn run(args: &ExportArgs) -> Result<ExitCode> {
    if args.list_metrics {
        output::print(&(serde_json::to_string_pretty(&metrics::json())? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async {
        // Before anything is attached: from here on a signal ends this in order.
        let mut endings = Endings::new()?;
        let listener = listen(args).await?;
        match &args.replay {
            Some(file) => replay(args, file, listener, &mut endings).await,
            None => trace(args, listener, &mut endings).await,
        }
    })
}

/// Where metrics are served; none where they are only written.
async fn listen(args: &ExportArgs) -> Result<Option<TcpListener>> {
    let Some(address) = args.listen.or(args.textfile.is_none().then_some(DEFAULT_LISTEN)) else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address} (another exporter may run: choose another address with --listen, or port 0 for a free one)")
    })?;
    if !address.ip().is_loopback() {
        say!("anyone who reaches {} can read these metrics: there is no password", address.ip());
    }
    say!("metrics on http://{}/metrics", listener.local_addr().context("listen")?);
    Ok(Some(listener))
}

fn vm_labels(args: &ExportArgs) -> Vec<VmLabel> {
    let label = |name: &str| match name {
        "pid" => Some(VmLabel::Pid),
        "ordinal" => Some(VmLabel::Ordinal),
        _ => None,
    };
    let mut labels: Vec<_> = args.vm_labels.iter().filter_map(|name| label(name)).collect();
    labels.sort();
    labels.dedup();
    labels
}

async fn trace(args: &ExportArgs, listener: Option<TcpListener>, endings: &mut Endings) -> Result<ExitCode> {
    let hint = "; 'vmentry export --replay FILE' serves a recording";
    let (facts, layout) = traceable_host("trace", hint, false)?;
    let options = Options {
        tgids: selected_tgids(&args.targets)?,
        vcpu_ids: selected_vcpus(&args.targets),
        ..Options::default()
    };
    let about = About {
        hosts: vec![facts.host.clone()],
        policy: facts.policy,
        aggregation: Aggregation::Records,
        latencies: true,
    };
    let silence = SILENCE.max(5 * args.interval);
    let exporter =
        Rc::new(RefCell::new(Exporter::new(args.max_series as usize, about, vm_labels(args), Some(silence))));
    let mut module = watch_module(&facts.host);
    let mut collection = Collection::start(Tracer::load(&layout, &options)?, Some(args.interval))?;
    let mut take = |interval: &Interval| {
        match module.as_mut().and_then(Watch::look) {
            Some(Change::Replaced) => {
                bail!("another build of the KVM module was loaded, whose layout may differ: start the exporter again")
            }
            Some(Change::Unloaded) => say!("the KVM module was unloaded: no VM can run"),
            Some(Change::Reloaded) => say!("the KVM module is back, the same build"),
            None => {}
        }
        let mut exporter = exporter.borrow_mut();
        exporter.about.policy = policy_now(facts.policy);
        exporter.add(interval);
        Ok(())
    };
    let ended = pump(args, &exporter, listener, endings, &mut collection.intervals, &mut take).await;
    collection.stop();
    while collection.intervals.recv().await.is_some() {}
    let accounting = collection.join()?;
    ended?;
    ensure_exact(&accounting, "what was exported")?;
    Ok(ExitCode::SUCCESS)
}

/// The policy, which the companion patch lets others switch at any time.
fn policy_now(at_first: Policy) -> Policy {
    policy::now(&Roots::default()).unwrap_or(at_first)
}

async fn replay(
    args: &ExportArgs,
    file: &Path,
    listener: Option<TcpListener>,
    endings: &mut Endings,
) -> Result<ExitCode> {
    let failed = || format!("read {}", file.display());
    let input = BufReader::new(fs::File::open(file).with_context(failed)?);
    let mut reader = Reader::new(input).with_context(failed)?;
    let mut labels = vm_labels(args);
    if reader.header().sources.len() > 1 {
        labels.insert(0, VmLabel::Host);
    }
    let exporter = Rc::new(RefCell::new(Exporter::new(args.max_series as usize, about(reader.header()), labels, None)));
    let (send, mut intervals) = mpsc::channel(1);
    let mut take = |interval: &Interval| {
        exporter.borrow_mut().add(interval);
        Ok(())
    };
    if args.paced {
        tokio::task::spawn_local(async move {
            loop {
                match reader.read_interval() {
                    Ok(Some(interval)) => {
                        tokio::time::sleep(Duration::from_nanos(interval.length_ns)).await;
                        if send.send(interval).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        say!("the replay ends here: {error:#}");
                        break;
                    }
                }
            }
            // What was seen stays.
            send.closed().await;
        });
    } else {
        while let Some(interval) = reader.read_interval().with_context(failed)? {
            take(&interval)?;
        }
        tokio::task::spawn_local(async move { send.closed().await });
    }
    pump(args, &exporter, listener, endings, &mut intervals, &mut take).await?;
    Ok(ExitCode::SUCCESS)
}

/// What a recording's header tells of itself, or of those it is a merge of.
fn about(header: &Header) -> About {
    if header.sources.is_empty() {
        return openmetrics::about(&[source(String::new(), header)]);
    }
    openmetrics::about(&header.sources)
}

/// Takes intervals, serves and writes, until a signal.
async fn pump(
    args: &ExportArgs,
    exporter: &Rc<RefCell<Exporter>>,
    listener: Option<TcpListener>,
    endings: &mut Endings,
    intervals: &mut mpsc::Receiver<Interval>,
    take: &mut impl FnMut(&Interval) -> Result<()>,
) -> Result<()> {
    let places = Places::new();
    let mut serving = Box::pin(async {
        match &listener {
            Some(listener) => http::serve(listener, &places, exporter).await,
            None => std::future::pending().await,
        }
    });
    let mut textfile = args.textfile.as_deref().map(Textfile::new).transpose()?;
    if let Some(file) = &mut textfile {
        // An error now is one of the arguments; later ones may pass.
        file.write(&exporter.borrow())?;
    }
    let result = loop {
        tokio::select! {
            signal = endings.next() => {
                say!("ended by {signal}");
                break Ok(());
            }
            () = &mut serving => {}
            interval = intervals.recv() => {
                // The collector has failed; its thread says why.
                let Some(interval) = interval else { break Ok(()) };
                if let Err(error) = take(&interval) {
                    break Err(error);
                }
                if let Some(file) = &mut textfile {
                    file.try_write(&exporter.borrow());
                }
            }
        }
    };
    drop(serving);
    drop(listener);
    places.close().await;
    result
}
