//! The threads of data-parallel training.

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Workers, each a pool of one thread: kernels that split their work stay on their worker's thread.
pub(crate) struct Workers(Vec<ThreadPool>);

impl Workers {
    /// Starts so many workers, one at least. The error says why a thread cannot be started.
    pub(crate) fn start(count: usize) -> Result<Self, String> {
        let pools = (0..count.max(1)).map(|_| pool(1));
        Ok(Self(pools.collect::<Result<_, _>>()?))
    }

    /// Counts the workers.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Hands each worker a part, of which there are as many at most, and returns the results in the order of
    /// the parts: none of a worker that panicked.
    pub(crate) fn each<P: Send, T: Send>(
        &self,
        parts: impl IntoIterator<Item = P>,
        work: impl Fn(P) -> T + Sync,
    ) -> Vec<Option<T>> {
        std::thread::scope(|scope| {
            let work = &work;
            let handles: Vec<_> = parts
                .into_iter()
                .zip(&self.0)
                .map(|(part, pool)| scope.spawn(move || pool.install(|| work(part))))
                .collect();
            handles.into_iter().map(|handle| handle.join().ok()).collect()
        })
    }
}

/// What is said of a worker that panicked.
pub(crate) const PANICKED: &str = "it panicked";

/// Starts a pool of threads. The error says why it cannot be started.
pub(crate) fn pool(threads: usize) -> Result<ThreadPool, String> {
    let pool = ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    pool.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_parts_and_none_of_a_panic() {
        let workers = Workers::start(3).unwrap();
        let slow_first = |part: u64| {
            std::thread::sleep(std::time::Duration::from_millis(30 - 10 * part));
            assert!(part != 1, "on purpose");
            part * 2
        };
        assert_eq!(workers.each(0..3, slow_first), [Some(0), None, Some(4)]);
        assert_eq!(Workers::start(0).unwrap().count(), 1);
    }
}
