//! `vmentry export`: attach or replay, sum up, serve and write metrics, detach on every way out.

use std::{
    cell::RefCell,
    fs::{self, Permissions},
    io::{BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{net::TcpListener, sync::mpsc, task::LocalSet};

use crate::{
    collect::collector::Collection,
    commands::{
        args::ExportArgs,
        child::Endings,
        live,
        record::{selected_tgids, selected_vcpus},
        report::source,
    },
    export::{
        bodies::{Bodies, Form},
        family::{About, Family, Value, families},
        http::{self, Places},
        metrics,
        negotiate::Format,
        protobuf,
        state::{State, VmLabel},
        text::{self, Dialect},
    },
    host::{
        clock::{Anchor, monotonic_ns},
        facts,
        machine::Roots,
        policy,
    },
    kernel::{
        kvm_module::{Change, Watch},
        tracer::{Options, Tracer},
    },
    model::{interval::Interval, measurement::Aggregation, policy::Policy, vendor::Vendor},
    output,
    recording::{Header, Reader},
    report::openmetrics,
    say,
};

/// Where metrics are served without `--listen`.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9753);
/// A collector that has been silent for so long, or five intervals, is not well.
const SILENCE: Duration = Duration::from_secs(10);

/// What is shown to who asks.
pub struct Exporter {
    state: State,
    about: About,
    bodies: Bodies,
    started: Anchor,
    scrapes: u64,
    /// longest healthy silence of the collector; none of a replay, which falls silent at its end
    silence: Option<Duration>,
    /// CLOCK_MONOTONIC of the last interval, or of the start, ns
    heard_ns: u64,
}

impl Exporter {
    fn new(args: &ExportArgs, about: About, labels: Vec<VmLabel>, silence: Option<Duration>) -> Self {
        let started = Anchor::now();
        Self {
            state: State::new(labels, args.max_series as usize, started),
            about,
            bodies: Bodies::default(),
            started,
            scrapes: 0,
            silence,
            heard_ns: started.monotonic_ns,
        }
    }

    fn add(&mut self, interval: &Interval) {
        let now = Anchor::now();
        self.heard_ns = now.monotonic_ns;
        self.state.add(interval, now);
    }

    /// Metrics in a form; none where too many slow clients hold earlier ones.
    pub fn scrape(&mut self, form: Form) -> Option<Arc<Vec<u8>>> {
        self.scrapes += 1;
        let mut bodies = std::mem::take(&mut self.bodies);
        let body = bodies.get(form, || self.encode(form.format));
        self.bodies = bodies;
        body
    }

    fn encode(&self, format: Format) -> Vec<u8> {
        let mut families = self.families();
        families.extend(self.process());
        match format {
            Format::Protobuf => protobuf::encode(&families),
            Format::OpenMetrics => text::encode(&families, Dialect::OpenMetrics).into_bytes(),
            Format::Classic => text::encode(&families, Dialect::Classic).into_bytes(),
        }
    }

    /// Everything but what is about this process: node_exporter has metrics of the same names for itself.
    fn families(&self) -> Vec<Family<'_>> {
        let mut families = families(&self.about, &self.state);
        families.extend(self.state.health());
        families
    }

    fn process(&self) -> Vec<Family<'static>> {
        let created = Some(self.started.unix_ns);
        let mut families = vec![
            Family::one(&metrics::SCRAPES, Value::Count(self.scrapes), created),
            Family::one(&metrics::PROCESS_CPU, Value::Number(live::used_s()), created),
        ];
        families.extend(resident().map(|bytes| Family::one(&metrics::PROCESS_MEMORY, Value::Count(bytes), None)));
        let started_s = self.started.unix_ns as f64 / 1e9;
        families.push(Family::one(&metrics::PROCESS_START, Value::Number(started_s), None));
        families
    }

    /// That all is well, or what is not.
    pub fn health(&self) -> std::result::Result<String, String> {
        let age = Duration::from_nanos(monotonic_ns().saturating_sub(self.heard_ns));
        let text = format!("last interval {:.1} s ago\n", age.as_secs_f64());
        match self.silence {
            Some(silence) if age > silence => Err(format!("the collector is silent: {text}")),
            _ => Ok(format!("ok, {text}")),
        }
    }
}

/// Bytes of memory that this process has now; none where /proc does not tell.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf takes any name.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

/// Exports as the arguments say.
pub fn run(args: &ExportArgs) -> Result<ExitCode> {
    if args.list_metrics {
        output::print(&(serde_json::to_string_pretty(&metrics::json())? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
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
    let facts = facts::gather(false);
    if let Some(errors) = facts::errors(&facts.problems()) {
        bail!(
            "cannot trace here:\n{errors}\n  'vmentry check' shows everything; 'vmentry export --replay FILE' serves a recording"
        );
    }
    let layout = facts.layout.clone().context("no layout, and no error about it")?;
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
    let exporter = Rc::new(RefCell::new(Exporter::new(args, about, vm_labels(args), Some(silence))));
    let mut module = facts.host.vendor.and_then(Vendor::module).map(|m| Watch::new(&Roots::default().sys, m));
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
    if !accounting.exact {
        bail!(
            "the kernel's count of entries and what arrived disagree: do not trust what was exported, and report this as a bug"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The policy, which the companion patch lets others switch at any time.
fn policy_now(at_first: Policy) -> Policy {
    match policy::now().as_deref().map(str::trim) {
        Some("soft") => Policy::Soft,
        Some("hard") => Policy::Hard,
        Some(_) => Policy::Unknown,
        None => at_first,
    }
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
    let exporter = Rc::new(RefCell::new(Exporter::new(args, about(reader.header()), labels, None)));
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

/// A file for node_exporter.
struct Textfile {
    path: PathBuf,
    /// in the same folder, so that it can take the file's place at once
    draft: PathBuf,
    /// what went wrong last
    problem: Option<String>,
}

impl Textfile {
    fn new(path: &Path) -> Result<Self> {
        let name = path.file_name().with_context(|| format!("--textfile {}: name a file", path.display()))?;
        if path.extension().is_none_or(|e| e != "prom") {
            bail!("--textfile {}: node_exporter reads only what ends in .prom", path.display());
        }
        let draft = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        Ok(Self { path: path.to_owned(), draft: path.with_file_name(draft), problem: None })
    }

    /// Replaces the file in one step. Neither it nor its draft is ever reached through a link.
    fn write(&self, exporter: &Exporter) -> Result<()> {
        let failed = || format!("write {}", self.path.display());
        let text = text::encode(&exporter.families(), Dialect::Classic);
        // Left behind by a process of the same number that was killed.
        let _ = fs::remove_file(&self.draft);
        let mut file = output::create_new(&self.draft).with_context(failed)?;
        let written = file
            .write_all(text.as_bytes())
            // Whoever runs node_exporter reads it, whatever this process's umask is.
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&self.draft, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&self.draft);
        }
        written.with_context(failed)
    }

    /// A full disk may be emptied again: says each problem once, and goes on.
    fn try_write(&mut self, exporter: &Exporter) {
        let problem = self.write(exporter).err().map(|e| format!("{e:#}"));
        if let Some(problem) = problem.as_ref().filter(|p| self.problem.as_ref() != Some(p)) {
            say!("{problem}");
        }
        self.problem = problem;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        commands::args::{Cli, Command},
        export::{
            family::Labels,
            metrics::{METRICS, VM_LABELS},
        },
        model::interval::tests::{event, vm},
        recording::tests::header,
    };

    fn exporter(args: &[&str]) -> Exporter {
        let cli = Cli::try_parse_from([&["vmentry", "export"], args].concat()).unwrap();
        let Some(Command::Export(args)) = cli.command else { panic!() };
        Exporter::new(&args, about(&header()), vm_labels(&args), None)
    }

    #[test]
    fn every_metric_of_the_table_is_exported_with_its_labels_and_no_other() {
        let mut exporter = exporter(&["--vm-labels", "pid,name,ordinal"]);
        let mut interval = Interval::default();
        interval.record(&event(0, 52, 900, 2), &vm(0));
        exporter.add(&interval);
        let mut families = exporter.families();
        families.extend(exporter.process());
        let names: Vec<_> = families.iter().map(|f| f.metric.name).collect();
        assert_eq!(names, METRICS.map(|m| m.name));
        for family in &families {
            let of = |labels: &Labels<'_>| -> Vec<_> {
                labels
                    .iter()
                    .map(|l| l.0)
                    .filter(|l| !VM_LABELS.contains(l) || family.metric.labels.contains(l))
                    .collect()
            };
            assert!(family.samples.iter().all(|s| of(&s.labels) == family.metric.labels), "{}", family.metric.name);
        }
        assert!(resident().unwrap() > 1 << 20);
    }

    #[test]
    fn a_silent_collector_is_not_well() {
        let mut exporter = exporter(&[]);
        exporter.silence = Some(Duration::from_nanos(1));
        assert!(exporter.health().unwrap_err().contains("silent"));
        exporter.silence = None;
        assert!(exporter.health().unwrap().starts_with("ok"));
    }

    #[test]
    fn a_textfile_is_replaced_at_once_and_through_no_link() {
        let dir = std::env::temp_dir().join(format!("vmentry-textfile-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (file, secret) = (dir.join("vmentry.prom"), dir.join("secret"));
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, &file).unwrap();
        let textfile = Textfile::new(&file).unwrap();
        std::os::unix::fs::symlink(&secret, &textfile.draft).unwrap();
        textfile.write(&exporter(&[])).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("vmentry_ring_entries_total 0\n") && !text.contains("process_"), "{text}");
        assert_eq!(fs::symlink_metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no draft is left");
        assert!(Textfile::new(Path::new("/tmp/vmentry.txt")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
