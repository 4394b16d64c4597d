//! The real exporter on a recording: its totals are the report's in every format, and no client can hurt it.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;
mod exporter;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use binary::{Folder, assert_confined, command as vmentry, on_signals};
use exporter::{Exporter, RECORDING, sum};
use prost::Message;
use serde_json::Value;
use vmentry::{
    model::interval::Vm,
    recording::{Reader, Writer},
};

const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";

fn failure(args: &[&str]) -> String {
    error(args, 1)
}

fn error(args: &[&str], code: i32) -> String {
    let output = vmentry(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_address_that_is_no_hosts_own_is_told_from_one_that_is_taken() {
    // Of a network for documents, which no host has (RFC 5737).
    let foreign = failure(&["export", "--replay", RECORDING, "--listen", "203.0.113.7:9753"]);
    assert!(foreign.contains("no interface of this host has the address 203.0.113.7: 'ip address' lists"), "{foreign}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let taken = failure(&["export", "--replay", RECORDING, "--listen", &address]);
    assert!(taken.contains("is another exporter running?") && !taken.contains("no interface"), "{taken}");
}

fn stdout(args: &[&str]) -> String {
    let output = vmentry(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

/// The part of io.prometheus.client that the tests need, by the tags of its own schema.
mod client {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct MetricFamily {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "4")]
        pub metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Counter>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct LabelPair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Counter {
        #[prost(double, tag = "1")]
        pub value: f64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Histogram {
        #[prost(uint64, tag = "1")]
        pub sample_count: u64,
        #[prost(double, tag = "2")]
        pub sample_sum: f64,
        #[prost(message, repeated, tag = "3")]
        pub bucket: Vec<Bucket>,
        #[prost(sint32, tag = "5")]
        pub schema: i32,
        #[prost(uint64, tag = "7")]
        pub zero_count: u64,
        #[prost(message, repeated, tag = "12")]
        pub positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, packed = "false", tag = "13")]
        pub positive_delta: Vec<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Bucket {
        #[prost(uint64, tag = "1")]
        pub cumulative_count: u64,
        #[prost(double, tag = "2")]
        pub upper_bound: f64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub offset: i32,
        #[prost(uint32, tag = "2")]
        pub length: u32,
    }
}

fn families(mut bytes: &[u8]) -> BTreeMap<String, Vec<client::Metric>> {
    let mut families = BTreeMap::new();
    while !bytes.is_empty() {
        let family = client::MetricFamily::decode_length_delimited(&mut bytes).unwrap();
        assert!(families.insert(family.name, family.metric).is_none());
    }
    families
}

/// Upper bounds in seconds and counts.
fn native(h: &client::Histogram) -> Vec<(f64, u64)> {
    let (mut index, mut count, mut deltas) = (0, 0, h.positive_delta.iter());
    let mut buckets = Vec::new();
    for span in &h.positive_span {
        index += span.offset;
        for _ in 0..span.length {
            count += deltas.next().unwrap();
            buckets.push(((f64::from(index) / 2f64.powi(h.schema)).exp2(), count as u64));
            index += 1;
        }
    }
    buckets
}

#[test]
fn totals_are_the_reports_in_every_format() {
    let exporter = Exporter::start(&["--replay", RECORDING]);
    let totals = &json(&["report", RECORDING, "--format", "json"])["totals"];
    let report = stdout(&["report", RECORDING, "--format", "openmetrics"]);
    let (head, classic) = exporter.get("/metrics", "");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    let classic = String::from_utf8(classic).unwrap();
    let openmetrics = exporter.text(OPENMETRICS);
    assert!(openmetrics.ends_with("# EOF\n") && !classic.contains("# EOF"));
    for text in [&report, &classic, &openmetrics] {
        let same = |name: &str, value: &Value| assert_eq!(sum(text, name), value.as_f64().unwrap(), "{name}");
        same("vmentry_entries_total", &totals["entries"]);
        same("vmentry_entry_to_exit_seconds_count", &totals["entries"]);
        same("vmentry_ring_entries_total", &totals["entries"]);
        same("vmentry_pin_writes_total", &totals["pin_writes"]);
        let timer_exits: u64 = totals["timer_exits"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        same("vmentry_timer_exits_total", &timer_exits.into());
    }
    // A report as OpenMetrics and the exporter write the same lines for all figures.
    let figures = |text: &str| -> Vec<String> {
        let figures = text.lines().filter(|l| l.contains("{vm=") && !l.contains("_created{"));
        figures.map(str::to_owned).collect()
    };
    assert_eq!(figures(&report), figures(&openmetrics));
}

#[test]
fn native_buckets_sums_and_counts_are_those_of_the_report_row_by_row() {
    let exporter = Exporter::start(&["--replay", RECORDING]);
    let (head, body) = exporter.get("/metrics", PROTOBUF);
    assert!(head.contains("proto=io.prometheus.client.MetricFamily; encoding=delimited"), "{head}");
    let families = families(&body);
    for (figure, metric, by) in [
        ("entry_to_exit_ns", "vmentry_entry_to_exit_seconds", "vm,level,reason,entry"),
        ("exit_to_entry_ns", "vmentry_exit_to_entry_seconds", "vm,level,reason"),
    ] {
        let report = json(&["report", RECORDING, "--format", "json", "--by", by]);
        let rows: Vec<_> = report["series"].as_array().unwrap().iter().filter(|r| !r[figure].is_null()).collect();
        assert_eq!(families[metric].len(), rows.len());
        for row in rows {
            let is_row = |m: &&client::Metric| m.label.iter().all(|l| row[l.name.as_str()] == l.value.as_str());
            let h = families[metric].iter().find(is_row).unwrap().histogram.as_ref().unwrap();
            let of = |stat: &str| row[figure][stat].as_f64().unwrap();
            let buckets = native(h);
            assert_eq!(h.sample_count as f64, of("count"));
            assert_eq!(buckets.iter().map(|b| b.1).sum::<u64>() + h.zero_count, h.sample_count);
            assert_eq!(h.bucket.last().unwrap().cumulative_count, h.sample_count, "none is above 10 s");
            assert!((h.sample_sum * 1e9 / (of("mean") * of("count")) - 1.0).abs() < 1e-12);
            for (q, stat) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max")] {
                let wanted = (q * h.sample_count as f64).ceil() as u64;
                let mut seen = h.zero_count;
                let bucket = buckets.iter().find(|b| {
                    seen += b.1;
                    seen >= wanted
                });
                let ratio = bucket.unwrap().0 * 1e9 / of(stat);
                // A native bucket's width, and a bucket of the report's beyond its bound.
                assert!((0.999..1.0219 * 1.001).contains(&ratio), "{metric} {stat}: {ratio}");
            }
        }
    }
}

#[test]
fn it_ends_in_order_on_signals() {
    for (signal, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")] {
        let (code, said) = Exporter::start(&["--replay", RECORDING]).end(signal);
        assert_eq!(code, Some(0));
        assert!(said.contains(&format!("ended by {name}")), "{said}");
    }
}

#[test]
fn signals_that_it_was_started_to_ignore_do_not_end_it() {
    let mut command = vmentry(&["export", "--listen", "127.0.0.1:0", "--replay", RECORDING]);
    on_signals(&mut command, libc::SIG_IGN);
    let exporter = Exporter::run(&mut command, 1);
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the child has not been waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(exporter.child.id() as i32, signal) }, 0);
        assert_eq!(exporter.value("vmentry_entries_total"), 272.0);
    }
    let (code, said) = exporter.end(libc::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(said.contains("ended by SIGTERM"), "{said}");
}

#[test]
fn an_exporter_of_a_recording_has_no_capability_and_a_filter_of_system_calls() {
    let exporter = Exporter::start(&["--replay", RECORDING, "--vm-labels", "pid"]);
    assert_confined(exporter.child.id(), 0);
    assert!(exporter.text(OPENMETRICS).contains("vmentry_entries_total"));
    let (code, said) = exporter.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{said}");
}

/// The lab's recording in a folder, its VM with these labels.
fn labelled(folder: &Folder, labels: &[(&str, &str)]) -> String {
    let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut reader = Reader::new(BufReader::new(fs::File::open(RECORDING).unwrap())).unwrap();
    let path = folder.file("labelled.hlog");
    let mut writer = Writer::new(fs::File::create(&path).unwrap(), &reader.header().clone()).unwrap();
    while let Some(mut interval) = reader.read_interval().unwrap() {
        for vm in interval.vms.values_mut() {
            *vm = Arc::new(Vm { labels: labels.clone().into(), ..Vm::clone(vm) });
        }
        writer.write(&interval).unwrap();
    }
    path
}

#[test]
fn labels_of_vms_travel_in_a_recording() {
    let folder = Folder::new("labelled");
    let labels = [("manager", "kubevirt"), ("namespace", "prod\"} 1\n"), ("customer", "acme")];
    let file = labelled(&folder, &labels);
    let rules = folder.file("rules");
    fs::write(&rules, "customer name ^(x)\n").unwrap();
    let keys = "name,customer,namespace,vmid";
    let exporter = Exporter::start(&["--replay", &file, "--vm-label-rules", &rules, "--vm-labels", keys]);
    let text = exporter.text(OPENMETRICS);
    // Sorted by key; the line end became another character when the recording was read.
    let expected = ",customer=\"acme\",namespace=\"prod\\\"} 1\u{fffd}\",vmid=\"\",level=\"L1\"";
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("manager="));
    let json: Value = serde_json::from_str(&stdout(&["report", &file, "--format", "json", "--by", "vm"])).unwrap();
    let of = |key: &str| json["series"][0]["labels"][key].as_str().map(str::to_owned);
    assert_eq!(
        (of("manager").as_deref(), of("customer").as_deref(), of("vmid")),
        (Some("kubevirt"), Some("acme"), None)
    );
    assert_eq!(exporter.end(libc::SIGTERM).0, Some(0));
}

#[test]
fn a_label_that_is_not_known_and_a_rule_that_is_wrong_are_refused_with_the_fix() {
    let folder = Folder::new("rules");
    let rules = folder.file("rules");
    fs::write(&rules, "customer name (\\S+)\n").unwrap();
    let said = error(&["export", "--vm-labels", "name,namespcae"], 2);
    assert!(
        said.contains("--vm-labels namespcae: no such label: did you mean namespace? write name, pid, uid"),
        "{said}"
    );
    let said = error(&["export", "--vm-labels", "custome", "--vm-label-rules", &rules], 2);
    assert!(said.contains("did you mean customer?"), "{said}");
    fs::write(&rules, "customer name (x\n").unwrap();
    for command in ["export", "record"] {
        let said = failure(&[command, "--vm-label-rules", &rules]);
        assert!(said.contains("--vm-label-rules /") && said.contains("rules: line 1: (x: "), "{said}");
    }
}

#[test]
fn paths_and_methods_that_are_not_there_are_refused() {
    let exporter = Exporter::start(&["--replay", RECORDING]);
    let status = |request: &[u8]| {
        let answer = exporter.send(request);
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or("").to_owned()
    };
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "200");
    assert_eq!(status(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), "200");
    assert_eq!(status(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), "200");
    assert_eq!(status(b"GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"), "404");
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx"), "405");
    assert_eq!(status(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"), "400");
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(status(long.as_bytes()), "431");
}

#[test]
fn an_address_that_is_taken_is_one_clear_error_and_an_open_one_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = failure(&["export", "--replay", RECORDING, "--listen", &address]);
    assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    assert!(failure(&["export", "--replay", "/no/such/file", "--listen", "127.0.0.1:0"]).contains("/no/such/file"));
    let mut open = vmentry(&["export", "--replay", RECORDING, "--listen", "0.0.0.0:0"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(open.stderr.take().unwrap()).read_line(&mut line).unwrap();
    open.kill().unwrap();
    open.wait().unwrap();
    assert!(line.contains("no password"), "{line}");
}

#[test]
fn a_textfile_needs_no_listener() {
    let folder = Folder::new("textfile");
    let file = folder.file("vmentry.prom");
    let mut child = vmentry(&["export", "--replay", RECORDING, "--textfile", &file]).spawn().unwrap();
    let start = Instant::now();
    while !Path::new(&file).exists() && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: the child has not been waited for, so that the number is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(sum(&text, "vmentry_entries_total"), 272.0);
    assert!(
        !text.contains("\nprocess_") && !text.contains("_created"),
        "node_exporter has its own, and reads classic text"
    );
    let missing = error(&["export", "--replay", RECORDING, "--textfile", "/no/folder/x.prom"], 1);
    assert!(missing.contains("/no/folder/x.prom"), "{missing}");
}

#[test]
fn a_paced_replay_begins_with_nothing_and_keeps_the_sum() {
    let exporter = Exporter::start(&["--replay", RECORDING, "--paced"]);
    let start = Instant::now();
    while exporter.value("vmentry_entries_total") < 272.0 && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(600));
    assert_eq!(exporter.value("vmentry_entries_total"), 272.0);
}

#[test]
fn the_bound_of_series_is_kept_and_seen() {
    let exporter = Exporter::start(&["--replay", RECORDING, "--max-series", "5"]);
    let text = exporter.text("");
    assert_eq!(sum(&text, "vmentry_entries_total"), 272.0);
    assert_eq!(sum(&text, "vmentry_series_limit"), 5.0);
    let folded = sum(&text, "vmentry_folded_entries_total");
    assert!(folded > 0.0 && text.contains("vm=\"other\""), "{folded}");
}

/// The lab's recording as another host would have made it.
fn of_another_host(folder: &Folder) -> String {
    let text = fs::read_to_string(RECORDING).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let mut header: Value = serde_json::from_str(&first[1..]).unwrap();
    header["host"]["name"] = "b".into();
    header["host"]["boot_id"] = "another".into();
    header["policy"] = "hard".into();
    let file = folder.file("b.hlog");
    fs::write(&file, format!("#{header}\n{rest}")).unwrap();
    file
}

#[test]
fn a_report_on_a_merge_is_the_report_on_its_recordings() {
    let folder = Folder::new("merge");
    let (other, merged, twice) = (of_another_host(&folder), folder.file("m.hlog"), folder.file("mm.hlog"));
    stdout(&["merge", "-o", &merged, RECORDING, &other]);
    stdout(&["merge", "-o", &twice, &merged, RECORDING]);
    for args in [
        &["--format", "json"][..],
        &["--format", "html"],
        &["--format", "openmetrics"],
        &["--by", "host,reason"],
        &[],
        &["--filter", "host=b"],
    ] {
        assert_eq!(
            stdout(&[&["report", RECORDING, &other], args].concat()),
            stdout(&[&["report", &merged], args].concat()),
            "{args:?}"
        );
        assert_eq!(
            stdout(&[&["report", RECORDING, &other, RECORDING], args].concat()),
            stdout(&[&["report", &twice], args].concat()),
            "{args:?}"
        );
    }
    let report = json(&["report", &merged, "--format", "json", "--by", "host"]);
    assert_eq!(report["policy"], "mixed");
    let rows: Vec<_> = report["series"].as_array().unwrap().iter().map(|r| (&r["host"], &r["entries"])).collect();
    assert_eq!(rows, [(&"b".into(), &272.into()), (&"lab".into(), &272.into())]);
    let exporter = Exporter::start(&["--replay", &merged]);
    assert_eq!(exporter.value("vmentry_entries_total"), 544.0);
    assert!(exporter.text("").contains("host=\"b\""));
}

#[test]
fn a_merge_never_writes_over_what_it_reads_and_is_refused_where_it_makes_no_sense() {
    let folder = Folder::new("refused");
    let (other, merged) = (of_another_host(&folder), folder.file("m.hlog"));
    stdout(&["merge", "-o", &merged, RECORDING, &other]);
    let before = fs::read(&other).unwrap();
    assert!(error(&["merge", "--overwrite", "-o", &other, RECORDING, &other], 2).contains("another name"));
    assert_eq!(fs::read(&other).unwrap(), before);
    assert!(failure(&["merge", "-o", &merged, RECORDING]).contains("--overwrite"));
    assert!(error(&["live", "--replay", &merged], 2).contains("is a merge of 2 recordings"));
    assert!(failure(&["compare", &merged, RECORDING]).contains("merge of 2"));
    assert!(failure(&["report", "--claims", &merged]).contains("merge"));
    let bytes = fs::read(&merged).unwrap();
    let torn = folder.file("torn.hlog");
    fs::write(&torn, &bytes[..bytes.len() * 9 / 10]).unwrap();
    let report = json(&["report", &torn, "--format", "json"]);
    assert!(report["recordings"].as_array().unwrap().iter().all(|r| r["ended"].is_null()));
    let strange = String::from_utf8(bytes).unwrap().replace("\"source\":1", "\"source\":2");
    fs::write(&torn, strange).unwrap();
    assert!(failure(&["report", &torn]).contains("damaged"));
}

#[test]
fn the_table_of_metrics_is_what_is_exported() {
    let table = json(&["export", "--list-metrics"]);
    assert_eq!(table["format"], "vmentry-metrics/1");
    let exporter = Exporter::start(&["--replay", RECORDING]);
    let exported = families(&exporter.get("/metrics", PROTOBUF).1);
    let names: Vec<_> = table["metrics"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    // This recording was made before parts of host time, details and evictions were counted: a metric without a value has no sample.
    let unknown: Vec<_> = names.iter().filter(|name| !exported.contains_key(**name)).collect();
    let later = ["phase_seconds", "detail_exits", "detail_host_seconds", "evicted_vcpus"];
    assert_eq!(unknown, later.map(|name| format!("vmentry_{name}_total")).each_ref());
    assert_eq!(names.len(), exported.len() + unknown.len());
}

#[test]
#[ignore = "needs root and KVM"]
fn live_export_answers_and_leaves_nothing_attached() {
    let loaded = || -> usize {
        let programs = aya::programs::loaded_programs().flatten();
        programs.filter(|p| p.name_as_str().is_some_and(|n| n.starts_with("kvm_e"))).count()
    };
    let exporter = Exporter::start(&["--interval", "50ms"]);
    let start = Instant::now();
    while exporter.value("vmentry_intervals_total") < 3.0 && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(loaded() >= 2);
    assert_confined(exporter.child.id(), 0);
    assert!(exporter.get("/healthz", "").0.starts_with("HTTP/1.1 200"));
    assert!(exporter.value("vmentry_last_interval_timestamp_seconds") > 1.7e9);
    let (code, said) = exporter.end(libc::SIGTERM);
    assert_eq!(code, Some(0), "{said}");
    // The kernel frees programs a moment later.
    let end = Instant::now();
    while loaded() > 0 {
        assert!(end.elapsed() < Duration::from_secs(20), "programs are left attached");
        thread::sleep(Duration::from_millis(10));
    }
}
