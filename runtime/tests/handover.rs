//! Checks the hand-over between the engine's thread and a client under every order of their steps, with loom.

#[path = "../src/handover.rs"]
mod handover;

mod sync {
    pub(crate) use loom::sync::{Arc, Mutex};
    pub(crate) use std::sync::PoisonError;
}

mod handover_under_loom {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use loom::future::block_on;
    use loom::thread;

    use crate::handover::{Giver, Handed, Taker, handover};

    type Seen = Vec<Handed<u8, &'static str>>;

    /// Reads until there is nothing more; loom fails the test where the reader sleeps for ever.
    fn read(taker: &mut Taker<u8, &'static str>) -> Seen {
        block_on(async {
            let mut seen = Vec::new();
            while let Some(handed) = poll_fn(|cx| taker.poll_take(cx)).await {
                seen.push(handed);
            }
            seen
        })
    }

    fn poll<T, E>(taker: &mut Taker<T, E>, waker: &Waker) -> Poll<Option<Handed<T, E>>> {
        taker.poll_take(&mut Context::from_waker(waker))
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Alarm(AtomicUsize);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reader_misses_no_wake_up_and_sees_every_item_in_order_and_one_end() {
        let mut model = loom::model::Builder::new();
        // All orders would take ten seconds; the test with one item less goes through all of them.
        model.preemption_bound = Some(5);
        model.check(|| {
            let (giver, mut taker) = handover();
            let engine = thread::spawn(move || {
                giver.give(1);
                giver.give(2);
                giver.finish("end");
            });
            let seen = read(&mut taker);
            assert_eq!(seen, [Handed::Item(1), Handed::Item(2), Handed::End("end")]);
            assert_eq!(poll(&mut taker, Waker::noop()), Poll::Ready(None));
            engine.join().unwrap();
        });
    }

    #[test]
    fn a_giver_dropped_without_an_end_ends_the_stream() {
        loom::model(|| {
            let (giver, mut taker) = handover::<_, &str>();
            let engine = thread::spawn(move || giver.give(1));
            assert_eq!(read(&mut taker), [Handed::Item(1)]);
            assert_eq!(poll(&mut taker, Waker::noop()), Poll::Ready(None));
            engine.join().unwrap();
        });
    }

    #[test]
    fn a_reader_that_was_polled_by_another_task_before_is_woken_where_it_waits_now() {
        loom::model(|| {
            let (giver, mut taker) = handover();
            let before = poll(&mut taker, Waker::noop());
            assert!(before.is_pending());
            let engine = thread::spawn(move || {
                giver.give(1);
                giver.finish("end");
            });
            assert_eq!(read(&mut taker), [Handed::Item(1), Handed::End("end")]);
            engine.join().unwrap();
        });
    }

    #[test]
    fn a_giver_sees_that_the_taker_was_dropped_and_nothing_stays_behind() {
        loom::model(|| {
            let (giver, mut taker) = handover::<Arc<()>, Arc<()>>();
            let (item, alarm) = (Arc::new(()), Arc::new(Alarm::default()));
            assert!(poll(&mut taker, &Waker::from(Arc::clone(&alarm))).is_pending());
            let given = Arc::clone(&item);
            let engine = thread::spawn(move || {
                giver.give(Arc::clone(&given));
                giver.give(given);
                giver
            });
            drop(taker);
            let giver: Giver<_, _> = engine.join().unwrap();
            assert!(!giver.is_wanted());
            assert_eq!(
                Arc::strong_count(&item),
                1,
                "no item is kept, though the giver is"
            );
            assert_eq!(Arc::strong_count(&alarm), 1, "no waker is kept");
            giver.finish(Arc::clone(&item));
            assert_eq!(Arc::strong_count(&item), 1, "no end is kept");
        });
    }

    #[test]
    fn a_taker_dropped_while_the_end_is_written_frees_it() {
        loom::model(|| {
            let (giver, taker) = handover::<Arc<()>, Arc<()>>();
            let item = Arc::new(());
            let given = Arc::clone(&item);
            let engine = thread::spawn(move || {
                giver.give(Arc::clone(&given));
                giver.finish(given);
            });
            drop(taker);
            engine.join().unwrap();
            assert_eq!(Arc::strong_count(&item), 1);
        });
    }

    #[test]
    fn a_reader_that_waits_is_woken_once_for_all_that_comes_before_it_reads() {
        loom::model(|| {
            let (giver, mut taker) = handover();
            let alarm = Arc::new(Alarm::default());
            let (waker, woken) = (Waker::from(Arc::clone(&alarm)), || {
                alarm.0.load(Ordering::Relaxed)
            });
            giver.give(1);
            assert_eq!(poll(&mut taker, &waker), Poll::Ready(Some(Handed::Item(1))));
            giver.give(2);
            assert_eq!(woken(), 0, "nobody waits");
            assert_eq!(poll(&mut taker, &waker), Poll::Ready(Some(Handed::Item(2))));
            assert!(poll(&mut taker, &waker).is_pending());
            giver.give(3);
            giver.give(4);
            giver.finish("end");
            assert_eq!(woken(), 1);
            let rest = [Handed::Item(3), Handed::Item(4), Handed::End("end")];
            for handed in rest {
                assert_eq!(poll(&mut taker, &waker), Poll::Ready(Some(handed)));
            }
        });
    }

    /// Uses the hand-over when it is woken, freed or given away for nothing: under its lock that could never end.
    struct Curious(Arc<Giver<Self, ()>>);

    impl Curious {
        fn look(&self) {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            self.0.is_wanted();
        }
    }

    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            self.look();
        }
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            self.look();
        }
    }

    static LOOKS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn wakers_and_items_are_woken_and_freed_outside_of_the_lock() {
        loom::model(|| {
            let (giver, mut taker) = handover();
            let giver = Arc::new(giver);
            let curious = || Curious(Arc::clone(&giver));
            let waker = || Waker::from(Arc::new(curious()));
            let looks = || LOOKS.swap(0, Ordering::Relaxed);
            looks();
            assert!(poll(&mut taker, &waker()).is_pending());
            assert!(poll(&mut taker, &waker()).is_pending());
            assert_eq!(looks(), 1, "the first waker was freed");
            giver.give(curious());
            assert_eq!(looks(), 2, "the second was woken and freed");
            assert!(poll(&mut taker, &waker()).is_ready());
            assert_eq!(looks(), 2, "the item and an unused waker were freed");
            assert!(poll(&mut taker, &waker()).is_pending());
            giver.give(curious());
            assert_eq!(looks(), 2);
            drop(taker);
            assert_eq!(looks(), 1, "the item was freed");
            giver.give(curious());
            assert_eq!(looks(), 1, "the item was freed at once");
        });
    }
}
