//! Streams of events, as browsers and OpenAI's clients read them.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use crate::shared::Place;

/// A comment is sent so often while nothing is written, lest a proxy close the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An event: data, data with a name, or the last words of OpenAI's streams.
#[derive(Debug)]
pub(crate) enum Sent {
    Data(Value),
    Named(&'static str, Value),
    Done,
}

/// Answers with a stream; the place is kept until its end, or until the client leaves.
pub(crate) fn respond(events: impl Stream<Item = Sent> + Send + 'static, place: Place) -> Response {
    let events = events.map(move |sent| {
        let _held = &place;
        Ok::<Event, Infallible>(match sent {
            Sent::Data(value) => Event::default().data(value.to_string()),
            Sent::Named(name, value) => Event::default().event(name).data(value.to_string()),
            Sent::Done => Event::default().data("[DONE]"),
        })
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}
