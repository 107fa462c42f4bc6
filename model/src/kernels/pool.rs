//! A thread pool for a hundred tiny jobs per token.
//!
//! A decoding step is a chain of products of some ten microseconds each, with a barrier after each. Waking a
//! thread for each of them would take too long, so the threads of a [`Pool`] spin for a while before they
//! sleep. A job is a number of tasks that the threads claim one by one; the calling thread works too, so that
//! a pool of one has no thread of its own, and a job never waits for a thread that the system does not
//! schedule.

#![expect(
    unsafe_code,
    reason = "threads are lent a closure that lives on another thread's stack until the job is done"
)]

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// How long a thread spins for the next job before it sleeps: the longest time between two products.
const WATCH: Duration = Duration::from_micros(50);

/// Spins between two looks at the clock.
const SPINS: usize = 64;

/// Numbers from which an elementwise operation is distributed over threads.
const SHARED: usize = 1 << 13;

/// The closure of a job, called with the number of each task.
type Task = dyn Fn(usize) + Sync;

/// Threads that jobs of many small tasks are distributed over.
///
/// # Examples
/// ```
/// use multiway_model::kernels::Pool;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let pool = Pool::new(2);
/// let sum = AtomicUsize::new(0);
/// pool.run(10, &|task| {
///     sum.fetch_add(task, Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    thread: Thread,
    is_asleep: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The job's number in the upper half, and in the lower how many of its tasks are unclaimed.
    state: AtomicU64,
    /// Tasks of the job that are finished.
    done: AtomicUsize,
    job: Job,
    /// The payload of the first panic in a task.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    is_over: AtomicBool,
    /// Held by the thread whose job it is.
    turn: Mutex<()>,
}

/// The closure of the present job.
struct Job(UnsafeCell<Option<*const Task>>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

// SAFETY: it is written only while no task of any job is unclaimed or unfinished, and read only by a thread
// that has claimed one: see `Pool::run` and `Shared::claim`.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

thread_local! {
    /// The pool that jobs of this thread go to.
    static INSTALLED: RefCell<Option<Arc<Pool>>> = const { RefCell::new(None) };
    /// Whether this thread is inside a task: nested jobs then run on it alone.
    static IS_IN_TASK: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Starts a pool of `threads` threads, the calling one included; at least one.
    ///
    /// Where the system starts fewer threads, the pool has those.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            job: Job(UnsafeCell::new(None)),
            panic: Mutex::new(None),
            is_over: AtomicBool::new(false),
            turn: Mutex::new(()),
        });
        let workers = (1..threads).map_while(|number| Worker::start(number, &shared));
        Self {
            workers: workers.collect(),
            shared,
        }
    }

    /// Counts the threads, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with each number below `tasks`, on all threads, and returns when all calls have.
    ///
    /// # Panics
    /// Where a task panics, with the payload of the first such task, after all others are finished.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let is_single = self.workers.is_empty() || tasks < 2;
        let Ok(count) = u32::try_from(tasks) else {
            return (0..tasks).for_each(task);
        };
        if is_single || IS_IN_TASK.get() {
            return (0..tasks).for_each(task);
        }
        let turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish(count, task);
        self.wake();
        self.shared.work();
        let mut spins = 0_usize;
        while self.shared.done.load(Ordering::Acquire) < tasks {
            spin_loop();
            spins += 1;
            if spins.is_multiple_of(1 << 12) {
                // The system has taken another thread off its task: let it run.
                std::thread::yield_now();
            }
        }
        let mut panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner);
        let panic = panic.take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn publish(&self, count: u32, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: the lifetime is extended to that of the slot. Whoever reads the slot has taken a task of
        // this job, and `run` does not return before that task is done.
        let task: *const Task =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Task>(task) };
        // SAFETY: the caller has the turn, and the previous job is finished: no task is claimed, and none can
        // be until the state below is published.
        unsafe { *self.shared.job.0.get() = Some(task) };
        self.shared.done.store(0, Ordering::Relaxed);
        let number = (self.shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        let state = (number << 32) | u64::from(count);
        self.shared.state.store(state, Ordering::SeqCst);
    }

    fn wake(&self) {
        for worker in &self.workers {
            if worker.is_asleep.swap(false, Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
    }

    /// Calls `f`, in which the kernels distribute their work over this pool.
    pub fn install<R>(self: &Arc<Self>, f: impl FnOnce() -> R) -> R {
        /// Puts back what was installed before, also where `f` panics.
        struct Restore(Option<Arc<Pool>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let before = self.0.take();
                INSTALLED.with(|installed| *installed.borrow_mut() = before);
            }
        }
        let before = INSTALLED.with(|installed| installed.borrow_mut().replace(Arc::clone(self)));
        let _restore = Restore(before);
        f()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.is_asleep.store(false, Ordering::SeqCst);
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // Panics of tasks are caught: joining a worker does not fail.
                drop(handle.join());
            }
        }
    }
}

impl Worker {
    fn start(number: usize, shared: &Arc<Shared>) -> Option<Self> {
        let is_asleep = Arc::new(AtomicBool::new(false));
        let (own, asleep) = (Arc::clone(shared), Arc::clone(&is_asleep));
        let thread = std::thread::Builder::new().name(format!("multiway-kernels-{number}"));
        let handle = thread.spawn(move || own.serve(&asleep)).ok()?;
        Some(Self {
            thread: handle.thread().clone(),
            is_asleep,
            handle: Some(handle),
        })
    }
}

impl Shared {
    /// Claims a task of the present job, if any is unclaimed.
    fn claim(&self) -> Option<usize> {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let left = state & u64::from(u32::MAX);
            if left == 0 {
                return None;
            }
            // The job's number is part of the comparison: a task of a job that is over cannot be claimed.
            match self
                .state
                .compare_exchange_weak(state, state - 1, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return usize::try_from(left - 1).ok(),
                Err(found) => state = found,
            }
        }
    }

    /// Runs tasks until none is unclaimed.
    fn work(&self) {
        IS_IN_TASK.set(true);
        while let Some(number) = self.claim() {
            // SAFETY: a task of the present job was taken and is not done, so the slot is not written, and
            // what it points to lives: see `Pool::publish`.
            let task = unsafe { (*self.job.0.get()).map(|task| &*task) };
            if let Some(task) = task
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(number)))
            {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                if first.is_none() {
                    *first = Some(panic);
                } else {
                    // Dropping it could panic in turn, and the job would never finish.
                    std::mem::forget(panic);
                }
            }
            self.done.fetch_add(1, Ordering::Release);
        }
        IS_IN_TASK.set(false);
    }

    fn serve(&self, is_asleep: &AtomicBool) {
        while !self.is_over.load(Ordering::Acquire) {
            self.work();
            if self.watch() {
                continue;
            }
            is_asleep.store(true, Ordering::SeqCst);
            // Store-load pairing (Dekker): either the publisher sees the flag, or this thread sees the job.
            while is_asleep.load(Ordering::SeqCst)
                && !self.has_tasks()
                && !self.is_over.load(Ordering::SeqCst)
            {
                std::thread::park();
            }
            is_asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Spins for tasks for a while; tells whether there are any.
    fn watch(&self) -> bool {
        let since = Instant::now();
        loop {
            for _ in 0..SPINS {
                if self.has_tasks() {
                    return true;
                }
                spin_loop();
            }
            if self.is_over.load(Ordering::Acquire) || since.elapsed() > WATCH {
                return false;
            }
        }
    }

    fn has_tasks(&self) -> bool {
        self.state.load(Ordering::SeqCst) & u64::from(u32::MAX) > 0
    }
}

/// Marks this thread as being in a task, until it is dropped.
struct Inside(bool);

impl Inside {
    fn enter() -> Self {
        Self(IS_IN_TASK.replace(true))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        IS_IN_TASK.set(self.0);
    }
}

/// Calls `task` with each number below `tasks`: on the installed pool, else on rayon's.
pub(crate) fn for_each(tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    let pool = INSTALLED.with(|installed| installed.borrow().clone());
    match pool {
        Some(pool) => pool.run(tasks, task),
        None if tasks < 2 || IS_IN_TASK.get() => (0..tasks).for_each(task),
        None => (0..tasks).into_par_iter().for_each(|number| {
            // Nested jobs run on this thread alone.
            let _inside = Inside::enter();
            task(number);
        }),
    }
}

/// Keeps the first error of tasks that may fail.
#[derive(Debug, Default)]
pub(crate) struct Failure(Mutex<Option<candle_core::Error>>);

impl Failure {
    pub(crate) fn note(&self, result: candle_core::Result<()>) {
        if let Err(error) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        }
    }

    pub(crate) fn result(self) -> candle_core::Result<()> {
        let first = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        first.map_or(Ok(()), Err)
    }
}

/// A slice that tasks write disjoint parts of.
struct Shares<T>(*mut T, usize);

// SAFETY: each part of `Shares::part` is borrowed by one task.
unsafe impl<T: Send> Sync for Shares<T> {}

impl<T> Shares<T> {
    /// Returns part `index` of `size` numbers; the last may be shorter.
    ///
    /// # Safety
    /// No part is borrowed twice at the same time.
    #[expect(clippy::mut_from_ref, reason = "the caller's promise: parts are disjoint")]
    unsafe fn part(&self, index: usize, size: usize) -> &mut [T] {
        let start = index.saturating_mul(size).min(self.1);
        let end = start.saturating_add(size).min(self.1);
        // SAFETY: start and end lie inside the slice, and the caller promises that this part is not borrowed
        // elsewhere.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), end - start) }
    }
}

/// Calls `task` with each item and its number.
pub(crate) fn for_each_item<T: Send>(items: &mut [T], task: &(dyn Fn(usize, &mut T) + Sync)) {
    let shares = Shares(items.as_mut_ptr(), items.len());
    for_each(items.len(), &|index| {
        // SAFETY: each task is done once, and parts of different numbers are disjoint.
        let part = unsafe { shares.part(index, 1) };
        part.iter_mut().for_each(|item| task(index, item));
    });
}

/// What is done with a part of a slice, and the part of another beside it.
type ChunkTask<'a> = dyn Fn(usize, &mut [f32], &mut [f32]) + Sync + 'a;

/// Calls `task` with each part of `size` numbers of `out`, and the part of `scratch_size` numbers of
/// `scratch` beside it.
pub(crate) fn for_each_chunk(
    out: &mut [f32],
    size: usize,
    scratch: &mut [f32],
    scratch_size: usize,
    task: &ChunkTask,
) {
    let tasks = out.len().div_ceil(size.max(1));
    let (out, scratch) = (
        Shares(out.as_mut_ptr(), out.len()),
        Shares(scratch.as_mut_ptr(), scratch.len()),
    );
    for_each(tasks, &|index| {
        // SAFETY: each task is done once, and parts of different numbers are disjoint.
        let (out, scratch) = unsafe { (out.part(index, size), scratch.part(index, scratch_size)) };
        task(index, out, scratch);
    });
}

/// Says how many rows of a slice a task takes.
fn share(length: usize, width: usize) -> usize {
    let threads = threads();
    let all = length.div_ceil(width).max(1);
    if length < SHARED || threads == 1 {
        all
    } else {
        all.div_ceil(4 * threads).max((SHARED / 4).div_ceil(width))
    }
}

/// Calls `task` with parts of the rows of `out`, `width` numbers each, and the number of each part's first
/// row: one part where the slice is too short to be distributed.
pub(crate) fn for_each_rows(out: &mut [f32], width: usize, task: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let width = width.max(1);
    let rows = share(out.len(), width);
    for_each_chunk(out, rows * width, &mut [], 0, &|index, part, _| {
        task(index * rows, part)
    });
}

/// Calls `task` with parts of the rows of `x` and of `y` beside them, `width` numbers each, and the number of
/// each part's first row: one part where the slices are too short to be distributed.
pub(crate) fn for_each_rows_of_two(x: &mut [f32], y: &mut [f32], width: usize, task: &ChunkTask) {
    let rows = share(x.len(), width.max(1));
    let size = rows * width.max(1);
    for_each_chunk(x, size, y, size, &|index, x, y| task(index * rows, x, y));
}

/// Adds numbers to others, on several threads where that pays.
pub(crate) fn add(x: &mut [f32], added: &[f32]) {
    for_each_rows(x, 1, &|first, x| {
        if let Some(added) = added.get(first..first + x.len()) {
            x.iter_mut().zip(added).for_each(|(x, added)| *x += added);
        }
    });
}

/// Counts the threads that work is distributed over: inside a task, one.
pub(crate) fn threads() -> usize {
    if IS_IN_TASK.get() {
        return 1;
    }
    let pool = INSTALLED.with(|installed| installed.borrow().as_ref().map(|pool| pool.threads()));
    pool.unwrap_or_else(rayon::current_num_threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_done_once_by_any_number_of_threads() {
        for threads in 1..6 {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn jobs_follow_each_other_by_the_ten_thousand_and_none_sees_another() {
        let pool = Pool::new(4);
        for job in 0..if cfg!(miri) { 20 } else { 10_000_usize } {
            let tasks = job % 5 + 1;
            let sum = AtomicUsize::new(0);
            pool.run(tasks, &|task| {
                sum.fetch_add(job + task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), tasks * job + tasks * (tasks - 1) / 2);
        }
    }

    #[test]
    fn threads_that_fell_asleep_are_woken() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(20 * WATCH);
            // Two tasks that wait for each other need two threads.
            let barrier = std::sync::Barrier::new(2);
            pool.run(2, &|_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn a_panic_comes_back_to_who_asked_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        let done = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(9, &|task| {
                assert!(task != 4, "task four tripped");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert_eq!(
            *result.unwrap_err().downcast::<&str>().unwrap(),
            "task four tripped"
        );
        assert_eq!(
            done.load(Ordering::Relaxed),
            8,
            "the others are done all the same"
        );
        pool.run(9, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 17);
    }

    #[test]
    fn a_task_may_ask_for_tasks() {
        let pool = Arc::new(Pool::new(2));
        let sum = AtomicUsize::new(0);
        pool.install(|| {
            for_each(4, &|_| {
                for_each(5, &|task| {
                    sum.fetch_add(task, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(sum.into_inner(), 40);
    }

    #[test]
    fn several_threads_may_ask_one_pool() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..if cfg!(miri) { 3 } else { 500 } {
                        pool.run(3, &|task| {
                            sum.fetch_add(task, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), if cfg!(miri) { 27 } else { 4_500 });
    }
}
