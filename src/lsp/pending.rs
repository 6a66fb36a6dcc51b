//! Request ids and who waits for each.
//!
//! A cancelled request stays here until the peer answers it, since until then the peer may still be at work on it.

use std::collections::HashMap;

/// The requests that the peer has not answered.
#[derive(Debug)]
pub struct Pending<W> {
    next_id: u64,
    waiting: HashMap<u64, Entry<W>>,
}

#[derive(Debug)]
struct Entry<W> {
    waiter: W,
    cancelled: bool,
}

/// A request that was answered.
#[derive(Debug)]
pub struct Answered<W> {
    /// Who waits for the answer.
    pub waiter: W,
    /// The peer had been told to stop.
    pub cancelled: bool,
}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Self { next_id: 1, waiting: HashMap::new() }
    }
}

impl<W> Pending<W> {
    /// Keeps who waits, under an id that was never used before.
    pub fn insert(&mut self, waiter: W) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(id, Entry { waiter, cancelled: false });
        id
    }

    /// Notes that the peer was told to stop; false where it has answered already, or was told before.
    pub fn cancel(&mut self, id: u64) -> bool {
        self.waiting.get_mut(&id).is_some_and(|entry| !std::mem::replace(&mut entry.cancelled, true))
    }

    /// Takes out who waits; none for an id that is not, or no longer, waited for.
    pub fn answer(&mut self, id: u64) -> Option<Answered<W>> {
        self.waiting.remove(&id).map(|Entry { waiter, cancelled }| Answered { waiter, cancelled })
    }

    /// Whether the peer owes no answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out all who wait.
    pub fn drain(&mut self) -> impl Iterator<Item = W> + '_ {
        self.waiting.drain().map(|(_, entry)| entry.waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_request_stays_until_it_is_answered() {
        let mut pending = Pending::default();
        let first = pending.insert("first");
        let second = pending.insert("second");
        assert_ne!(first, second);
        assert!(pending.cancel(first));
        assert!(!pending.cancel(first), "told once");
        let answered = pending.answer(first).unwrap();
        assert!(answered.cancelled);
        assert_eq!(answered.waiter, "first");
        assert!(pending.answer(first).is_none());
        assert!(!pending.cancel(first));
        assert!(!pending.is_empty());
        assert_eq!(pending.drain().collect::<Vec<_>>(), ["second"]);
        assert!(pending.is_empty());
    }
}
