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

    use crate::handover::{HandoverReceiver, HandoverSender, Received, handover};

    type Seen = Vec<Received<u8, &'static str>>;

    /// Reads until there is nothing more; loom fails the test where the reader sleeps for ever.
    fn read(receiver: &mut HandoverReceiver<u8, &'static str>) -> Seen {
        block_on(async {
            let mut seen = Vec::new();
            while let Some(handed) = poll_fn(|cx| receiver.poll_receive(cx)).await {
                seen.push(handed);
            }
            seen
        })
    }

    fn poll<T, E>(receiver: &mut HandoverReceiver<T, E>, waker: &Waker) -> Poll<Option<Received<T, E>>> {
        receiver.poll_receive(&mut Context::from_waker(waker))
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
            let (sender, mut receiver) = handover();
            let engine = thread::spawn(move || {
                sender.send(1);
                sender.send(2);
                sender.finish("end");
            });
            let seen = read(&mut receiver);
            assert_eq!(seen, [Received::Item(1), Received::Item(2), Received::End("end")]);
            assert_eq!(poll(&mut receiver, Waker::noop()), Poll::Ready(None));
            engine.join().unwrap();
        });
    }

    #[test]
    fn a_giver_dropped_without_an_end_ends_the_stream() {
        loom::model(|| {
            let (sender, mut receiver) = handover::<_, &str>();
            let engine = thread::spawn(move || sender.send(1));
            assert_eq!(read(&mut receiver), [Received::Item(1)]);
            assert_eq!(poll(&mut receiver, Waker::noop()), Poll::Ready(None));
            engine.join().unwrap();
        });
    }

    #[test]
    fn a_reader_that_was_polled_by_another_task_before_is_woken_where_it_waits_now() {
        loom::model(|| {
            let (sender, mut receiver) = handover();
            let before = poll(&mut receiver, Waker::noop());
            assert!(before.is_pending());
            let engine = thread::spawn(move || {
                sender.send(1);
                sender.finish("end");
            });
            assert_eq!(read(&mut receiver), [Received::Item(1), Received::End("end")]);
            engine.join().unwrap();
        });
    }

    #[test]
    fn a_giver_sees_that_the_taker_was_dropped_and_nothing_stays_behind() {
        loom::model(|| {
            let (sender, mut receiver) = handover::<Arc<()>, Arc<()>>();
            let (item, alarm) = (Arc::new(()), Arc::new(Alarm::default()));
            assert!(poll(&mut receiver, &Waker::from(Arc::clone(&alarm))).is_pending());
            let given = Arc::clone(&item);
            let engine = thread::spawn(move || {
                sender.send(Arc::clone(&given));
                sender.send(given);
                sender
            });
            drop(receiver);
            let sender: HandoverSender<_, _> = engine.join().unwrap();
            assert!(!sender.is_receiver_alive());
            assert_eq!(
                Arc::strong_count(&item),
                1,
                "no item is kept, though the sender is"
            );
            assert_eq!(Arc::strong_count(&alarm), 1, "no waker is kept");
            sender.finish(Arc::clone(&item));
            assert_eq!(Arc::strong_count(&item), 1, "no end is kept");
        });
    }

    #[test]
    fn a_taker_dropped_while_the_end_is_written_frees_it() {
        loom::model(|| {
            let (sender, receiver) = handover::<Arc<()>, Arc<()>>();
            let item = Arc::new(());
            let given = Arc::clone(&item);
            let engine = thread::spawn(move || {
                sender.send(Arc::clone(&given));
                sender.finish(given);
            });
            drop(receiver);
            engine.join().unwrap();
            assert_eq!(Arc::strong_count(&item), 1);
        });
    }

    #[test]
    fn a_reader_that_waits_is_woken_once_for_all_that_comes_before_it_reads() {
        loom::model(|| {
            let (sender, mut receiver) = handover();
            let alarm = Arc::new(Alarm::default());
            let (waker, woken) = (Waker::from(Arc::clone(&alarm)), || {
                alarm.0.load(Ordering::Relaxed)
            });
            sender.send(1);
            assert_eq!(poll(&mut receiver, &waker), Poll::Ready(Some(Received::Item(1))));
            sender.send(2);
            assert_eq!(woken(), 0, "nobody waits");
            assert_eq!(poll(&mut receiver, &waker), Poll::Ready(Some(Received::Item(2))));
            assert!(poll(&mut receiver, &waker).is_pending());
            sender.send(3);
            sender.send(4);
            sender.finish("end");
            assert_eq!(woken(), 1);
            let rest = [Received::Item(3), Received::Item(4), Received::End("end")];
            for handed in rest {
                assert_eq!(poll(&mut receiver, &waker), Poll::Ready(Some(handed)));
            }
        });
    }

    /// Uses the hand-over when it is woken, freed or given away for nothing: under its lock that could never
    /// end.
    struct Curious(Arc<HandoverSender<Self, ()>>);

    impl Curious {
        fn look(&self) {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            self.0.is_receiver_alive();
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
            let (sender, mut receiver) = handover();
            let sender = Arc::new(sender);
            let curious = || Curious(Arc::clone(&sender));
            let waker = || Waker::from(Arc::new(curious()));
            let looks = || LOOKS.swap(0, Ordering::Relaxed);
            looks();
            assert!(poll(&mut receiver, &waker()).is_pending());
            assert!(poll(&mut receiver, &waker()).is_pending());
            assert_eq!(looks(), 1, "the first waker was freed");
            sender.send(curious());
            assert_eq!(looks(), 2, "the second was woken and freed");
            assert!(poll(&mut receiver, &waker()).is_ready());
            assert_eq!(looks(), 2, "the item and an unused waker were freed");
            assert!(poll(&mut receiver, &waker()).is_pending());
            sender.send(curious());
            assert_eq!(looks(), 2);
            drop(receiver);
            assert_eq!(looks(), 1, "the item was freed");
            sender.send(curious());
            assert_eq!(looks(), 1, "the item was freed at once");
        });
    }
}
