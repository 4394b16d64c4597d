//! `vmentry export`: attaches or replays, sums up, serves and writes metrics, detaches on every way out.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{sync::mpsc, task::LocalSet};

use crate::{
    collect::collector::{Attached, Collection},
    commands::{
        args::{ExportArgs, RingKib},
        child::Endings,
        damaged::done,
        following::follow,
        listening::{announce, listen},
        privileges,
        session::{
            detach, header, ring_bytes, runtime, say_missing_details, selected_tgids, selected_vcpus, traceable_host,
            watch_module,
        },
        usage::{refuse, refuse_overlap},
        vm_labels::vm_labels,
    },
    export::{
        allowed_hosts::AllowedHosts,
        connections::Connections,
        exporter::Exporter,
        family::About,
        http::{self, Endpoint},
        listener::{self, Listener},
        metrics,
        textfile::Textfile,
        vm_label::VmLabel,
    },
    host::{labels::rules::LabelRules, policy, roots::Roots, system_calls::Serving},
    kernel::{
        kvm_module::{Change, Watch},
        options::Options,
        tracer::Tracer,
    },
    model::{interval::Interval, measurement::Aggregation, policy::Policy},
    output,
    recording::{self, OnDamage, Provenance, Readings, Spans, ahead::IntervalRead, on_one_clock, tape},
    report::{input::Input, openmetrics},
    say,
};

/// A collector that is silent for this time, or for five intervals if they are longer, is reported as unhealthy.
const SILENCE: Duration = Duration::from_secs(10);

/// Exports as the arguments say.
pub(super) fn run(args: &ExportArgs) -> Result<ExitCode> {
    if args.list_metrics {
        output::print(&(serde_json::to_string_pretty(&metrics::json())? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rules = args.rules.read()?;
    let names = &args.labels.vm_labels;
    let labels = vm_labels(names, rules.keys(), "or, with --vm-label-rules, a label of its rules")?;
    if let Some(note) = without_effect(names, &rules, args.replay.is_some()) {
        say!("note: {note}");
    }
    // Before any descriptor is opened.
    let inherited = listener::handed_over()?;
    if let (Some(recording), Some(textfile)) = (&args.replay, &args.textfile) {
        refuse_overlap([recording.as_path()], textfile)?;
    }
    if let Some(path) = args.textfile.as_deref().filter(|path| path.extension().is_none_or(|suffix| suffix != "prom")) {
        return refuse(format!("--textfile {}: node_exporter reads only names that end in .prom", output::shown(path)));
    }
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async {
        // Before anything is attached: from here on a signal ends this in order.
        let mut endings = Endings::new()?;
        let textfile = args.textfile.as_deref().map(Textfile::new).transpose()?;
        let needs_address = textfile.is_none();
        let places = Destinations {
            listeners: listen(inherited, &args.listen, needs_address)?,
            hosts: AllowedHosts::new(&own_name(), &args.allow_host),
            textfile,
        };
        match &args.replay {
            Some(file) => replay(args, labels, file, places, &mut endings).await,
            None => trace(args, labels, rules, places, &mut endings).await.map(|()| ExitCode::SUCCESS),
        }
    })
}

/// This host's name.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Why rules change nothing; none if they do, or if there are none.
fn without_effect(names: &[String], rules: &LabelRules, is_replay: bool) -> Option<String> {
    let keys = rules.keys();
    let first = keys.first()?;
    if is_replay {
        return Some(
            "the recording has the labels that 'record --vm-label-rules' found; here, the rules only name them".into(),
        );
    }
    let is_asked_for = names.iter().any(|name| keys.contains(name.as_str()));
    (!is_asked_for).then(|| {
        format!("no label of --vm-label-rules is asked for: name it, as --vm-labels {},{first}", names.join(","))
    })
}

fn max_series(args: &ExportArgs) -> usize {
    usize::try_from(args.max_series).unwrap_or(usize::MAX)
}

/// Exports what is traced on this host.
async fn trace(
    args: &ExportArgs,
    labels: Vec<VmLabel>,
    rules: LabelRules,
    places: Destinations,
    endings: &mut Endings,
) -> Result<()> {
    let hint = "; 'vmentry export --replay FILE' serves a recording";
    let (facts, layout) = traceable_host("trace", hint, false)?;
    let options = Options {
        tgids: selected_tgids(&args.targets)?,
        vcpu_ids: selected_vcpus(&args.targets),
        detail: args.details.are_wanted(),
        addresses: args.details.have_addresses(),
        ring_bytes: ring_bytes(RingKib::Auto)?,
        ..Options::default()
    };
    say_missing_details(&options, &layout.config);
    let about = About {
        hosts: vec![facts.host.clone()],
        policy: facts.policy,
        aggregation: Aggregation::Records,
        knowledge: header(&facts, &layout, &options, args.interval, Vec::new()).knowledge(),
    };
    let silence = SILENCE.max(5 * args.interval);
    let exporter = Exporter::new(max_series(args), about, labels, Some(silence));
    let changes_files = places.have_files();
    let server = Server::new(places, exporter);
    let mut module = watch_module(&facts.host);
    let mut tracer = Tracer::load(&layout, &options)?;
    let _following = follow(&args.targets, options.tgids.as_deref(), &mut tracer, output::say)?;
    let attached = Attached::new(tracer)?.labelled_by(rules);
    privileges::of_exporter(Serving { follows: options.tgids.is_some(), changes_files })?;
    let mut collection = Collection::start(attached, Some(args.interval))?;
    let take = |exporter: &mut Exporter, interval: &Interval| {
        ensure_same_module(module.as_mut())?;
        exporter.about.policy = policy_now(facts.policy);
        exporter.add(interval);
        Ok(())
    };
    let ended = server.run(endings, &mut collection.intervals, take).await;
    detach(collection, ended, "what was exported").await
}

/// Fails if another build of the KVM module was loaded; says so if the module went or came back.
fn ensure_same_module(module: Option<&mut Watch>) -> Result<()> {
    match module.and_then(Watch::look) {
        Some(Change::Replaced) => {
            bail!("another build of the KVM module was loaded, whose layout may differ: start the exporter again")
        }
        Some(Change::Unloaded) => say!("the KVM module was unloaded: no VM can run"),
        Some(Change::Reloaded) => say!("the KVM module is back, the same build"),
        None => {}
    }
    Ok(())
}

/// The policy in force, which anybody can switch at any time with the companion patch.
fn policy_now(at_first: Policy) -> Policy {
    policy::now(&Roots::default()).unwrap_or(at_first)
}

/// Exports a recording. Fails at the end if not all of it could be read.
async fn replay(
    args: &ExportArgs,
    mut labels: Vec<VmLabel>,
    file: &Path,
    places: Destinations,
    endings: &mut Endings,
) -> Result<ExitCode> {
    let mut replay = Replay::open(file, OnDamage::skip_if(args.skip_damaged))?;
    privileges::of_exporter(Serving { follows: false, changes_files: places.have_files() })?;
    if replay.recordings.len() > 1 {
        labels.insert(0, VmLabel::Host);
    }
    let exporter = Exporter::new(max_series(args), openmetrics::about(&replay.recordings), labels, None);
    let server = Server::new(places, exporter);
    // Stays open after the last interval: the metrics are served until a signal comes.
    let (send, mut intervals) = mpsc::channel(1);
    let code = Rc::new(Cell::new(ExitCode::SUCCESS));
    if args.paced {
        let at_end = Rc::clone(&code);
        tokio::task::spawn_local(async move {
            let whole = play(&mut replay, &send).await;
            at_end.set(if whole { replay.done() } else { ExitCode::FAILURE });
            send.closed().await;
        });
    } else {
        while let Some((_, interval)) = replay.next().with_context(|| format!("read {}", output::shown(file)))? {
            server.exporter.borrow_mut().add(&interval);
        }
        code.set(replay.done());
        tokio::task::spawn_local(async move { send.closed().await });
    }
    let take = |exporter: &mut Exporter, interval: &Interval| {
        exporter.add(interval);
        Ok(())
    };
    server.run(endings, &mut intervals, take).await?;
    Ok(code.get())
}

/// A recording that is exported: each moment counts once, also of a merge whose recordings overlap or repeat each other.
struct Replay {
    input: Input,
    recordings: Vec<Provenance>,
    readings: Readings,
    covered: Spans,
}

impl Replay {
    fn open(file: &Path, on_damage: OnDamage) -> Result<Self> {
        let (mut recordings, mut readings) = (Vec::new(), Readings::default());
        let input = Input::new(tape::open(file, on_damage)?, output::shown(file), &mut recordings, &mut readings)?;
        Ok(Self { input, recordings, readings, covered: Spans::default() })
    }

    /// The next interval, and the time that it took; its length is the time that no earlier one covered.
    fn next(&mut self) -> Result<Option<(Duration, Interval)>> {
        let Some((at, IntervalRead { mut interval, .. })) = self.input.next(&mut self.readings)? else {
            self.input.finish(&mut self.recordings).iter().for_each(|repeat| say!("{repeat}"));
            return Ok(None);
        };
        let took = Duration::from_nanos(interval.length_ns);
        let start_ns = on_one_clock(interval.start_ns, &self.recordings, at);
        interval.length_ns = self.covered.add(start_ns, interval.length_ns);
        Ok(Some((took, interval)))
    }

    /// The exit code at its end; says what was left out.
    fn done(&self) -> ExitCode {
        done(recording::damage(&self.recordings).as_deref())
    }
}

/// Sends intervals as fast as they were recorded, as long as anybody listens; returns whether all could be read.
async fn play(replay: &mut Replay, send: &mpsc::Sender<Interval>) -> bool {
    loop {
        match replay.next() {
            Ok(Some((took, interval))) => {
                tokio::time::sleep(took).await;
                if send.send(interval).await.is_err() {
                    return true;
                }
            }
            Ok(None) => return true,
            Err(error) => {
                say!("the replay ends here: {error:#}");
                return false;
            }
        }
    }
}

/// The places where metrics go, checked before anything is attached.
struct Destinations {
    listeners: Vec<Listener>,
    hosts: AllowedHosts,
    textfile: Option<Textfile>,
}

impl Destinations {
    /// Whether files are made or removed later.
    fn have_files(&self) -> bool {
        self.textfile.is_some() || self.listeners.iter().any(Listener::has_file)
    }
}

/// Metrics and the places where they go.
struct Server {
    exporter: Rc<RefCell<Exporter>>,
    places: Destinations,
}

impl Server {
    fn new(places: Destinations, exporter: Exporter) -> Self {
        Self { exporter: Rc::new(RefCell::new(exporter)), places }
    }

    /// Takes intervals, serves and writes, until a signal comes or `take` fails.
    async fn run(
        self,
        endings: &mut Endings,
        intervals: &mut mpsc::Receiver<Interval>,
        mut take: impl FnMut(&mut Exporter, &Interval) -> Result<()>,
    ) -> Result<()> {
        let Self { exporter, places: Destinations { listeners, hosts, mut textfile } } = self;
        let (listeners, connections) = (Rc::new(listeners), Rc::new(Connections::default()));
        let endpoint = Endpoint { exporter: Rc::clone(&exporter), connections: Rc::clone(&connections), hosts };
        let endpoint = Rc::new(endpoint);
        let mut serving = Box::pin(http::serve(&listeners, &endpoint));
        if let Some(file) = &mut textfile {
            // An error of the first write is one of the arguments; later ones may pass.
            file.write(&exporter.borrow())?;
        }
        // Connections made before now have waited.
        listeners.iter().for_each(announce);
        let result = loop {
            tokio::select! {
                signal = endings.next() => {
                    say!("ended by {signal}");
                    break Ok(());
                }
                () = &mut serving => {}
                interval = intervals.recv() => {
                    // The collector has failed; its thread reports why.
                    let Some(interval) = interval else { break Ok(()) };
                    if let Err(error) = take(&mut exporter.borrow_mut(), &interval) {
                        break Err(error);
                    }
                    if let Some(file) = &mut textfile {
                        file.try_write(&exporter.borrow());
                    }
                }
            }
        };
        drop(serving);
        drop(listeners);
        connections.close().await;
        result
    }
}
