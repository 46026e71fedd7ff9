//! The node under a service manager: what it is told and when, and sockets that were there before.

#![expect(clippy::expect_used, reason = "a test may stop at the first broken assumption")]

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use waypost::testkit::client::Client;

/// Longer than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a node that a failed test leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().expect("a shell");
        assert!(sent.success(), "{name}");
    }
}

fn configure(dir: &Path, listen: &str) {
    std::fs::create_dir_all(dir.join("files")).expect("a directory");
    std::fs::write(dir.join("files/a.txt"), "here").expect("a file");
    let text = format!(
        "[server]\nplain_listen = \"{listen}\"\n\n[cache]\ndir = \"cache\"\nmin_free = \"0B\"\n\n\
         [[repository]]\nname = \"files\"\npath = \"/\"\ndirectory = \"files\"\n\n[log]\nformat = \"json\"\n"
    );
    std::fs::write(dir.join("waypost.toml"), text).expect("a file");
}

fn next(manager: &UnixDatagram) -> String {
    let mut message = [0; 512];
    let length = manager.recv(&mut message).expect("the node says something");
    String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned()
}

/// The next message that is about something else than being alive.
fn next_change(manager: &UnixDatagram) -> String {
    loop {
        let message = next(manager);
        if message != "WATCHDOG=1" {
            return message;
        }
    }
}

#[test]
fn the_service_manager_is_told_what_happens() {
    let dir = tempfile::tempdir().expect("a directory");
    configure(dir.path(), "127.0.0.1:0");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let child = Command::new(env!("CARGO_BIN_EXE_waypost"))
        .args(["serve", "-c", "waypost.toml"])
        .current_dir(dir.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::null())
        .spawn();
    let mut node = Running(child.expect("the program starts"));
    assert_eq!(next_change(&manager), "READY=1");
    while next(&manager) != "WATCHDOG=1" {}
    node.signal("HUP");
    let reloading = next_change(&manager);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next_change(&manager), "READY=1");
    node.signal("TERM");
    assert_eq!(next_change(&manager), "STOPPING=1");
    assert!(node.0.wait().expect("a child").success());
}

#[tokio::test]
async fn a_socket_that_was_there_before_is_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    configure(dir.path(), &address.to_string());
    // The service manager's side: the socket as descriptor 3, and whose it is.
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve -c waypost.toml 3<&0 0</dev/null";
    let child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_waypost")])
        .current_dir(dir.path())
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone().expect("a copy"))))
        .stderr(Stdio::null())
        .spawn();
    let _node = Running(child.expect("the program starts"));
    // Queued in the kernel until the node takes it: no moment at which the port is closed.
    let mut client = Client::connect(address).await.expect("it listens already").patient(PATIENCE);
    let answer = client.get("/a.txt", &[]).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_ref()), (200, b"here".as_slice()));
}
