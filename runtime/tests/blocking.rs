//! Waiting for answers on a thread that runs asynchronous code.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::mpsc::channel;
use std::time::Duration;

use futures_util::FutureExt;
use multiway_prompts::Prompt;
use multiway_runtime::testing::tiny_engine;
use multiway_runtime::{Engine, Request};

/// Longer than any machine takes for the answers of this file: what is not there then never comes.
const FOR_EVER: Duration = Duration::from_secs(120);

fn request() -> Request {
    Request::new(Prompt::from_text("a cat"), Vec::new())
}

/// Takes what a tokio task may take before it has to wait for its scheduler.
fn exhaust_budget() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..1000 {
        sender.send(number).unwrap();
    }
    let received = std::iter::from_fn(|| receiver.recv().now_or_never()).count();
    assert!(received < 1000, "a task without a budget");
}

#[test]
fn what_blocks_in_a_tokio_task_without_any_budget_left_gets_its_answer() {
    let (done, answers) = channel();
    std::thread::spawn(move || {
        let engine: Engine = tiny_engine().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(async move {
            exhaust_budget();
            let vector = engine.embed(request()).wait_blocking().unwrap().value;
            exhaust_budget();
            let answer = engine.generate_blocking(request()).unwrap();
            (vector.len(), answer.tokens.len())
        });
        done.send(runtime.block_on(task).unwrap()).unwrap();
    });
    let (dimensions, tokens) = answers.recv_timeout(FOR_EVER).unwrap();
    assert!(dimensions > 0 && tokens > 0);
}
