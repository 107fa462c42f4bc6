//! `multiway finetune`: a checkpoint trained further on the records of a data set.

mod args;
mod card;
mod evaluation;
mod records;
mod written;

use std::sync::atomic::Ordering;

use multiway_training::finetune::{Finished, TuneReport, Tuning};
use serde_json::json;

pub(crate) use self::args::FinetuneArgs;
use self::card::Card;
use self::evaluation::{Figures, Validation};
use self::records::{Records, engine, finetune_failure, open};
use super::context::Context;
use super::failure::{Failure, Outcome};
use super::fingerprint::fingerprint;
use super::output::{note, print_json, print_line};
use super::train::{bar, stop_on_interrupt};

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &FinetuneArgs) -> Outcome {
    context.require_cpu("fine-tuning")?;
    args.check_folders()?;
    let opened = open(context, args)?;
    let records = Records::read(context, args, &opened)?;
    let options = args.options(context, &opened.fingerprint, &opened.task, records.train.len());
    let mut tuning = Tuning::open(options, &opened.checkpoint, &records.train, &records.validation)
        .map_err(finetune_failure)?;
    let validation = Validation::new(args, &opened, &records);
    let folder = args.out.join("evaluation");
    let before = validation.figures(
        context,
        &opened.engine,
        &opened.fingerprint,
        &folder.join("before"),
        true,
    )?;
    if !context.quiet() {
        note(&format!(
            "{} records to train on, {} to validate; {} parameters are trained",
            records.train.len(),
            records.validation.len(),
            tuning.trained_parameters()
        ));
    }
    let Some(finished) = train(context, &mut tuning, &opened.fingerprint)? else {
        if !context.quiet() {
            note(&format!(
                "stopped after step {}; the state is in {}, and the same command goes on",
                tuning.step(),
                args.run_folder().display()
            ));
        }
        return Err(Failure::Interrupted);
    };
    let written = written::write(&opened.checkpoint, &finished.weights, args)?;
    let engine = engine(context, &written.checkpoint)?;
    let model = fingerprint(&written.checkpoint)?;
    let after = validation.figures(context, &engine, &model, &folder.join("after"), false)?;
    let card = Card {
        args,
        base: opened.checkpoint.name(),
        base_fingerprint: &opened.fingerprint,
        task: &opened.task,
        trained: records.train.len(),
        validated: records.validation.len(),
        unusable: records.unusable,
        finished: &finished,
        before: before.as_ref(),
        after: after.as_ref(),
        is_adapter: written.is_adapter,
    };
    card.write()?;
    report(&card, &written.files)
}

/// Trains to the end, or until Ctrl-C; then nothing is returned.
fn train(context: &Context, tuning: &mut Tuning<'_>, fingerprint: &str) -> Outcome<Option<Finished>> {
    let stop = stop_on_interrupt()?;
    let bar = bar(context);
    let begun = tuning.step();
    let mut show = |report: TuneReport| {
        let validation = report
            .validation
            .map_or(String::new(), |loss| format!(", validation {loss:.3}"));
        if report.step == begun + 1 {
            bar.set_length(report.steps);
            // The time left is that of the steps of this run.
            bar.set_position(begun);
            bar.reset_eta();
        }
        bar.set_message(format!(
            "loss {:.3}{validation}, {:.0}/s",
            report.loss, report.examples_per_second
        ));
        bar.set_position(report.step);
    };
    let finished = tuning.train(fingerprint, &stop, &mut show);
    bar.finish_and_clear();
    let finished = finished.map_err(finetune_failure)?;
    // A Ctrl-C during the last step ends the command, too: the state is saved, and the same command goes on.
    Ok(finished.filter(|_| !stop.load(Ordering::Relaxed)))
}

fn report(card: &Card<'_>, files: &[String]) -> Outcome {
    let args = card.args;
    if args.json {
        return print_json(&json!({
            "task": card.task.name(),
            "base": card.base,
            "method": args.method().name(),
            "steps": card.finished.step,
            "records": card.trained,
            "validation_records": card.validated,
            "unusable": card.unusable,
            "best": card.finished.best.map(|(loss, step)| json!({"loss": loss, "step": step})),
            "before": card.before.map(Figures::json),
            "after": card.after.map(Figures::json),
            "out": args.out.display().to_string(),
            "files": files,
        }));
    }
    for line in card.figures() {
        print_line(&line)?;
    }
    if let Some((loss, step)) = card.finished.best {
        print_line(&format!(
            "lowest validation loss {loss:.3}, at step {step} of {}",
            card.finished.step
        ))?;
    }
    print_line(&format!("wrote {} to {}", files.join(", "), args.out.display()))
}
