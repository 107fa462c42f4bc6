//! Jobs: one task on every record of a data set.
//!
//! A [`Job`] reads records in a stream, keeps as many of them in the engine as it batches, and writes a line
//! of JSON for each in the order of the data. [`Job::batch`] writes answers; [`Job::evaluate`] compares them
//! with the right ones, and writes figures and a report. What a job has written is never lost: killed at any
//! moment and run again, it goes on behind the last row that is safe on disk, and its files come out the
//! same.
//!
//! ```
//! use multiway_data::{DataOptions, DataSource};
//! use multiway_jobs::{Job, JobOptions};
//! use multiway_runtime::{Engine, block_on};
//! use multiway_tasks::TaskLibrary;
//! # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
//!
//! let out = std::env::temp_dir().join(format!("multiway-jobs-{}.jsonl", std::process::id()));
//! let engine = Engine::builder(&checkpoint).build()?;
//! let library = TaskLibrary::for_model(checkpoint.config())?;
//! let source = DataSource::open(&["../examples/pictures"], DataOptions::default())?;
//! let job = Job::new(&engine, library.get("caption")?, JobOptions::default());
//! let report = block_on(job.batch(&source, "the default checkpoint", &out, |_| ()))?;
//! assert_eq!(report.records, 21);
//! # std::fs::remove_file(out)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `job`, `binding` | a task on all records, and which fields are which inputs |
//! | `journal`, `row`, `table` | unfinished results on disk, what is written for a record, and results as Parquet |
//! | `batch`, `evaluation`, `calibration`, `curation` | the four kinds of job |
//! | `labelled` | records as training takes them |
//! | `plan`, `right_answers`, `boxes`, `pairs` | what an evaluation compares: right answers, boxes, pictures with their texts |
//! | `sample`, `scores`, `figures`, `retrieval` | metrics over rows |
//! | `summary`, `report` | the figures of an evaluation, and its page |

mod batch;
mod binding;
mod boxes;
mod calibration;
mod curation;
mod digest;
mod error;
mod evaluation;
mod figures;
mod job;
mod journal;
mod labelled;
mod pairs;
mod plan;
mod report;
mod retrieval;
mod right_answers;
mod row;
mod sample;
mod scores;
mod summary;
mod table;

pub use batch::BatchReport;
pub use boxes::{Edges, RightBox};
pub use calibration::{CalibrationReport, Reliability};
pub use curation::{CurationOptions, CurationReport, Verdict};
pub use error::JobError;
pub use evaluation::EvaluationReport;
pub use job::{Filter, Job, JobOptions, JobProgress};
pub use labelled::{LabelledRecord, LabelledRecords, UnusableRecord};
pub use plan::EvaluationOptions;
pub use row::Row;
pub use scores::{Direction, MetricReport};
pub use summary::EvaluationSummary;
