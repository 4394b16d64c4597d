//! The real exporter among clients that it must not trust: idle, slow and many ones, web pages, and the sockets on which it may listen.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;
mod exporter;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, symlink},
            net::{UnixListener, UnixStream},
        },
    },
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use binary::{Folder, command as vmentry, err};
use exporter::{Exporter, RECORDING, exchange};
use rustix::net::{AddressFamily, SocketType, sockopt::set_socket_recv_buffer_size};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";
/// A scrape takes less, however busy the machine is. Without eviction, those of these tests take 15 s at least, or fail.
const SOON: Duration = Duration::from_secs(8);

/// The lab's recording with so many VMs.
fn of_many_vms(folder: &Folder, vms: usize) -> String {
    let lab = fs::read_to_string(RECORDING).unwrap();
    let begins = |start: &'static str| lab.lines().filter(move |l| l.starts_with(start));
    let mut text: String = lab.lines().take(3).map(|l| format!("{l}\n")).collect();
    // Guest time, host time and pin-control writes of 14 entries.
    let series = begins("Tag=vm=0;vcpu=0;level=L1;isa=vmx;reason=1;").map(|l| format!("{l}\n")).collect::<String>();
    for vm in 0..vms {
        let name = format!("a-name-as-long-as-those-of-a-cloud-{vm}");
        text +=
            &format!("#{{\"vm\":{{\"id\":{vm},\"name\":\"{name}\",\"tgid\":{vm},\"start_ticks\":1,\"ordinal\":0}}}}\n");
    }
    for vm in 0..vms {
        text += &series.replace("vm=0;", &format!("vm={vm};"));
    }
    text += &format!("{}\n", begins("#{\"interval\"").next().unwrap().replace(":272,", &format!(":{},", 14 * vms)));
    let file = folder.file("many.hlog");
    fs::write(&file, text).unwrap();
    file
}

/// A connection that has asked for metrics and takes little of them.
fn slow_reader(exporter: &Exporter) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &exporter.addresses[0].parse::<SocketAddr>().unwrap()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// A connection whose request does not end.
fn idle(exporter: &Exporter) -> TcpStream {
    let mut stream = exporter.connect();
    stream.write_all(b"GET /m").unwrap();
    stream
}

/// Scrapes, which must give all metrics soon.
fn scrape(exporter: &Exporter) {
    let start = Instant::now();
    let (head, body) = exporter.get("/metrics", OPENMETRICS);
    assert!(head.starts_with("HTTP/1.1 200 ") && body.ends_with(b"# EOF\n"), "{head}: {} bytes", body.len());
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn idle_and_slow_clients_keep_no_scrape_waiting_and_refuse_none() {
    let folder = Folder::new("many");
    let exporter = Exporter::start(&["--replay", &of_many_vms(&folder, 400)]);
    let before = exporter.value("process_resident_memory_bytes");
    let mut waiting: Vec<_> = (0..200).map(|_| idle(&exporter)).collect();
    scrape(&exporter);
    // A second apart, each reads another answer.
    let mut slow = Vec::new();
    for round in 0..6 {
        slow.extend((0..if round == 5 { 15 } else { 1 }).map(|_| slow_reader(&exporter)));
        thread::sleep(Duration::from_secs(1));
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                waiting.push(idle(&exporter));
                waiting.remove(0);
                thread::sleep(Duration::from_millis(5));
            }
        });
        for _ in 0..6 {
            scrape(&exporter);
            thread::sleep(Duration::from_millis(300));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let after = exporter.value("process_resident_memory_bytes");
    assert!(after < before + f64::from(100 << 20), "{before} -> {after}");
    drop((waiting, slow));
    scrape(&exporter);
    assert_eq!(exporter.end(libc::SIGTERM).0, Some(0));
}

#[test]
fn readers_that_take_all_places_are_cut_off_for_a_scrape() {
    let folder = Folder::new("places");
    let exporter = Exporter::start(&["--replay", &of_many_vms(&folder, 400)]);
    let slow: Vec<_> = (0..200).map(|_| slow_reader(&exporter)).collect();
    scrape(&exporter);
    // The first ones are reset.
    let mut answer = Vec::new();
    slow[0].set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!((&slow[0]).read_to_end(&mut answer).is_err(), "{} bytes and an ordinary end", answer.len());
}

#[test]
fn a_client_that_says_nothing_is_cut_off_and_many_quick_ones_are_all_answered() {
    let exporter = Exporter::start(&["--replay", RECORDING]);
    let silent = exporter.connect();
    let start = Instant::now();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..200).map(|_| scope.spawn(|| exporter.get("/metrics", OPENMETRICS).1)).collect();
        let answers = asking.into_iter().map(|a| a.join().unwrap());
        assert!(answers.into_iter().all(|a| a.ends_with(b"# EOF\n")), "every one of 200 has its whole answer");
    });
    let _ = (&silent).read(&mut [0; 512]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn fewer_descriptors_than_clients_do_no_harm() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_vmentry"), "export"]);
    command.args(["--listen", "127.0.0.1:0", "--replay", RECORDING]).stderr(Stdio::piped());
    let exporter = Exporter::run(&mut command, 1);
    let waiting: Vec<_> = (0..100).map(|_| idle(&exporter)).collect();
    for _ in 0..5 {
        scrape(&exporter);
    }
    drop(waiting);
}

/// Status and text of an answer to a request for metrics with this Host header.
fn answer_to(exporter: &Exporter, host: &str) -> (String, String) {
    let answer = exporter.send(format!("GET /metrics HTTP/1.1\r\n{host}\r\n").as_bytes());
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{answer}");
    (answer[9..12].to_owned(), answer)
}

#[test]
fn a_web_page_whose_name_was_made_to_resolve_to_loopback_reads_nothing() {
    let exporter = Exporter::start(&["--replay", RECORDING]);
    let (status, text) = answer_to(&exporter, "Host: evil.example:9753\r\n");
    assert!(status == "421" && text.contains("--allow-host") && !text.contains("vmentry_entries"), "{text}");
    for host in ["Host: localhost:9753\r\n", "Host: 127.0.0.1\r\n", "Host: [::1]:9753\r\n", ""] {
        assert_eq!(answer_to(&exporter, host).0, "200", "{host}");
    }
    let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(answer_to(&exporter, &format!("Host: {own}\r\n")).0, "200");
    let exporter = Exporter::start(&["--replay", RECORDING, "--allow-host", "metrics.example"]);
    assert_eq!(answer_to(&exporter, "Host: Metrics.Example:80\r\n").0, "200");
    assert_eq!(answer_to(&exporter, "Host: evil.example\r\n").0, "421");
}

#[test]
fn an_address_for_other_hosts_answers_to_every_name_unless_names_are_given() {
    // No packet is sent.
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
    let Some(ip) = route.ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && *ip != Ipv4Addr::UNSPECIFIED) else {
        eprintln!("SKIPPED: this host has no address but loopback");
        return;
    };
    let listen = format!("{ip}:0");
    let status = |args: &[&str]| {
        let args = [&["export", "--listen", &listen, "--replay", RECORDING], args].concat();
        answer_to(&Exporter::run(&mut vmentry(&args), 1), "Host: node7.example.org:9753\r\n").0
    };
    assert_eq!(status(&[]), "200");
    assert_eq!(status(&["--allow-host", "another.example.org"]), "421");
}

fn over_unix(path: &str) -> String {
    let answer = exchange(UnixStream::connect(path).unwrap(), b"GET /metrics HTTP/1.1\r\nHost: any\r\n\r\n");
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_unix_socket_is_for_owner_and_group_and_goes_with_the_exporter() {
    let folder = Folder::new("unix");
    let path = folder.file("metrics.sock");
    let listen = format!("unix:{path}");
    let args = ["export", "--replay", RECORDING, "--listen", &listen];
    let exporter = Exporter::run(&mut vmentry(&args), 1);
    assert_eq!(exporter.addresses[0], path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    assert!(over_unix(&path).contains("\nvmentry_entries_total{"));
    let second = vmentry(&args).output().unwrap();
    assert!(second.status.code() == Some(1) && err(&second).contains("another process listens"), "{second:?}");
    assert_eq!(exporter.end(libc::SIGTERM).0, Some(0));
    assert!(!fs::exists(&path).unwrap());
    // A killed one leaves its socket, which the next one replaces.
    drop(Exporter::run(&mut vmentry(&args), 1));
    assert!(fs::exists(&path).unwrap());
    let exporter = Exporter::run(&mut vmentry(&args), 1);
    assert!(over_unix(&path).starts_with("HTTP/1.1 200 "));
    // It removes no file but its own.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    assert_eq!(exporter.end(libc::SIGTERM).0, Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
}

#[test]
fn a_unix_socket_replaces_no_file_and_follows_no_link() {
    let folder = Folder::new("taken");
    let (stale, file, link) = (folder.file("stale"), folder.file("file"), folder.file("link"));
    drop(UnixListener::bind(&stale).unwrap());
    fs::write(&file, "kept").unwrap();
    symlink(&stale, &link).unwrap();
    for path in [&file, &link, &folder.file("no/folder")] {
        let refused =
            vmentry(&["export", "--replay", RECORDING, "--listen", &format!("unix:{path}")]).output().unwrap();
        assert!(refused.status.code() == Some(1) && err(&refused).contains(path.as_str()), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::metadata(&stale).unwrap().file_type().is_socket());
    for wrong in ["unix:", &format!("unix:/{}", "x".repeat(200))] {
        let refused = vmentry(&["export", "--replay", RECORDING, "--listen", wrong]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}

/// The exporter with sockets that it inherits as from systemd: the first is its standard input, the second its standard output, until
/// a shell makes them descriptors 3 and 4.
fn activated(count: &str, sockets: [OwnedFd; 2], args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ LISTEN_FDS=$COUNT exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_vmentry"), "export", "--replay", RECORDING]).args(args);
    let [first, second] = sockets;
    command.env("COUNT", count).stdin(first).stdout(second).stderr(Stdio::piped());
    command
}

#[test]
fn sockets_of_systemd_are_served_and_stay_when_the_exporter_ends() {
    let folder = Folder::new("activated");
    let path = folder.file("inherited.sock");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    let address = tcp.local_addr().unwrap().to_string();
    let sockets = || [tcp.try_clone().unwrap().into(), unix.try_clone().unwrap().into()];
    // Asks before anybody serves: the socket listens already.
    let mut early = TcpStream::connect(&address).unwrap();
    early.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let exporter = Exporter::run(&mut activated("2", sockets(), &["--listen", &address]), 2);
    assert_eq!(exporter.addresses, [address.clone(), path.clone()], "the address that is given again is served once");
    scrape(&exporter);
    assert!(over_unix(&path).starts_with("HTTP/1.1 200 "));
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(exporter.end(libc::SIGTERM).0, Some(0));
    assert!(fs::exists(&path).unwrap(), "the socket is systemd's to remove");
    // Nobody else can take the port until the next one serves it; more addresses may be added.
    assert!(TcpListener::bind(&address).is_err());
    let exporter = Exporter::run(&mut activated("1", sockets(), &["--listen", "127.0.0.1:0"]), 2);
    assert_eq!(exporter.addresses[0], address);
    scrape(&exporter);
}

#[test]
fn sockets_that_cannot_be_served_and_addresses_that_collide_are_clear_errors() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let taken = || tcp.try_clone().unwrap().into();
    let said = |mut command: Command| err(&command.output().unwrap());
    let everywhere = format!("0.0.0.0:{}", address.port());
    let error = said(activated("1", [taken(), taken()], &["--listen", &everywhere]));
    assert!(
        error.contains(&everywhere) && error.contains(&address.to_string()) && error.contains("ListenStream="),
        "{error}"
    );
    let datagrams = || UdpSocket::bind("127.0.0.1:0").unwrap().into();
    assert!(said(activated("1", [datagrams(), taken()], &[])).contains("ListenStream="));
    assert!(said(activated("many", [taken(), taken()], &[])).contains("LISTEN_FDS"));
    // Another process's sockets.
    let mut other = vmentry(&["export", "--replay", RECORDING, "--listen", "127.0.0.1:0"]);
    let exporter = Exporter::run(other.env("LISTEN_PID", "1").env("LISTEN_FDS", "1"), 1);
    scrape(&exporter);
}
