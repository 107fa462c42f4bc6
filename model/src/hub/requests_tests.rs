//! What is asked of a hub that sends requests elsewhere, with a token.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::requests::{Fault, Pause, Requests};

/// A server that gives each request the next of its answers, and the requests that it saw.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (answer, stream) in answers.into_iter().zip(listener.incoming()) {
                let mut stream = stream.unwrap();
                shared.lock().unwrap().push(head(&stream));
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Reads a request's lines, in small letters.
fn head(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join("\n").to_lowercase()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Asks without a second try, with a token.
fn requests() -> Requests {
    Requests::new(Some("secret".to_owned()), Pause(Arc::new(|_| {})))
}

#[test]
fn a_file_is_what_the_hub_calls_it_and_the_token_stays_with_the_hub() {
    let part = "Content-Range: bytes 0-0/1234\r\nETag: \"of-the-store\"\r\n";
    let store = Server::start(vec![answer("206 Partial Content", part, "x")]);
    // The same host at another port is somebody else too.
    let store_address = &store.address;
    let elsewhere = format!("X-Linked-ETag: W/\"of-the-hub\"\r\nLocation: {store_address}/blob\r\n");
    let hub = Server::start(vec![
        answer("307 Temporary Redirect", "Location: /renamed/file\r\n", ""),
        answer("302 Found", &elsewhere, ""),
        answer("302 Found", &elsewhere, ""),
    ]);
    let announced = requests().announced(&format!("{}/file", hub.address)).unwrap();
    assert_eq!((announced.etag.as_str(), announced.size), ("of-the-hub", 1234));
    let (to_hub, to_store) = (hub.seen(), store.seen());
    assert!(to_hub[1].starts_with("get /renamed/file "), "{to_hub:?}");
    assert!(
        to_hub
            .iter()
            .all(|head| head.contains("authorization: bearer secret"))
    );
    assert!(!to_store[0].contains("authorization"), "{to_store:?}");
}

#[test]
fn a_length_that_the_hub_says_itself_saves_a_request() {
    let headers = "X-Linked-ETag: \"a\"\r\nX-Linked-Size: 99\r\nLocation: http://127.0.0.1:1/blob\r\n";
    let hub = Server::start(vec![answer("302 Found", headers, "")]);
    let announced = requests().announced(&format!("{}/file", hub.address)).unwrap();
    assert_eq!((announced.etag.as_str(), announced.size), ("a", 99));
}

#[test]
fn answers_that_say_too_little_or_lead_in_circles_are_refused_at_once() {
    let circle = answer("302 Found", "Location: /again\r\n", "");
    for (answers, expected) in [
        (vec![circle; 20], "sent elsewhere 8 times"),
        (vec![answer("200 OK", "", "x")], "ETag is missing"),
        (
            vec![answer("206 Partial Content", "ETag: \"a\"\r\n", "x")],
            "how long the file is",
        ),
    ] {
        let hub = Server::start(answers);
        let fault = requests()
            .announced(&format!("{}/file", hub.address))
            .err()
            .unwrap();
        assert!(matches!(fault, Fault::Answer(_)), "{fault:?}");
        assert!(fault.to_string().contains(expected), "{fault}");
    }
}
