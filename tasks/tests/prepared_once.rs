//! A program's requests, too, are checked, rendered and tokenized once, however they are run.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fmt;
use std::sync::{Arc, Mutex};

use multiway_model::{Checkpoint, ImageProcessor};
use multiway_prompts::InputValue;
use multiway_runtime::Engine;
use multiway_tasks::{TaskInputs, TaskLibrary};
use tracing_subscriber::layer::SubscriberExt;

/// Collects the messages of events.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<String>>>);

impl Messages {
    /// Counts what was done since the last call: inputs checked, prompts rendered, prompts tokenized.
    fn counts(&self) -> [usize; 3] {
        let messages = std::mem::take(&mut *self.0.lock().unwrap());
        ["checked the inputs", "rendered a prompt", "tokenizing a prompt"]
            .map(|wanted| messages.iter().filter(|message| *message == wanted).count())
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Messages {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl tracing::field::Visit for Message<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Message(&mut self.0.lock().unwrap()));
    }
}

#[test]
fn a_request_is_prepared_once_however_it_is_run() {
    let messages = Messages::default();
    let subscriber = tracing_subscriber::registry().with(messages.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let engine = Engine::builder(&checkpoint).build().unwrap();
    let library = TaskLibrary::for_model(checkpoint.config()).unwrap();
    let cat = ImageProcessor::new(checkpoint.config())
        .open("../examples/pictures/cat.png")
        .unwrap();
    let with_image = || TaskInputs::new().with_image(cat.clone());
    let requests = [
        ("caption", with_image()),
        ("vqa", with_image().with("question", "what is it?")),
        (
            "classify",
            with_image().with("choices", InputValue::List(vec!["cat".into(), "dog".into()])),
        ),
        ("infill", TaskInputs::new().with("text", "one ___ two ___")),
        ("retrieve", TaskInputs::new().with("text", "apple")),
        (
            "patches",
            with_image().with("hide", InputValue::List(vec!["1:1".into()])),
        ),
    ];
    for (name, inputs) in requests {
        let task = library.get(name).unwrap();
        assert_eq!(messages.counts(), [0, 0, 0]);
        task.run(&engine, &inputs).unwrap().wait_blocking().unwrap();
        assert_eq!(messages.counts(), [1, 1, 1], "{name}");
        let prepared = task.prepare(engine.tokenizer(), &inputs).unwrap();
        assert_eq!(messages.counts(), [1, 1, 0], "{name}, prepared");
        let mut run = prepared.run(&engine).unwrap();
        while let Some(event) = run.next_blocking() {
            event.unwrap();
        }
        assert_eq!(messages.counts(), [0, 0, 1], "{name}, run");
    }
}
