//! The real binary in front of a hub that is busy.
#![cfg(all(unix, feature = "hub"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;

const SIGINT: i32 = 2;

#[test]
fn an_interrupt_ends_the_wait_for_a_busy_hub() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (answered, answers) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map(Result::unwrap);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            answered.send(()).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(["inspect", "hf:owner/small"])
        .env("HF_ENDPOINT", address)
        .env("HF_HUB_CACHE", folder.path())
        .env_remove("HF_HUB_OFFLINE")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    answers.recv().unwrap();
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(SIGINT));
    assert!(answers.try_recv().is_err(), "it asked again before it ended");
}
