//! The channel from the engine's thread to one client: items in order, then at most one end.
//!
//! Both sides share one slot. The sender appends to it and never blocks; the receiver swaps the whole slot
//! out under one lock and then reads it without any. A client that falls behind gets all that it missed as
//! one batch, and is woken once for it. The lock is held only to move a few words or to append one item:
//! wakers and items are cloned, woken and freed outside of it.
//!
//! There is no back-pressure: the slot holds one item per new token, so `max_new_tokens` bounds it.

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Poll, Waker};

use super::sync::{Arc, Mutex, PoisonError};

/// Opens a channel of items `T` and an end `E`.
pub(crate) fn handover<T, E>() -> (HandoverSender<T, E>, HandoverReceiver<T, E>) {
    let slot = Arc::new(Slot(Mutex::new(SlotState {
        pending: VecDeque::new(),
        end: None,
        waker: None,
        is_closed: false,
        is_receiver_alive: true,
    })));
    let sender = HandoverSender {
        slot: Arc::clone(&slot),
        end: None,
    };
    let receiver = HandoverReceiver {
        slot,
        items: VecDeque::new(),
        end: None,
        is_closed: false,
    };
    (sender, receiver)
}

/// What the receiver gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<T, E> {
    /// One of the items.
    Item(T),
    /// The end; nothing comes after it.
    End(E),
}

#[derive(Debug)]
struct SlotState<T, E> {
    pending: VecDeque<T>,
    end: Option<E>,
    /// Set while the receiver waits.
    waker: Option<Waker>,
    /// Whether the sender is gone.
    is_closed: bool,
    /// Whether the receiver is alive.
    is_receiver_alive: bool,
}

#[derive(Debug)]
struct Slot<T, E>(Mutex<SlotState<T, E>>);

impl<T, E> Slot<T, E> {
    /// Changes the state under the lock; what `change` returns is dropped by the caller, outside of the lock.
    ///
    /// No change can be left half done, so the state is consistent even after a panic under the lock.
    fn change<R>(&self, change: impl FnOnce(&mut SlotState<T, E>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes if the receiver is alive, and wakes it if it waits.
    fn write(&self, write: impl FnOnce(&mut SlotState<T, E>)) {
        let written = self.change(|state| {
            if !state.is_receiver_alive {
                // Dropped outside of the lock, with the item that it owns.
                return Err(write);
            }
            write(state);
            Ok(state.waker.take())
        });
        if let Ok(Some(waker)) = written {
            waker.wake();
        }
    }
}

/// Sends items, and at most one end. Dropping it without an end closes the channel.
#[derive(Debug)]
pub(crate) struct HandoverSender<T, E> {
    slot: Arc<Slot<T, E>>,
    /// The end, on its way into the slot.
    end: Option<E>,
}

impl<T, E> HandoverSender<T, E> {
    /// Sends an item; it is dropped if the receiver is gone.
    pub(crate) fn send(&self, item: T) {
        self.slot.write(|state| state.pending.push_back(item));
    }

    /// Sends the end, and closes the channel.
    pub(crate) fn finish(mut self, end: E) {
        // `drop` sends it.
        self.end = Some(end);
    }

    /// Returns whether the receiver is alive.
    pub(crate) fn is_receiver_alive(&self) -> bool {
        self.slot.change(|state| state.is_receiver_alive)
    }
}

impl<T, E> Drop for HandoverSender<T, E> {
    fn drop(&mut self) {
        let end = self.end.take();
        self.slot.write(|state| {
            state.end = end;
            state.is_closed = true;
        });
    }
}

/// Receives what a [`HandoverSender`] sends. Dropping it tells the sender, and drops what is pending.
#[derive(Debug)]
pub(crate) struct HandoverReceiver<T, E> {
    slot: Arc<Slot<T, E>>,
    /// Items that were swapped out of the slot and not read yet.
    items: VecDeque<T>,
    end: Option<E>,
    /// Whether nothing more comes into the slot.
    is_closed: bool,
}

impl<T, E> HandoverReceiver<T, E> {
    /// Receives the next item, or the end; `None` after the end, or if the sender was dropped without one.
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Received<T, E>>> {
        if self.items.is_empty() && !self.is_closed {
            self.drain(context.waker());
        }
        if let Some(item) = self.items.pop_front() {
            return Poll::Ready(Some(Received::Item(item)));
        }
        if self.is_closed {
            return Poll::Ready(self.end.take().map(Received::End));
        }
        Poll::Pending
    }

    /// Swaps everything out of the slot; registers the waker if there is nothing.
    ///
    /// Both happen under the same lock, so a later write finds the waker.
    fn drain(&mut self, waker: &Waker) {
        let waker = waker.clone();
        let unused = self.slot.change(|state| {
            // The slot reuses the allocation of the emptied queue.
            mem::swap(&mut self.items, &mut state.pending);
            self.end = state.end.take();
            self.is_closed = state.is_closed;
            if self.items.is_empty() && !self.is_closed {
                state.waker.replace(waker)
            } else {
                Some(waker)
            }
        });
        drop(unused);
    }
}

impl<T, E> Drop for HandoverReceiver<T, E> {
    fn drop(&mut self) {
        let unwanted = self.slot.change(|state| {
            state.is_receiver_alive = false;
            (
                mem::take(&mut state.pending),
                state.end.take(),
                state.waker.take(),
            )
        });
        drop(unwanted);
    }
}
