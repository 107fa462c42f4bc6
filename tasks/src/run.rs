//! A running task: streams its answer.

use std::collections::BTreeSet;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use multiway_prompts::{Calibration, PatchRange, fill_gaps};
use multiway_runtime::{
    CodeScore, Engine, FinishReason, Request, RequestError, StreamEvent, Timings, TokenId, TokenStream,
    Usage, WordScore, block_on,
};

use crate::answer::{Answer, PatchAnswer, TaskOutcome, VisualCode, WrittenToken};
use crate::error::TaskError;
use crate::infill::Gaps;
use crate::ranking::{Ranked, choose, classify, descend, score};
use crate::reading::Reader;
use crate::samples::draw;

/// Reports progress of a running task.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "a run has one of the large ones, at its end"
)]
pub enum TaskEvent {
    /// More of the text. All pieces joined are the text of the answer.
    Text(String),
    /// The answer is complete; this is the last event.
    Finished(TaskOutcome),
}

/// The number of top-k visual codes of each hidden patch.
const CODES_PER_PATCH: usize = 5;

/// How an answer is built from the engine's result.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Text,
    /// The text whose gaps are filled.
    Filled(String),
    /// The answers to rank.
    Ranked(Ranked),
    /// One of the answers of the constraint.
    Trie,
    /// The classes of the model's head.
    Class(Option<Calibration>),
    /// The text to score.
    Score(String),
    /// Text that a value is read from.
    Read(Reader),
    /// The text whose gaps are masks, of one word each.
    Masked(String),
    Embedding,
    /// The patches of the first picture to hide.
    Patches(Vec<PatchRange>),
    Json,
}

impl Shape {
    /// Tells whether the answer is generated token by token, so that several may be drawn.
    pub(crate) fn is_generated(&self) -> bool {
        matches!(self, Self::Text | Self::Filled(_) | Self::Read(_) | Self::Json)
    }
}

/// Gives the events of a running task. Dropping it cancels the request.
///
/// It is a [`Stream`] for asynchronous programs, and [`next_blocking`](Self::next_blocking) serves all
/// others. Nothing is sent to the engine before it is first polled.
#[must_use = "a run does nothing until it is polled, and dropping it cancels the request"]
pub struct TaskRun {
    events: BoxStream<'static, Result<TaskEvent, TaskError>>,
}

impl TaskRun {
    pub(crate) fn new(engine: Engine, task: String, request: Request, shape: Shape) -> Self {
        let events = match shape {
            Shape::Text => text_events(engine, request, None),
            Shape::Filled(original) => {
                let gaps = Gaps::new(original, &request.sampling.prefix);
                text_events(engine, request, Some(gaps))
            }
            Shape::Json => text_events(engine, request, None)
                .map(move |event| event.and_then(|event| json_event(&task, event)))
                .boxed(),
            Shape::Read(reader) => text_events(engine, request, None)
                .map(move |event| event.map(|event| read_event(&reader, event)))
                .boxed(),
            Shape::Ranked(ranked) => stream::once(choose(engine, task, request, ranked))
                .flat_map(whole_answer)
                .boxed(),
            Shape::Trie => stream::once(descend(engine, request))
                .flat_map(whole_answer)
                .boxed(),
            Shape::Score(target) => stream::once(score(engine, task, request, target))
                .flat_map(whole_answer)
                .boxed(),
            Shape::Class(calibration) => stream::once(classify(engine, task, request, calibration))
                .flat_map(whole_answer)
                .boxed(),
            Shape::Masked(original) => stream::once(unmask(engine, request, original))
                .flat_map(whole_answer)
                .boxed(),
            Shape::Embedding => stream::once(embed(engine, request))
                .flat_map(whole_answer)
                .boxed(),
            Shape::Patches(hidden) => stream::once(uncover(engine, task, request, hidden))
                .flat_map(whole_answer)
                .boxed(),
        };
        Self { events }
    }

    /// Waits for the next event on this thread; not for use in asynchronous code.
    pub fn next_blocking(&mut self) -> Option<Result<TaskEvent, TaskError>> {
        block_on(self.events.next())
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    ///
    /// When the engine refuses the request or fails on it.
    pub async fn wait(mut self) -> Result<TaskOutcome, TaskError> {
        while let Some(event) = self.events.next().await {
            if let TaskEvent::Finished(outcome) = event? {
                return Ok(outcome);
            }
        }
        Err(RequestError::ShutDown.into())
    }

    /// Waits for the whole answer on this thread; not for use in asynchronous code.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_blocking(self) -> Result<TaskOutcome, TaskError> {
        block_on(self.wait())
    }
}

impl Stream for TaskRun {
    type Item = Result<TaskEvent, TaskError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

impl fmt::Debug for TaskRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRun").finish_non_exhaustive()
    }
}

type Events = Vec<Result<TaskEvent, TaskError>>;

/// Sends a request and turns its tokens into text. Text that fills gaps comes whole, since a gap is known
/// only when the next one starts, and so does one of several texts that are drawn.
fn text_events(
    engine: Engine,
    request: Request,
    gaps: Option<Gaps>,
) -> BoxStream<'static, Result<TaskEvent, TaskError>> {
    if request.sampling.drawn() > 1 {
        let drawn = draw(engine, request, gaps);
        return stream::once(drawn).flat_map(whole_answer).boxed();
    }
    let mut writing = Writing {
        engine: engine.clone(),
        gaps,
        text: String::new(),
        tokens: Vec::new(),
        written: Vec::new(),
    };
    let submitted = async move { engine.generate(request).await };
    stream::once(submitted)
        .flat_map(token_events)
        .flat_map(move |event| stream::iter(writing.events(event)))
        .boxed()
}

fn token_events(
    submitted: Result<TokenStream, RequestError>,
) -> BoxStream<'static, Result<StreamEvent, RequestError>> {
    match submitted {
        Ok(tokens) => tokens.boxed(),
        Err(error) => stream::once(ready(Err(error))).boxed(),
    }
}

/// The state of a streamed generation.
struct Writing {
    engine: Engine,
    gaps: Option<Gaps>,
    text: String,
    /// All tokens; those that fill gaps are read at the end.
    tokens: Vec<TokenId>,
    /// The tokens whose alternatives were told.
    written: Vec<WrittenToken>,
}

impl Writing {
    fn events(&mut self, event: Result<StreamEvent, RequestError>) -> Events {
        match event {
            Ok(StreamEvent::Token {
                id,
                text,
                log_probability,
                alternatives,
                ..
            }) => {
                if !alternatives.is_empty() {
                    let tokenizer = self.engine.tokenizer();
                    let written = WrittenToken::new(tokenizer, id, log_probability, &alternatives);
                    self.written.push(written);
                }
                self.token(id, text)
            }
            Ok(StreamEvent::Finished {
                finish_reason,
                usage,
                timings,
            }) => self.finish(finish_reason, usage, timings),
            Ok(_) => Vec::new(),
            Err(error) => vec![Err(error.into())],
        }
    }

    fn token(&mut self, id: TokenId, text: String) -> Events {
        self.tokens.push(id);
        if text.is_empty() || self.gaps.is_some() {
            return Vec::new();
        }
        self.text.push_str(&text);
        vec![Ok(TaskEvent::Text(text))]
    }

    fn finish(&mut self, finish_reason: FinishReason, usage: Usage, timings: Timings) -> Events {
        let answer = match self.gaps.take() {
            Some(gaps) => gaps.fill(self.engine.tokenizer(), &self.tokens),
            None => Answer::Text {
                text: std::mem::take(&mut self.text),
                spans: Vec::new(),
            },
        };
        let filled = match &answer {
            Answer::Text { text, spans } if !spans.is_empty() => Some(Ok(TaskEvent::Text(text.clone()))),
            _ => None,
        };
        let outcome = TaskOutcome {
            answer,
            finish_reason: Some(finish_reason),
            usage,
            timings,
            tokens: std::mem::take(&mut self.written),
            answer_tokens: std::mem::take(&mut self.tokens),
            samples: Vec::new(),
            candidate_mass: None,
        };
        filled
            .into_iter()
            .chain([Ok(TaskEvent::Finished(outcome))])
            .collect()
    }
}

/// Reads the typed answer, once it is complete.
fn read_event(reader: &Reader, event: TaskEvent) -> TaskEvent {
    match event {
        TaskEvent::Finished(outcome) => TaskEvent::Finished(reader.read_outcome(outcome)),
        event => event,
    }
}

/// Reads the answer as JSON, once it is complete.
fn json_event(task: &str, event: TaskEvent) -> Result<TaskEvent, TaskError> {
    let TaskEvent::Finished(mut outcome) = event else {
        return Ok(event);
    };
    outcome.answer = json(task, outcome.answer)?;
    for sample in &mut outcome.samples {
        sample.answer = json(task, sample.answer.clone())?;
    }
    Ok(TaskEvent::Finished(outcome))
}

fn json(task: &str, answer: Answer) -> Result<Answer, TaskError> {
    let Answer::Text { text, .. } = answer else {
        return Ok(answer);
    };
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Answer::Json { value, text }),
        Err(source) => Err(TaskError::NoJson {
            task: task.to_owned(),
            found: text,
            source,
        }),
    }
}

/// Turns an answer that comes at once into events: its text, and the end.
fn whole_answer(
    outcome: Result<TaskOutcome, TaskError>,
) -> stream::Iter<std::vec::IntoIter<Result<TaskEvent, TaskError>>> {
    let events: Events = match outcome {
        Ok(outcome) => {
            let text = outcome
                .answer
                .text()
                .map(|text| Ok(TaskEvent::Text(text.to_owned())));
            text.into_iter()
                .chain([Ok(TaskEvent::Finished(outcome))])
                .collect()
        }
        Err(error) => vec![Err(error)],
    };
    stream::iter(events)
}

/// Fills each gap with the most probable word.
async fn unmask(engine: Engine, request: Request, original: String) -> Result<TaskOutcome, TaskError> {
    let answered = engine.unmask(request, 1).await?;
    let tokenizer = engine.tokenizer();
    let word = |best: &Vec<WordScore>| {
        let ids: Vec<TokenId> = best.iter().map(|word| word.id).collect();
        tokenizer.decode(&ids).trim().to_owned()
    };
    let text = |words: Vec<Vec<WordScore>>| {
        let spans: Vec<String> = words.iter().map(word).collect();
        let text = fill_gaps(&original, &spans);
        Answer::Text { text, spans }
    };
    Ok(TaskOutcome::whole(answered.map(text), Some(FinishReason::Stop)))
}

async fn embed(engine: Engine, request: Request) -> Result<TaskOutcome, TaskError> {
    let answered = engine.embed(request).await?.map(Answer::Embedding);
    Ok(TaskOutcome::whole(answered, None))
}

/// Hides patches and names what they show.
async fn uncover(
    engine: Engine,
    task: String,
    request: Request,
    hidden: Vec<PatchRange>,
) -> Result<TaskOutcome, TaskError> {
    let grid = engine.config().grid();
    let hidden = patch_indices(&task, &hidden, grid)?;
    let answered = engine.uncover(request, hidden.clone(), CODES_PER_PATCH).await?;
    let code = |code: &CodeScore| VisualCode {
        code: code.code,
        probability: f64::from(code.log_probability).exp(),
    };
    let patch = |(index, codes): (usize, Vec<CodeScore>)| PatchAnswer {
        row: index / grid,
        column: index % grid,
        codes: codes.iter().map(code).collect(),
    };
    let patches = |codes| hidden.into_iter().zip(codes).map(patch).collect();
    Ok(TaskOutcome::whole(
        answered.map(patches).map(Answer::Patches),
        None,
    ))
}

/// Lists the patches that some ranges name, each once, row by row.
fn patch_indices(task: &str, ranges: &[PatchRange], grid: usize) -> Result<Vec<usize>, TaskError> {
    let mut indices = BTreeSet::new();
    for range in ranges {
        if range.rows.end().max(range.columns.end()) >= &grid {
            return Err(TaskError::NoSuchPatch {
                task: task.to_owned(),
                found: range.to_string(),
                grid,
            });
        }
        let row = |row: usize| range.columns.clone().map(move |column| row * grid + column);
        indices.extend(range.rows.clone().flat_map(row));
    }
    Ok(indices.into_iter().collect())
}
