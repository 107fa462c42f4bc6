//! `multiway serve` as a process: an address on standard output, answers, and an end by signals.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![cfg(all(unix, feature = "serve"))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_multiway"))
            .args(["serve", "--port", "0"])
            .args(arguments)
            .env_remove("MULTIWAY_API_KEY")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect(&line).to_owned();
        Self { process, address }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

#[test]
fn a_server_answers_until_it_is_told_to_stop() {
    let mut served = Served::start(&["--api-key", "s3cret"]);
    let health = served.ask("GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let refused = served.ask("GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let body = r#"{"prompt": "a cat", "max_tokens": 3}"#;
    let answer = served.ask(&format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer s3cret\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"model\":\"multiway\""),
        "{answer}"
    );
    let metrics = served
        .ask("GET /metrics HTTP/1.1\r\nhost: a\r\nauthorization: Bearer s3cret\r\nconnection: close\r\n\r\n");
    assert!(metrics.contains("multiway_"), "{metrics}");
    served.signal("-TERM");
    assert!(served.process.wait().unwrap().success());
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let served = Served::start(&[]);
    let port = served.address.rsplit_once(':').unwrap().1;
    let second = Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(["serve", "--port", port])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(2));
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains("cannot listen on 127.0.0.1:"), "{error}");
}
