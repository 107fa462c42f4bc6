//! The hand-over from the engine's thread to one client: items in order, then at most one end.
//!
//! Both sides share one slot. The sender appends to it and never waits for the receiver to read; the receiver empties it
//! under one lock and then reads what it took without any. A client that falls behind finds all it missed merged into
//! one batch, and is woken once for it. The lock is held only to move a few words or to append one item: wakers and
//! items are cloned, woken and freed outside of it.
//!
//! The slot has no bound of its own: it holds what the sender writes, which is one item per new token, so
//! `max_new_tokens` bounds it.

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Poll, Waker};

use super::sync::{Arc, Mutex, PoisonError};

/// Opens a hand-over of items `T` and an end `E`.
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

/// What is handed over.
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
    /// Whether the receiver is there.
    is_receiver_alive: bool,
}

#[derive(Debug)]
struct Slot<T, E>(Mutex<SlotState<T, E>>);

impl<T, E> Slot<T, E> {
    /// Changes the state under the lock; what `change` returns is freed by the caller, outside of the lock.
    ///
    /// No change can be left half done, so the state is whole even after a panic under the lock.
    fn change<R>(&self, change: impl FnOnce(&mut SlotState<T, E>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes for a receiver that is still there, and wakes it if it waits.
    fn write(&self, write: impl FnOnce(&mut SlotState<T, E>)) {
        let written = self.change(|state| {
            if !state.is_receiver_alive {
                // Owns what was to be written.
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

/// Writes items, and at most one end. Dropping it without an end closes the hand-over.
#[derive(Debug)]
pub(crate) struct HandoverSender<T, E> {
    slot: Arc<Slot<T, E>>,
    /// The end, on its way into the slot.
    end: Option<E>,
}

impl<T, E> HandoverSender<T, E> {
    /// Appends an item; it is freed where nobody wants it any more.
    pub(crate) fn send(&self, item: T) {
        self.slot.write(|state| state.pending.push_back(item));
    }

    /// Writes the end, and closes the hand-over.
    pub(crate) fn finish(mut self, end: E) {
        // Dropping writes it.
        self.end = Some(end);
    }

    /// Tells whether the receiver is still there.
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

/// Reads what a [`HandoverSender`] writes. Dropping it tells the sender that nothing more is wanted, and frees what is pending.
#[derive(Debug)]
pub(crate) struct HandoverReceiver<T, E> {
    slot: Arc<Slot<T, E>>,
    /// What was taken out of the slot and not read yet.
    items: VecDeque<T>,
    end: Option<E>,
    /// Whether nothing more comes into the slot.
    is_closed: bool,
}

impl<T, E> HandoverReceiver<T, E> {
    /// Reads the next item, or the end; nothing after the end, or where there is none.
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

    /// Takes everything out of the slot; waits where there is nothing.
    ///
    /// Both happen under the same lock: whatever is written after it finds the waker.
    fn drain(&mut self, waker: &Waker) {
        let waker = waker.clone();
        let unused = self.slot.change(|state| {
            // The slot goes on with the emptied queue and its memory.
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
