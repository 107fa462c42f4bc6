//! The locks that `handover` is built on; its model check puts loom's in their place.

pub(crate) use std::sync::{Arc, Mutex, PoisonError};

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Formatter, Result};
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Waker};

    use crate::handover::{Handed, handover};

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
        let (giver, mut taker) = handover();
        giver.give(Shy::default());
        catch_unwind(|| format!("{giver:?}")).unwrap_err();
        assert!(
            format!("{taker:?}").contains("poisoned: true"),
            "the panic was under the lock"
        );
        assert!(giver.is_wanted());
        giver.give(Shy::default());
        giver.finish(7);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let item = taker.poll_take(&mut context);
            assert!(matches!(item, Poll::Ready(Some(Handed::Item(Shy { .. })))));
        }
        assert!(matches!(
            taker.poll_take(&mut context),
            Poll::Ready(Some(Handed::End(7)))
        ));
    }
}
