//! The locks that `handover` is built on; its model check puts loom's in their place.

pub(crate) use std::sync::{Arc, Mutex, PoisonError};

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Formatter, Result};
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Waker};

    use crate::handover::{Received, handover};

    /// Panics when it is shown for the first time.
    #[derive(Default)]
    struct Shy {
        was_shown: AtomicBool,
    }

    impl Debug for Shy {
        fn fmt(&self, _: &mut Formatter<'_>) -> Result {
            assert!(self.was_shown.swap(true, Ordering::Relaxed), "shown");
            Ok(())
        }
    }

    #[test]
    fn a_handover_goes_on_after_a_panic_under_its_lock() {
        let (sender, mut receiver) = handover();
        sender.send(Shy::default());
        catch_unwind(|| format!("{sender:?}")).unwrap_err();
        assert!(
            format!("{receiver:?}").contains("poisoned: true"),
            "the panic was under the lock"
        );
        assert!(sender.is_receiver_alive());
        sender.send(Shy::default());
        sender.finish(7);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let item = receiver.poll_receive(&mut context);
            assert!(matches!(item, Poll::Ready(Some(Received::Item(Shy { .. })))));
        }
        assert!(matches!(
            receiver.poll_receive(&mut context),
            Poll::Ready(Some(Received::End(7)))
        ));
    }
}
